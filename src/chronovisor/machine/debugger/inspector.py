"""The one place that stops a guest, looks into it and changes it, for whatever protocol a tool speaks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from chronovisor.kvm.exits import DebugExit
from chronovisor.kvm.interface import Vcpu
from chronovisor.kvm.registers import read_register
from chronovisor.machine.debugger.guest_addresses import NoAddressError, read_through
from chronovisor.machine.debugger.past import Arrival, Past, Places
from chronovisor.machine.entry import MSR_LE
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.memory import Watchpoint
from chronovisor.memory.guest_memory import PAGE_SIZE


class StoppedTime(Protocol):
    """Stops a guest and lets it go on, and decides what its clock makes of the time between."""

    def stop(self) -> None:
        """Have all vCPUs out of the guest; nothing if they are. MachineError if it cannot be stopped now."""

    def go_on(self) -> None:
        """Let the guest run."""

    def step_on(self) -> None:
        """Let a guest run again that has just stopped itself, as if it had not; nothing if it was stopped by
        someone else, too. MachineError if it cannot go on now.
        """


@dataclass(frozen=True, slots=True)
class Stopped:
    """A vCPU that has stopped its guest: it is at a breakpoint, or has done its single step."""

    vcpu: int
    exit: DebugExit


class Watching(Enum):
    """Which accesses a watchpoint is about."""

    STORES = "watch"
    LOADS = "rwatch"
    ALL = "awatch"


def byte_order(guest: Guest) -> Literal["little", "big"]:
    """Return the byte order in which tools see a stopped guest: its image's, or else its first vCPU's."""
    little = guest.little_endian
    if little is None:
        little = bool(read_register(guest.vcpus[0], "MSR") & MSR_LE)
    return "little" if little else "big"


class Inspector:
    """Stops one guest, looks into it and changes it. All but `stop` is for a guest that is stopped.

    `wake` is called, on any thread, when the guest has stopped itself for a debugger's wish, or has ended.
    With a `past`, what is shown can be the guest as it was.
    """

    def __init__(
        self, guest: Guest, time: StoppedTime, wake: Callable[[], None], past: Past | None = None
    ) -> None:
        self.guest = guest
        self.past = past
        self._time = time
        self._wake = wake
        self._changing = threading.Lock()
        self._stopped: Stopped | None = None
        self._breakpoints: dict[int, int] = {}
        self._watchpoints: dict[tuple[int, int, Watching], Watchpoint] = {}
        self.real_addresses = False
        """Whether memory is read and written by guest real addresses, not by a vCPU's effective ones."""
        guest.on_debug_exit, guest.on_end = self._on_debug_exit, wake

    # Stopping and going on

    @property
    def shown(self) -> Guest:
        """The guest that is looked at: as it is, or as it was."""
        return self.guest if self.past is None or self.past.guest is None else self.past.guest

    @property
    def in_the_past(self) -> bool:
        """Whether the guest is shown as it was."""
        return self.shown is not self.guest

    @property
    def vcpus(self) -> list[Vcpu]:
        """The vCPUs of the guest that is shown."""
        return self.shown.vcpus

    def stop(self) -> None:
        """Stop the guest between two instructions; MachineError if that cannot be done now."""
        self._time.stop()

    def take_stop(self) -> Stopped | None:
        """What has stopped the guest since it was resumed: told once."""
        with self._changing:
            stopped, self._stopped = self._stopped, None
        return stopped

    def resume(self, run: Collection[int], step: Collection[int]) -> None:
        """Let vCPUs run, or each do one instruction, by their ids; the others wait."""
        with self._changing:
            self._stopped = None
        for vcpu in self.guest.vcpus:
            vcpu.single_step(vcpu.id in step)
        self.guest.hold_back({vcpu.id for vcpu in self.vcpus} - {*run, *step})
        self._time.go_on()

    def step_on(self) -> None:
        """Have a vCPU that has done its single step do another, and let those run that ran. MachineError."""
        self._time.step_on()

    def is_breakpoint(self, address: int) -> bool:
        """Whether `add_breakpoint` was given this address."""
        return address in self._breakpoints

    def leave(self) -> None:
        """Take all breakpoints out and let the guest run as if no debugger had come. It may be stopped or
        have ended.
        """
        if self.past is not None:
            self.past.leave()
        if self.guest.end is not None or self.guest.closed:
            return
        self.stop()
        self._breakpoints.clear()
        self.guest.vm.break_at(())
        self._watchpoints.clear()
        self.guest.vm.watch(())
        self.resume({vcpu.id for vcpu in self.vcpus}, ())

    def _on_debug_exit(self, vcpu: int, exit_: DebugExit) -> None:
        with self._changing:
            if self._stopped is None:
                self._stopped = Stopped(vcpu, exit_)
        self._wake()

    # The past

    @property
    def places(self) -> Places:
        """The places at which it stops."""
        return Places(set(self._breakpoints.values()), tuple(self._watchpoints.values()))

    def step_back(self, vcpu: int, interrupted: Callable[[], bool]) -> Arrival:
        """Go to where a vCPU was one instruction before. MachineError without a past."""
        return self._recorded().step_back(vcpu, interrupted)

    def run_back(self, vcpu: int, interrupted: Callable[[], bool]) -> Arrival:
        """Go back to the last break- or watchpoint. MachineError without a past."""
        return self._recorded().run_back(vcpu, self.places, interrupted)

    def go_on(self, vcpu: int, step: bool, interrupted: Callable[[], bool]) -> Arrival:
        """In the past, go one instruction further, or to the next break- or watchpoint."""
        past = self._recorded()
        return past.step_on(vcpu, interrupted) if step else past.run_on(vcpu, self.places, interrupted)

    def _recorded(self) -> Past:
        if self.past is None:
            raise MachineError("the guest is not recorded: run it with --clock virtual and --record")
        return self.past

    def _check_present(self) -> None:
        if self.in_the_past:
            raise MachineError("the guest's past cannot be changed: continue to the present first")

    # Breakpoints

    def add_breakpoint(self, vcpu: Vcpu, address: int) -> None:
        """Have vCPUs stop before the instruction to which an effective address leads this vCPU now.

        It stays with the instruction, as one in memory would: whatever address leads there. NoAddressError if
        there is no memory.
        """
        self._breakpoints[address] = self._real(vcpu, address)
        self._put_breakpoints_in()

    def remove_breakpoint(self, address: int) -> None:
        """Take out what `add_breakpoint` was given this address for; nothing if there is none."""
        if self._breakpoints.pop(address, None) is not None:
            self._put_breakpoints_in()

    def _put_breakpoints_in(self) -> None:
        self.guest.vm.break_at(set(self._breakpoints.values()))

    def add_watchpoint(self, vcpu: Vcpu, address: int, size: int, what: Watching) -> None:
        """Have vCPUs stop before an instruction that accesses what this vCPU has at an effective address.

        The guest runs slowly until it is removed. NoAddressError if there is no memory.
        """
        if not 0 < size <= PAGE_SIZE - address % PAGE_SIZE:
            raise MachineError(f"a watchpoint of {size} bytes at {address:#x}: it has to be in one page")
        self._watchpoints[address, size, what] = Watchpoint(
            self._real(vcpu, address), size, what is not Watching.STORES, what is not Watching.LOADS
        )
        self.guest.vm.watch(self._watchpoints.values())

    def remove_watchpoint(self, address: int, size: int, what: Watching) -> None:
        """Take out what `add_watchpoint` was given this for; nothing if there is none."""
        if self._watchpoints.pop((address, size, what), None) is not None:
            self.guest.vm.watch(self._watchpoints.values())

    def watched_address(self, hit: Watchpoint) -> tuple[int, Watching]:
        """The effective address that a watchpoint was set at, and what for."""
        return next((key[0], key[2]) for key, one in self._watchpoints.items() if one == hit)

    # Registers

    def read(self, vcpu: Vcpu, register: str) -> int:
        """A register by a name of `kvm.registers`, unsigned."""
        return read_register(vcpu, register)

    def write(self, vcpu: Vcpu, register: str, value: int) -> None:
        """Set a register. MachineError in the past."""
        self._check_present()
        self.guest.set(register, value, vcpu.id)

    # Memory

    def read_memory(self, vcpu: Vcpu, address: int, size: int) -> bytes:
        """The bytes at an address up to the first that is not there; NoAddressError if the first is not."""
        return read_through(self.shown.memory, lambda at: self._real(vcpu, at), address, size)

    def write_memory(self, vcpu: Vcpu, address: int, data: bytes) -> None:
        """Write bytes; NoAddressError, and nothing is written, if any of the addresses is not there.

        MachineError in the past.
        """
        self._check_present()
        places, done = [], 0
        while done < len(data):
            piece = min(len(data) - done, PAGE_SIZE - (address + done) % PAGE_SIZE)
            places.append((self._real(vcpu, address + done), data[done : done + piece]))
            done += piece
        for real, part in places:
            self.guest.memory.write(real, part)
            self.guest.vm.memory_changed(real, len(part))

    def _real(self, vcpu: Vcpu, address: int) -> int:
        address &= (1 << 64) - 1
        real = address if self.real_addresses else vcpu.translate(address)
        if real is None or real >= self.guest.memory.size:
            raise NoAddressError
        return real

    def vcpu(self, number: int) -> Vcpu:
        """A vCPU by its id; MachineError if there is none."""
        for vcpu in self.vcpus:
            if vcpu.id == number:
                return vcpu
        raise MachineError(f"there is no vCPU {number}")
