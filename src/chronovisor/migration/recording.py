"""Recording a guest in virtual time, so that its past can be looked at: states, from which it does again what
it did.

A guest's course from one stop to the next is a stretch. It depends on the state at its beginning alone:
whatever comes from outside (typed input, a debugger's changes) comes while the guest is stopped, and a long
stretch is cut. So the states at the beginnings are all that is kept, of memory the pages that changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from chronovisor.kvm.course import HostShape
from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.registers import read_register
from chronovisor.machine import vcpu_state
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.memory import PAGE_SIZE
from chronovisor.memory.in_use import each_run_in_use
from chronovisor.migration.recorded_past import RecordedPast, Stretch
from chronovisor.migration.restoration import load
from chronovisor.timebase.clock import Alarm, VirtualTime
from chronovisor.timebase.types import Offset, SourceTime

DEFAULT_SIZE: Final = 256 << 20
"""Bytes of memory's contents that a recording keeps unless told otherwise."""
_LONGEST: Final = 1 << 22
"""Instructions after which a stretch is cut, as far as its vCPUs execute them one after the other."""


class Recording:
    """Records one guest from now on, over its moves. `size` bytes of memory's contents are kept at most: then
    the oldest stretches are forgotten.

    With a `past`, which may have come with the guest, it goes on from there, within that one's size. The
    hosts of that past are made anew, with this `engine`. MachineError for a guest that cannot be recorded:
    in real time, or with a disk or a network.
    """

    def __init__(
        self, guest: Guest, size: int = DEFAULT_SIZE, past: RecordedPast | None = None, engine: str = "auto"
    ) -> None:
        source = guest.system.clock.source
        if not isinstance(source, VirtualTime):
            raise MachineError(
                f"{guest.name} cannot be recorded: only what runs in virtual time repeats itself"
            )
        self.clock = source
        self.past = RecordedPast(size) if past is None else past
        self.in_the_past = False
        """Whether somebody looks at the past: meanwhile the clock shows the past's time."""
        self._engine = engine
        self._hosts: dict[HostShape, Host] = {}
        self._before: tuple[int, ...] = ()
        """How many instructions each vCPU had executed when the last stretch began."""
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
        self._hosts[guest.vm.course.host] = Host.over(guest.system)
        guest.recorder = self
        guest.console.keyboard = guest.held
        guest.memory.dirty.take()
        self._dirty.update(self.past.pages.known)
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
        self.past.forget()
        self._begin()

    # Stretches

    def _cut(self) -> None:
        self._end()
        self._begin()

    def _begin(self) -> None:
        guest, course = self.guest, self.guest.vm.course
        before = self.past.stretch(self.past.last) if len(self.past) else None
        machine = guest.machine_state
        vcpus = tuple(vcpu_state.save(vcpu) for vcpu in guest.vcpus)
        hidden = course.begin()
        if before is not None:
            # Most stretches draw no number, and a generator's state is large.
            if before.machine.random_state == machine.random_state:
                machine = replace(machine, random_state=before.machine.random_state)
            if before.hidden.random == hidden.random:
                hidden = replace(hidden, random=before.hidden.random)
        self._before = tuple(course.executed(vcpu.id) for vcpu in guest.vcpus)
        self.past.begin(
            Stretch(
                course.host,
                self.clock.ticks(),
                machine,
                vcpus,
                Offset(read_register(guest.vcpus[0], "TB_OFFSET")),
                hidden,
                guest.console.typed,
                guest.held_back,
                course.stepping,
            )
        )
        self._note_pages()
        self.past.stay_small()
        longest = _LONGEST * course.host.ticks_per_instruction
        self._alarm = self.clock.call_at(
            SourceTime(self.clock.ticks() + longest), lambda: guest.rest(self._cut)
        )

    def _end(self) -> None:
        self._dirty.update(self.guest.memory.dirty.take())
        if len(self.past) and (ended := self.past.stretch(self.past.last)).end is None:
            course = self.guest.vm.course
            ended.end = self.clock.ticks()
            ended.executed = tuple(
                course.executed(vcpu.id) - before
                for vcpu, before in zip(self.guest.vcpus, self._before, strict=True)
            )

    def _cancel(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def _note_pages(self) -> None:
        memory = self.guest.memory
        self._dirty.update(memory.dirty.take())
        for page in self._dirty:
            self.past.pages.note(self.past.last, page, memory.read(page * PAGE_SIZE, PAGE_SIZE))
        self._dirty.clear()

    # The past

    def guest_at(self, number: int) -> Guest:
        """Make another guest, as this one was at the beginning of a stretch, and set the clock back to that.

        It is not recorded, and what it prints is not shown. No guest on the clock may run. MachineError if
        there is no such guest: its past came from another process, and makes no sense.
        """
        stretch, topology = self.past.stretch(number), self.guest.topology
        self.clock.rewind(stretch.tick)
        try:
            host = self._host(stretch.host)
            past = host.prepare(
                self.guest.memory.size, topology.vcpus, topology.threads, name=self.guest.name
            )
        except KvmError as error:
            raise MachineError(f"the past cannot be shown: {error}") from error
        try:
            past.little_endian = self.guest.little_endian
            for page, contents in self.past.pages.at(number):
                past.memory.write(page * PAGE_SIZE, contents)
            # Before the interrupt controller gets its state.
            past.console.type(stretch.typed)
            load(past, stretch.machine, stretch.vcpus).set_clock(stretch.offset).set_deadlines().release()
            past.vm.course.continue_from(stretch.hidden)
            for vcpu in past.vcpus:
                vcpu.single_step(vcpu.id in stretch.stepping)
            past.hold_back(stretch.held_back)
        except BaseException as error:
            past.close()
            if isinstance(error, KvmError | LookupError | ValueError):
                raise MachineError(f"the past cannot be shown: {error}") from error
            raise
        return past

    def _host(self, shape: HostShape) -> Host:
        """The host of a stretch. One that was in another process is made anew, on this one's clock."""
        if shape not in self._hosts:
            self._hosts[shape] = Host(
                shape.tb_origin,
                self.clock,
                shape.cores,
                shape.threads_per_core,
                shape.cpu_model,
                ticks_per_instruction=shape.ticks_per_instruction,
                engine=self._engine,
            )
        return self._hosts[shape]
