"""Recording a guest in virtual time, so that its past can be looked at: states, from which it does again what
it did.

A guest's course from one stop to the next is a stretch. It depends on the state at its beginning alone:
whatever comes from outside (typed input, a debugger's changes) comes while the guest is stopped, and a long
stretch is cut. So the states at the beginnings are all that is kept, of memory the pages that changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from chronovisor.kvm.course import HiddenState
from chronovisor.kvm.interface import System
from chronovisor.kvm.registers import read_register
from chronovisor.machine import vcpu_state
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.machine.machine_state import MachineState
from chronovisor.machine.vcpu_state import VcpuState
from chronovisor.memory import PAGE_SIZE
from chronovisor.memory.in_use import each_run_in_use
from chronovisor.memory.versions import PageVersions
from chronovisor.migration.restoration import load
from chronovisor.timebase.clock import Alarm, VirtualTime
from chronovisor.timebase.types import Offset, SourceTime

DEFAULT_SIZE: Final = 256 << 20
"""Bytes of memory's contents that a recording keeps unless told otherwise."""
_MOST_STRETCHES: Final = 4096
_LONGEST: Final = 1 << 22
"""Instructions after which a stretch is cut, as far as its vCPUs execute them one after the other."""


@dataclass(slots=True)
class Stretch:
    """A guest's course from one stop to the next."""

    system: System
    """The host on which it ran."""
    tick: SourceTime
    """The clock's, at its beginning."""
    machine: MachineState
    vcpus: tuple[VcpuState, ...]
    offset: Offset
    hidden: HiddenState
    typed: bytes
    held_back: frozenset[int]
    stepping: frozenset[int]
    """The vCPUs that were to do one instruction."""
    before: tuple[int, ...]
    """How many instructions each vCPU had executed when it began."""
    end: SourceTime | None = None
    """The clock's tick at its end; None while it lasts."""
    executed: tuple[int, ...] = ()
    """How many instructions each vCPU has executed in it."""


