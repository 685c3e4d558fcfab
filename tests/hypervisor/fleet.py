"""Several hosts, guests and virtual cores on one virtual clock, and pieces of guest to run on them.

Whatever a vCPU does is a *piece*: a few instructions that end with a hypercall to user space. vCPUs run their
pieces at the same time, in turns that a seed draws, while alarms of the clock do things to them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from little_guests import USER_CALL, bdnz, branch, hcall, li, mfdec, mftb, mr, mtctr, mtdec, user_call

from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.scheduler import draw_turns
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.kvm.exits import HcallExit, Interrupted
from chronovisor.kvm.interface import Vcpu
from chronovisor.kvm.registers import read_register, write_register
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.papr.hcalls import Hcall
from chronovisor.papr.vpa import DTL_ENTRY_SIZE, VPA_DTL_ENABLE_MASK, VPA_DTL_INDEX, DispatchLogEntry
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.trace import Event

INSTRUCTION: Final = 256
"""Ticks that one takes."""
MEMORY: Final = 1 << 20
AREAS: Final = 0x8_0000
"""The address of the first vCPU's areas: its VPA and, a page later, its log."""
AREAS_SIZE: Final = 0x2000
LOG: Final = 0x1000
LOG_ENTRIES: Final = 85
REPORT: Final = [mftb(4), mfdec(5), *user_call(), branch(0)]
"""r4 = the timebase; r5 = DEC, an instruction later; r6 says who reports."""

READ, TIMER, CEDE, SPIN, PROD = 0x1000, 0x1100, 0x1200, 0x1300, 0x1400
PIECES: Final = {
    READ: [li(6, 0), *REPORT],
    # r7: ticks.
    TIMER: [mtdec(7), li(6, 0), *REPORT],
    CEDE: [mtdec(7), mftb(10), *hcall(Hcall.CEDE), li(6, 0), *REPORT],
    # r8: turns of a loop of one instruction. r10 = the timebase before it.
    SPIN: [mftb(10), mtctr(8), bdnz(0), li(6, 0), *REPORT],
    # r9: whom.
    PROD: [mr(4, 9), *hcall(Hcall.PROD), li(6, 0), *REPORT],
    0x500: [li(6, 0x500), *REPORT],
    0x900: [li(6, 0x900), *REPORT],
}


@dataclass(frozen=True)
class Report:
    """What a piece ended with."""

    timebase: int
    dec: int
    why: int
    """0, or the vector of the interrupt that came first."""
    first: int
    """r10: the timebase that the piece read before what it is about."""


@dataclass
class Task:
    """A piece for a vCPU, and what is in r7, r8 and r9 for it."""

    guest: int
    vcpu: int
    piece: int
    value: int = 0
    reports: list[Report] = field(default_factory=list)
    kicked: int = 0


