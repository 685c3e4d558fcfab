"""A guest as its owner sees it: run it, stop it, look at it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chronovisor.kvm.ids import MemoryFlag
from chronovisor.kvm.interface import Vcpu
from chronovisor.kvm.registers import read_register, write_register
from chronovisor.kvm.statistics import Statistics
from chronovisor.machine.dispatch_log_reader import read_dispatch_log
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest_run import GuestRun
from chronovisor.machine.machine_state import MachineState, put_state, take_state
from chronovisor.machine.wall_clock import TimeOfDay
from chronovisor.papr.dispatch_log import DispatchLog
from chronovisor.papr.hcalls import name_of
from chronovisor.timebase.handover import IdealInterval
from chronovisor.timebase.history import History, Hop
from chronovisor.timebase.types import GuestTime, Offset, SourceTime

MEMORY_SLOT: Final = 0
"""The slot of KVM's that holds the guest's memory."""
_LPCR_LD: Final = 1 << 17
"""LPCR[LD]: the guest's decrementer has the processor's full width (Power ISA 3.0B, Book III, 2.2)."""


class Guest(GuestRun):
    """A virtual machine with its console. Made by `Host.boot`, or `Host.prepare` for one that arrives by a
    move.

    It starts paused; `run`, `run_for`, `run_until` and `resume` let it go.
    """

    history = History(0)
    """What happened to its time; moves and snapshots carry it along."""
    _carried_time_of_day: TimeOfDay | None = None

    @property
    def console_text(self) -> str:
        """What the guest has printed so far."""
        return self.console.text

    @property
    def vcpus(self) -> list[Vcpu]:
        """The vCPUs of KVM's interface, in the order of their ids.

        A vCPU's methods wait until it has left the guest, which a guest that makes no call to user space
        never does by itself. So call them only inside `held`, or while the guest is paused.
        """
        return [thread.vcpu for thread in self._threads.all]

    def get(self, register: str, vcpu: int = 0) -> int:
        """A register by name (R3, PC, MSR, TB_OFFSET, DEC_EXPIRY, …), unsigned. A running guest is paused for
        it.
        """
        with self.held():
            return read_register(self._vcpu(vcpu), register)

    def set(self, register: str, value: int, vcpu: int = 0) -> None:
        """Set a register by name. A running guest is paused for it."""
        with self.held():
            of = self._vcpu(vcpu)
            if register.upper() != "TB_OFFSET":
                write_register(of, register, value)
                return
            # Its owner gives it another time: that is its ideal from now on.
            before, clock = Offset(read_register(of, register)), self.system.clock
            write_register(of, register, value)
            after = Offset(read_register(of, register))
            self.history = self.history.then(Hop.set_by_owner(clock.now(), before, after, clock.origin))

    def timebase(self, vcpu: int = 0) -> GuestTime:
        """What the guest's `mftb` would read now: its host's timebase plus its offset."""
        # In this order: it takes a while until a running guest is paused.
        offset = Offset(self.get("TB_OFFSET", vcpu))
        return self.system.clock.now() + offset

    def dispatch_log(self, vcpu: int = 0, start: int = 0, count: int | None = None) -> DispatchLog:
        """Return what a vCPU's dispatch trace log holds now: `count` entries at most from number `start` on.

        A running guest is paused for a moment. MachineError if the guest has registered no log.
        """
        return read_dispatch_log(self, self._vcpu(vcpu), start, count)

    def statistics(self) -> Statistics | None:
        """What executed the guest's instructions here: see `chronovisor.kvm.statistics`.

        A running guest is paused for a moment. None if the processor itself executes them.
        """
        with self.held():
            return self.vm.statistics()

    @property
    def exits(self) -> dict[str, int]:
        """How often its vCPUs have left it for user space here, by reason. The guest may run meanwhile."""
        counted: dict[str, int] = {}
        for thread in self._threads.all:
            for reason, count in thread.exits.copy().items():
                name = reason if isinstance(reason, str) else name_of(reason)
                counted[name] = counted.get(name, 0) + count
        return counted

    @property
    def offset(self) -> Offset:
        """The timebase offset of all its virtual cores; MachineError if they have different ones.

        A running guest is paused for a moment.
        """
        with self.held():
            offsets = {read_register(vcpu, "TB_OFFSET") for vcpu in self.vcpus}
        if len(offsets) > 1:
            raise MachineError(
                f"{self.name}: its virtual cores have different timebase offsets "
                f"({', '.join(f'{o:#x}' for o in sorted(offsets))}): give them one first"
            )
        return Offset(offsets.pop())

    @property
    def decrementer_bits(self) -> int:
        """How many bits the guest's decrementer has: 32 unless LPCR[LD] is set.

        A running guest is paused for a moment.
        """
        large = self.get("LPCR_64") & _LPCR_LD
        return self.system.host.dec_bits if large else 32

    @property
    def machine_state(self) -> MachineState:
        """What else a move has to carry; take it while the guest is paused."""
        tick, guest_time = self._moment()
        time_of_day = TimeOfDay(guest_time, self.wall_clock.at(tick))
        return take_state(self.platform, self._threads.all, self.history, time_of_day)

    @machine_state.setter
    def machine_state(self, state: MachineState) -> None:
        self._carried_time_of_day = state.time_of_day
        self.history = state.history
        put_state(state, self.platform, self._threads.all)

    @property
    def ideal(self) -> IdealInterval:
        """How far its time is ahead of what it would be had none ever rounded it."""
        return self.history.ideal

    def continue_time_of_day(self) -> None:
        """Continue the time of day that came with the machine's state by the guest's own time, once its
        timebase is set; nothing if no time of day came.
        """
        carried, self._carried_time_of_day = self._carried_time_of_day, None
        if carried is not None:
            tick, guest_time = self._moment()
            self.wall_clock.set_at(tick, carried.at(guest_time))

    def is_stopped(self, vcpu: int) -> bool:
        """Whether a vCPU is stopped as RTAS counts it: it was not started, or it stopped itself."""
        return next(thread.stopped for thread in self._threads.all if thread.vcpu.id == vcpu)

    # Which memory it writes

    def log_dirty_pages(self, on: bool) -> None:
        """Log the pages that are written from now on, or stop logging. The guest may run."""
        flags = MemoryFlag.LOG_DIRTY_PAGES if on else 0
        self.vm.set_user_memory_region(MEMORY_SLOT, flags, 0, self.memory)

    def dirty_pages(self) -> Sequence[int]:
        """The pages written since the last call, or since they are logged: rising numbers, in units of the
        host's page size. The guest may run.
        """
        return self.vm.get_dirty_log(MEMORY_SLOT)

    # Inside

    def _moment(self) -> tuple[SourceTime, GuestTime]:
        """A tick of its host's clock, about now, and its own time then; the guest is paused."""
        tick = self.system.clock.source.ticks()
        return tick, self.system.clock.at(tick) + Offset(read_register(self.vcpus[0], "TB_OFFSET"))

    def _vcpu(self, number: int) -> Vcpu:
        thread = self.platform.processor(number)
        if thread is None:
            raise MachineError(
                f"{self.name}: there is no vCPU {number}; it has 0 to {self.topology.vcpus - 1}"
            )
        return thread.vcpu