class Recording:
    """Records one guest from now on, over its moves. `size` bytes of memory's contents are kept at most: then
    the oldest stretches are forgotten.

    MachineError for a guest that cannot be recorded: in real time, or with a disk or a network.
    """

    def __init__(self, guest: Guest, size: int = DEFAULT_SIZE) -> None:
        source = guest.system.clock.source
        if not isinstance(source, VirtualTime):
            raise MachineError(
                f"{guest.name} cannot be recorded: only what runs in virtual time repeats itself"
            )
        self.clock = source
        self._size = size
        self.pages = PageVersions()
        self.first = 0
        """The number of the first stretch that is kept."""
        self._stretches: list[Stretch] = []
        self._dirty: set[int] = set()
        self._alarm: Alarm | None = None
        self.guest = guest
        with guest.held():
            self._attach(guest)

    def follow(self, guest: Guest) -> None:
        """Go on with the guest where it has moved to. It is paused there, and was before it moved."""
        self.guest.recorder = None
        self._attach(guest)

    def _attach(self, guest: Guest) -> None:
        if guest.platform.vio.devices:
            raise MachineError(
                f"{guest.name} cannot be recorded: what its disk or network does would not repeat itself"
            )
        self.guest = guest
        guest.recorder = self
        guest.console.keyboard = guest.held
        guest.memory.dirty.take()
        self._dirty.update(self.pages.known)
        for address, size in each_run_in_use(guest.memory):
            self._dirty.update(range(address // PAGE_SIZE, (address + size) // PAGE_SIZE))
        restart = guest.platform.restart
        if restart is not None:
            guest.platform.restart = lambda: self._begun_anew(restart)

    # What the guest tells

    def has_stopped(self) -> None:
        """The guest has stopped."""
        self._cancel()
        self._end()

    def goes_on(self) -> None:
        """The guest is about to go on."""
        self._cancel()
        self._end()
        self._begin()

    def _begun_anew(self, restart: Callable[[], None]) -> None:
        """The guest reboots: what was before cannot be repeated up to there, and is forgotten."""
        self._cancel()
        restart()
        self.first += len(self._stretches)
        self._stretches.clear()
        self._begin()

    # Stretches

    @property
    def last(self) -> int:
        """The number of the stretch that ended last; less than `first` if there is none."""
        return self.first + len(self._stretches) - 1

    def stretch(self, number: int) -> Stretch:
        """A stretch by its number."""
        return self._stretches[number - self.first]

    def _cut(self) -> None:
        self._end()
        self._begin()

    def _begin(self) -> None:
        guest, course = self.guest, self.guest.vm.course
        before = self._stretches[-1] if self._stretches else None
        machine = guest.machine_state
        vcpus = tuple(vcpu_state.save(vcpu) for vcpu in guest.vcpus)
        hidden = course.begin()
        if before is not None:
            # Most stretches draw no number, and a generator's state is large.
            if before.machine.random_state == machine.random_state:
                machine = replace(machine, random_state=before.machine.random_state)
            if before.hidden.random == hidden.random:
                hidden = replace(hidden, random=before.hidden.random)
        self._stretches.append(
            Stretch(
                guest.system,
                self.clock.ticks(),
                machine,
                vcpus,
                Offset(read_register(guest.vcpus[0], "TB_OFFSET")),
                hidden,
                guest.console.typed,
                guest.held_back,
                course.stepping,
                tuple(course.executed(vcpu.id) for vcpu in guest.vcpus),
            )
        )
        self._note_pages()
        self._stay_small()
        longest = _LONGEST * course.ticks_per_instruction
        self._alarm = self.clock.call_at(
            SourceTime(self.clock.ticks() + longest), lambda: guest.rest(self._cut)
        )

    def _end(self) -> None:
        self._dirty.update(self.guest.memory.dirty.take())
        if self._stretches and self._stretches[-1].end is None:
            ended, course = self._stretches[-1], self.guest.vm.course
            ended.end = self.clock.ticks()
            ended.executed = tuple(
                course.executed(vcpu.id) - before
                for vcpu, before in zip(self.guest.vcpus, ended.before, strict=True)
            )

    def _cancel(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def _note_pages(self) -> None:
        memory = self.guest.memory
        self._dirty.update(memory.dirty.take())
        for page in self._dirty:
            self.pages.note(self.last, page, memory.read(page * PAGE_SIZE, PAGE_SIZE))
        self._dirty.clear()

    def _stay_small(self) -> None:
        while len(self._stretches) > _MOST_STRETCHES or (
            self.pages.size > self._size and len(self._stretches) > 1
        ):
            # Many at once, because each time all pages are looked at.
            forgotten = (len(self._stretches) + 3) // 4
            del self._stretches[:forgotten]
            self.first += forgotten
            self.pages.forget_before(self.first)

    # The past

    def guest_at(self, number: int) -> Guest:
        """Make another guest, as this one was at the beginning of a stretch, and set the clock back to that.

        It is not recorded, and what it prints is not shown. No guest on the clock may run.
        """
        stretch, topology = self.stretch(number), self.guest.topology
        self.clock.rewind(stretch.tick)
        host = Host.over(stretch.system)
        past = host.prepare(self.guest.memory.size, topology.vcpus, topology.threads, name=self.guest.name)
        try:
            past.little_endian = self.guest.little_endian
            for page, contents in self.pages.at(number):
                past.memory.write(page * PAGE_SIZE, contents)
            # Before the interrupt controller gets its state.
            past.console.type(stretch.typed)
            load(past, stretch.machine, stretch.vcpus).set_clock(stretch.offset).set_deadlines().release()
            past.vm.course.continue_from(stretch.hidden)
            for vcpu in past.vcpus:
                vcpu.single_step(vcpu.id in stretch.stepping)
            past.hold_back(stretch.held_back)
        except BaseException:
            past.close()
            raise
        return past