class Fleet:
    """Hosts and guests. `shapes` are the hosts: their processor, cores and threads a core."""

    def __init__(
        self, seed: int, origins: list[int], shapes: list[tuple[str, int, int]], traced: bool = False
    ) -> None:
        self.source = VirtualTime()
        self.trace: list[tuple[int, int, Event]] = []
        """Of each event of the switch: the host, the tick, and what happened."""
        turns = draw_turns(self.source, seed)
        self.hosts = [
            Host(
                origin,
                self.source,
                cores,
                threads,
                cpu,
                self._observer(number) if traced else None,
                engine="concrete",
            )
            for number, (origin, (cpu, cores, threads)) in enumerate(zip(origins, shapes, strict=True))
        ]
        assert self.hypervisor(0).scheduler is turns
        self.guests: list[Guest] = []
        self.at: list[int] = []
        """On which host each guest is."""

    def _observer(self, host: int) -> Callable[[Event], None]:
        return lambda event: self.trace.append((host, self.source.ticks(), event))

    def hypervisor(self, host: int) -> Hypervisor:
        found: Hypervisor = self.hosts[host].system.hypervisor  # type: ignore[attr-defined]
        return found

    def add_guest(self, host: int, vcpus: int, threads: int, offset: int) -> int:
        guest = self.hosts[host].prepare(MEMORY, vcpus, threads)
        for address, words in PIECES.items():
            guest.memory.write(address, b"".join(word.to_bytes(4, "little") for word in words))
        for vcpu in guest.vcpus:
            write_register(vcpu, "LPCR_64", read_register(vcpu, "LPCR_64") | int(LPCR.ILE))
            write_register(vcpu, "TB_OFFSET", offset)
            areas = AREAS + vcpu.id * AREAS_SIZE
            guest.memory.write(areas + VPA_DTL_ENABLE_MASK.offset, VPA_DTL_ENABLE_MASK.pack(7))
            write_register(vcpu, "VPA_ADDR", areas)
            write_register(vcpu, "VPA_DTL", ((areas + LOG) << 64) | (LOG_ENTRIES * DTL_ENTRY_SIZE))
        self.guests.append(guest)
        self.at.append(host)
        return len(self.guests) - 1

    def close(self) -> None:
        for host in self.hosts:
            host.close()

    def set(self, guest: int, vcpu: int, register: str, value: int) -> None:
        write_register(self.guests[guest].vcpus[vcpu], register, value)

    def get(self, guest: int, vcpu: int, register: str) -> int:
        return read_register(self.guests[guest].vcpus[vcpu], register)

    def set_offset(self, guest: int, vcpu: int, offset: int) -> None:
        """As its owner, who gives the guest another time: that is its ideal from then on."""
        self.guests[guest].set("TB_OFFSET", offset, vcpu)

    def logged(self, guest: int, vcpu: int) -> int:
        """How many dispatches were logged."""
        at = AREAS + vcpu * AREAS_SIZE + VPA_DTL_INDEX.offset
        return VPA_DTL_INDEX.unpack(self.guests[guest].memory.read(at, VPA_DTL_INDEX.size))

    def log_entry(self, guest: int, vcpu: int, number: int) -> DispatchLogEntry:
        at = AREAS + vcpu * AREAS_SIZE + LOG + number % LOG_ENTRIES * DTL_ENTRY_SIZE
        return DispatchLogEntry.unpack(self.guests[guest].memory.read(at, DTL_ENTRY_SIZE))

    # Running

    def run(self, tasks: list[Task]) -> None:
        """Run each task on its vCPU, all at the same time, until each has reported once."""
        vcpus = [self._prepared(task) for task in tasks]
        for vcpu in vcpus:
            vcpu.bind()
        if len(tasks) == 1:
            self._drive(tasks[0], vcpus[0])
            return
        failures: list[BaseException] = []

        def drive(task: Task, vcpu: Vcpu) -> None:
            try:
                self._drive(task, vcpu)
            except BaseException as error:
                failures.append(error)

        threads = [
            threading.Thread(target=drive, args=pair, daemon=True) for pair in zip(tasks, vcpus, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "a vCPU never came back"
        if failures:
            raise failures[0]

    def settle(self, guest: int) -> None:
        """Finish what the last exits left to be finished, as a move needs it."""
        for vcpu in self.guests[guest].vcpus:
            vcpu.kick()
            assert isinstance(vcpu.run(), Interrupted)

    def _prepared(self, task: Task) -> Vcpu:
        vcpu = self.guests[task.guest].vcpus[task.vcpu]
        regs = vcpu.get_regs()
        regs.pc, regs.msr = task.piece, int(MSR.SF | MSR.ME | MSR.LE)
        regs.gpr[7:10] = [task.value] * 3
        vcpu.set_regs(regs)
        return vcpu

    def _drive(self, task: Task, vcpu: Vcpu) -> None:
        try:
            while not task.reports:
                ended: Any = vcpu.run()
                if isinstance(ended, Interrupted):
                    task.kicked += 1
                    continue
                assert isinstance(ended, HcallExit), ended
                assert ended.nr == USER_CALL
                timebase, dec, why, *_ = ended.args
                task.reports.append(Report(timebase, dec, why, ended.args[6]))
        finally:
            vcpu.unbind()
