"""Little guests for the hypervisor's tests: machine code by hand, and what runs them."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from chronovisor.hypervisor.exits import Exit
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.stay import Stay
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.hypervisor.virtual_machine import VirtualMachine
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.memory.guest_memory import GuestMemory
from chronovisor.processor.cpu_model import POWER8
from chronovisor.processor.live_registers import LiveRegisters
from chronovisor.timebase.clock import TickSource
from chronovisor.timebase.trace import Event
from chronovisor.timebase.types import Offset

GRANULE = 1 << 24
LARGE_POWER8 = replace(POWER8, large_decrementer=56)
"""Threads share a timebase, and with LPCR[LD] a sleep may last for weeks."""
WEEKS = 1 << 50
"""Ticks that no test waits for, however long the machine stops it: a decrementer of 32 bits is due after 4.2
seconds.
"""
SECOND = 512_000_000
USER_CALL = 0x58
"""A hypercall that is always left to user space: here, the end of a piece of guest."""


def li(rt: int, value: int) -> int:
    return 0x38000000 | (rt << 21) | (value & 0xFFFF)


def lis(rt: int, value: int) -> int:
    return 0x3C000000 | (rt << 21) | (value & 0xFFFF)


def addi(rt: int, ra: int, value: int) -> int:
    return 0x38000000 | (rt << 21) | (ra << 16) | (value & 0xFFFF)


def mr(rt: int, rs: int) -> int:
    return 0x7C000378 | (rs << 21) | (rt << 16) | (rs << 11)


def std(rs: int, offset: int, ra: int) -> int:
    return 0xF8000000 | (rs << 21) | (ra << 16) | (offset & 0xFFFC)


def ld(rt: int, offset: int, ra: int) -> int:
    return 0xE8000000 | (rt << 21) | (ra << 16) | (offset & 0xFFFC)


def mftb(rt: int) -> int:
    return 0x7C0C42A6 | (rt << 21)


def mfvtb(rt: int) -> int:
    return 0x7C11D2A6 | (rt << 21)


def mfdec(rt: int) -> int:
    return 0x7C1602A6 | (rt << 21)


def mtdec(rs: int) -> int:
    return 0x7C1603A6 | (rs << 21)


def mtmsrd_ee(rs: int) -> int:
    """mtmsrd rs,1: MSR[EE] and MSR[RI] from rs."""
    return 0x7C010164 | (rs << 21)


def branch(words: int) -> int:
    """Branch by this many instructions from here."""
    return 0x48000000 | ((words * 4) & 0x03FFFFFC)


def mtctr(rs: int) -> int:
    return 0x7C0903A6 | (rs << 21)


def bdnz(words: int) -> int:
    return 0x42000000 | ((words * 4) & 0xFFFC)


SC1 = 0x44000022
RFID = 0x4C000024
NOP = 0x60000000


def hcall(number: int) -> list[int]:
    return [li(3, number), SC1]


def user_call() -> list[int]:
    """End the run: user space gets a hypercall with r4 to r12 as they are."""
    return hcall(USER_CALL)


def spin(count: int) -> list[int]:
    """Execute `count` (below 2^15) turns of a loop of one instruction."""
    return [li(0, count), mtctr(0), bdnz(0)]


class Guest:
    """A machine on a host, with little-endian code, and its vCPUs."""

    def __init__(self, host: Hypervisor, stride: int = 1, memory: int = 1 << 20) -> None:
        self.host = host
        self.machine = VirtualMachine(host, stride)
        self.memory = GuestMemory(memory)
        self.machine.give_memory(self.memory)

    def code(self, address: int, words: list[int]) -> int:
        self.memory.write(address, b"".join(struct.pack("<I", word) for word in words))
        return address

    def vcpu(self, number: int, pc: int, interrupts: bool = False) -> VirtualCpu:
        vcpu = self.machine.add_vcpu(number)
        vcpu.state.CIA = pc
        vcpu.state.set_msr(int(MSR.SF | MSR.ME | MSR.LE) | (int(MSR.EE) if interrupts else 0))
        vcpu.vcore.lpcr |= int(LPCR.ILE)
        return vcpu

    def word(self, address: int) -> int:
        return self.memory.load(address, 8, little=True)


class Log:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def power8(source: TickSource, threads: int = 2, **more: Any) -> Hypervisor:
    return Hypervisor(source, threads_per_core=threads, **({"cpu_model": POWER8} | more))


@contextmanager
def a_minute(vcpu: VirtualCpu) -> Iterator[None]:
    """Fail if its run takes more than a minute: what was to end it has been lost."""
    lost = threading.Event()

    def end() -> None:
        lost.set()
        vcpu.kick()

    watch = threading.Timer(60, end)
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()
    assert not lost.is_set(), "it sleeps on"


def run_together(vcpus: list[VirtualCpu], turns: Callable[[VirtualCpu, Exit], bool] | None = None) -> None:
    """Run each vCPU on a thread of its own until `turns` says no (default: one run each); deterministic."""
    failures: list[BaseException] = []

    def drive(vcpu: VirtualCpu) -> None:
        try:
            while turns is not None and turns(vcpu, vcpu.run()):
                pass
            if turns is None:
                vcpu.run()
        except BaseException as error:
            failures.append(error)
        finally:
            vcpu.host.scheduler.unbind(vcpu.seat)

    with vcpus[0].host.scheduler.monitor:
        for vcpu in vcpus:
            vcpu.host.scheduler.bind(vcpu.seat)
    threads = [threading.Thread(target=drive, args=(vcpu,), daemon=True) for vcpu in vcpus]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a vCPU never came back"
    if failures:
        raise failures[0]


class WrongTimeError(AssertionError):
    """A guest read another time than the host's plus what its core had applied."""


def watch_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every reading of TB by a guest compared with the clock, to the tick."""
    read, begin = LiveRegisters.read, VirtualCpu.begin
    offsets: dict[LiveRegisters, Offset] = {}

    def noted(self: VirtualCpu, stay: Stay, *how: Any) -> None:
        offsets[self._live] = stay.entered_with
        begin(self, stay, *how)

    def compared(self: LiveRegisters, name: str) -> int:
        value = read(self, name)
        if name == "TB":
            right = (self.thread.core.timebase.tod() + offsets[self]).value
            if value != right:
                raise WrongTimeError(f"thread {self.thread.pir} read {value:#x}, but it is {right:#x}")
        return value

    monkeypatch.setattr(VirtualCpu, "begin", noted)
    monkeypatch.setattr(LiveRegisters, "read", compared)
