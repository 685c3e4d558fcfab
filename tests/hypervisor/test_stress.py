"""Eight vCPUs in two virtual cores on real threads, their offsets set at random meanwhile: P1 to P4 under
load.

The host's time has few ticks, and offsets are multiples of 2^40. So the low 40 bits of whatever a guest reads
are that reading less the offset then applied, and the guest itself can see that they never go back: not on
one vCPU, and not from one to another, by a word in memory in which each leaves its latest.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Final

import pytest
from little_guests import (
    Guest,
    bdnz,
    branch,
    ld,
    li,
    mftb,
    mr,
    mtctr,
    power8,
    std,
    user_call,
)
from soak import share

from chronovisor.engine.choice import engine_named
from chronovisor.hypervisor.exits import Hypercall, Kicked
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.timebase.clock import RealTime
from chronovisor.timebase.types import MASK64, Offset

SAMPLE, SOAK = 2.0, max(10.0, share(60))
"""Seconds."""
THREADS, VCPUS = 4, 8
LATEST: Final = 0x8000
"""The address at which vCPUs store their last reading."""
LOW: Final = (1 << 40) - 1
SYNC: Final = 0x7C0004AC


def clrldi(ra: int, rs: int, bits: int) -> int:
    return 0x78000000 | (rs << 21) | (ra << 16) | ((bits & 31) << 6) | ((bits >> 5) << 5)


def cmpld(ra: int, rb: int) -> int:
    return 0x7C200040 | (ra << 16) | (rb << 11)


def blt(words: int) -> int:
    return 0x41800000 | ((words * 4) & 0xFFFC)


READER: Final = [
    *(li(0, 300), mtctr(0), li(9, 0), li(6, 0)),
    0x61290000 | LATEST,  # ori r9,r9,LATEST
    *(ld(7, 0, 9), SYNC, mftb(5), clrldi(8, 5, 24)),
    *(cmpld(8, 7), blt(7), cmpld(8, 4), blt(5)),
    *(mr(4, 8), std(8, 0, 9), bdnz(-10)),
    branch(2),
    li(6, 1),
    *user_call(),
    branch(-20),
]
"""r4 = the latest reading less its offset; r5 = the last reading; if time went back, r6 = 1 and r7, r8 show
it."""


@dataclass
class Stress:
    """One run of all vCPUs."""

    host: Hypervisor
    vcpus: list[VirtualCpu]
    offsets: list[set[int]]
    """By virtual core, all that were ever set."""
    stop: float
    problems: list[str] = field(default_factory=list)
    runs: int = 0
    sets: int = 0

    @property
    def going(self) -> bool:
        return time.monotonic() < self.stop and not self.problems

    def drive(self, vcpu: VirtualCpu) -> None:
        last = 0
        while self.going:
            before = self.host.clock.now().value
            ended = vcpu.run()
            after = self.host.clock.now().value
            self.runs += 1
            if isinstance(ended, Kicked):
                continue
            if not isinstance(ended, Hypercall):
                self.problems.append(f"vCPU {vcpu.number}: {ended}")
                return
            latest, reading, back, seen, low = ended.args[:5]
            offset = reading - (reading & LOW)
            if back:
                self.problems.append(f"vCPU {vcpu.number}: read {low:#x} after {latest:#x} and {seen:#x}")
            elif not (max(before, last) <= latest <= after and latest == reading & LOW):
                self.problems.append(f"vCPU {vcpu.number}: {latest:#x} is not from {before:#x} to {after:#x}")
            elif offset not in self.offsets[vcpu.number // THREADS]:
                self.problems.append(
                    f"vCPU {vcpu.number}: read under {offset:#x}, which never was its offset"
                )
            last = latest

    def set_offset(self, vcpu: VirtualCpu, high: int) -> None:
        offset = Offset((high << 40) & MASK64)
        self.offsets[vcpu.number // THREADS].add(offset.value)
        with vcpu.access():
            vcpu.set_offset(offset)
        self.sets += 1

    def set_offsets(self, seed: int) -> None:
        """Kick a vCPU, set the offset of all its siblings through it, let it enter again; over and over."""
        chance = random.Random(seed)
        while self.going:
            vcpu = chance.choice(self.vcpus)
            vcpu.kick()
            self.set_offset(vcpu, chance.randrange(1, 1 << 23))
            time.sleep(chance.random() * 0.002)


def stress(engine: str, cores: int, seconds: float) -> None:
    source = RealTime()
    host = power8(
        source,
        threads=THREADS,
        cores=cores,
        origin=(1 - source.ticks()) & MASK64,
        engine=engine_named(engine),
    )
    guest = Guest(host, stride=THREADS)
    code = guest.code(0x1000, READER)
    guest.code(0x900, [branch(0)])
    vcpus = [guest.vcpu(number, code) for number in range(VCPUS)]
    under = Stress(host, vcpus, [set() for _ in range(VCPUS // THREADS)], time.monotonic() + seconds)
    # Never 0, which is the host's own time.
    for number in range(0, VCPUS, THREADS):
        under.set_offset(vcpus[number], 1 + number)
    threads = [threading.Thread(target=under.drive, args=(vcpu,), daemon=True) for vcpu in vcpus]
    threads.append(threading.Thread(target=under.set_offsets, args=(cores,), daemon=True))
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        under.problems += host.check_sync()
        time.sleep(0.002)
        assert time.monotonic() < under.stop + 60, "a vCPU never came back"
    assert not under.problems
    assert under.runs > VCPUS
    assert under.sets > 0
    assert not host.check_sync()
    for core in host.cores:
        assert host.run_queue.stays[core.number] is None
        before, reading, after = host.clock.now(), core.timebase.read(), host.clock.now()
        assert before.value <= reading <= after.value


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("engine", ["regions", "concrete"])
def test_eight_vcpus_on_real_threads_with_offsets_set_at_random(engine: str, cores: int) -> None:
    """With one core the two virtual cores share it by time slices."""
    stress(engine, cores, SAMPLE if engine == "regions" else SAMPLE / 2)


@pytest.mark.soak
def test_a_minute_of_eight_vcpus_on_real_threads() -> None:
    stress("regions", 2, SOAK)
