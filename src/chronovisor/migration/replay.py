"""Looking at a recorded guest's past: another guest does again what the recorded one did, up to a place.

A place in the past is a stretch and how many instructions one of its vCPUs has executed in it. The other
guest begins at the stretch's beginning, for each place anew. Whenever it comes to a stretch's end, it is
compared with what was recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from chronovisor.kvm.course import HiddenState
from chronovisor.kvm.exits import DebugExit
from chronovisor.machine.debugger.past import Arrival, Places, Why
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.migration.recording import Recording
from chronovisor.timebase.types import SourceTime

Interrupted = Callable[[], bool]


class _Place(NamedTuple):
    stretch: int
    vcpu: int
    executed: int
    """Instructions of this vCPU in this stretch."""


class _InterruptedError(Exception):
    """Somebody does not want to wait any longer."""


class Replay:
    """`debugger.past.Past` of what is recorded."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._present: tuple[SourceTime, HiddenState] | None = None
        """The present's, to go back to; None in the present."""
        self._place: _Place | None = None
        """Where it is; None in the present and at the beginning."""
        self._stopped: tuple[int, DebugExit] | None = None
        self.guest: Guest | None = None
        """The guest as it was."""

    def step_back(self, vcpu: int, interrupted: Interrupted) -> Arrival:
        """Go to where a vCPU was one instruction before."""
        number, executed = self._where(vcpu)
        while not executed:
            number -= 1
            if number < self._recording.past.first:
                return self._beginning(vcpu)
            executed = self._total(number, vcpu)
        return self._try(vcpu, lambda: self._go(_Place(number, vcpu, executed - 1), Why.STEPPED, interrupted))

    def step_on(self, vcpu: int, interrupted: Interrupted) -> Arrival:
        """Go to where a vCPU was one instruction later."""
        number, executed = self._where(vcpu)
        while executed == self._total(number, vcpu):
            number, executed = number + 1, 0
            if number > self._recording.past.last:
                self.leave()
                return Arrival(Why.PRESENT, vcpu)
        return self._try(vcpu, lambda: self._go(_Place(number, vcpu, executed + 1), Why.STEPPED, interrupted))

    def run_back(self, vcpu: int, places: Places, interrupted: Interrupted) -> Arrival:
        """Go back to the last place."""
        return self._try(vcpu, lambda: self._run_back(vcpu, places, interrupted))

    def run_on(self, vcpu: int, places: Places, interrupted: Interrupted) -> Arrival:
        """Go on to the next place."""
        return self._try(vcpu, lambda: self._run_on(vcpu, places, interrupted))

    def leave(self) -> None:
        """Go to the present."""
        self._drop()
        if self._present is not None:
            tick, hidden = self._present
            self._recording.clock.rewind(tick)
            self._recording.guest.vm.course.continue_from(hidden)
        self._present = self._place = None
        self._recording.in_the_past = False

    # Where it is

    def _where(self, vcpu: int) -> tuple[int, int]:
        """The stretch, and how many instructions the vCPU has executed in it."""
        if self.guest is None:
            last = self._recording.past.last
            return (last, self._total(last, vcpu)) if last >= self._recording.past.first else (last, 0)
        number = self._recording.past.first if self._place is None else self._place.stretch
        return number, self.guest.vm.course.executed(vcpu)

    def _total(self, number: int, vcpu: int) -> int:
        stretch = self._recording.past.stretch(number)
        return stretch.executed[[state.id for state in stretch.vcpus].index(vcpu)]

    # Going

    def _run_back(self, vcpu: int, places: Places, interrupted: Interrupted) -> Arrival:
        recording = self._recording
        number, _ = self._where(vcpu)
        # In the present this is at the last stretch's end.
        here = None if self.guest is None else self.guest.vm.course.total
        while places and number >= recording.past.first:
            end = sum(recording.past.stretch(number).executed) if here is None else here
            if end:
                guest = self._begin(number, places)
                guest.vm.course.repeat(end, passes_before=None)
                self._run(interrupted)
                if here is None:
                    self._compare(number)
                if (passed := guest.vm.course.passed) is not None:
                    done = passed.executed + (passed.watchpoint is not None)
                    self._go(_Place(number, passed.vcpu, done), Why.HIT, interrupted)
                    return Arrival(Why.HIT, passed.vcpu, passed.watchpoint)
            number, here = number - 1, None
        return self._beginning(vcpu)

    def _run_on(self, vcpu: int, places: Places, interrupted: Interrupted) -> Arrival:
        recording = self._recording
        here, _ = self._where(vcpu)
        gone_over = 1 + (0 if self.guest is None else self.guest.vm.course.total)
        for number in range(here, recording.past.last + 1 if places else here):
            end = sum(recording.past.stretch(number).executed)
            if not end:
                continue
            guest = self._begin(number, places)
            guest.vm.course.repeat(end, passes_before=gone_over)
            stopped = self._run(interrupted)
            if not stopped[1].stepped:
                at, exit_ = stopped
                self._place = _Place(number, at, guest.vm.course.executed(at))
                return Arrival(Why.HIT, at, exit_.watchpoint)
            self._compare(number)
            gone_over = 0
        self.leave()
        return Arrival(Why.PRESENT, vcpu)

    def _go(self, place: _Place, why: Why, interrupted: Interrupted) -> Arrival:
        guest = self._begin(place.stretch, Places((), ()))
        guest.vm.course.repeat(end_of=(place.vcpu, place.executed))
        stopped = self._run(interrupted)
        there = guest.vm.course.executed(place.vcpu)
        if stopped[0] != place.vcpu or there != place.executed:
            raise self._astray(place.stretch)
        self._place = place
        return Arrival(why, place.vcpu)

    def _beginning(self, vcpu: int) -> Arrival:
        if self._recording.past.first <= self._recording.past.last:
            self._begin(self._recording.past.first, Places((), ()))
            self._place = None
        return Arrival(Why.BEGINNING, vcpu)

    def _try(self, vcpu: int, go: Callable[[], Arrival]) -> Arrival:
        """Go, and be where it was if that fails or takes somebody too long."""
        before, was_past = self._place, self.guest is not None
        try:
            return go()
        except (_InterruptedError, MachineError) as error:
            if not was_past:
                self.leave()
            elif before is None:
                self._beginning(vcpu)
            else:
                self._go(before, Why.INTERRUPTED, lambda: False)
            if isinstance(error, MachineError):
                raise
            return Arrival(Why.INTERRUPTED, vcpu)

    # The guest as it was

    def _begin(self, number: int, places: Places) -> Guest:
        self._drop()
        if self._present is None:
            self._present = self._recording.clock.ticks(), self._recording.guest.vm.course.begin()
            self._recording.in_the_past = True
        guest = self.guest = self._recording.guest_at(number)
        guest.vm.break_at(places.breakpoints)
        guest.vm.watch(places.watchpoints)
        guest.on_debug_exit = self._on_debug_exit
        return guest

    def _drop(self) -> None:
        if self.guest is not None:
            self.guest.close()
            self.guest = None

    def _on_debug_exit(self, vcpu: int, exit_: DebugExit) -> None:
        if self._stopped is None:
            self._stopped = vcpu, exit_

    def _run(self, interrupted: Interrupted) -> tuple[int, DebugExit]:
        """Run until something stops the guest; return what."""
        guest = self.guest
        assert guest is not None
        self._stopped = None
        if not interrupted():
            guest.run_while(lambda: self._stopped is None and not interrupted())
        if guest.end is not None:
            raise MachineError(f"the past could not be repeated: there {guest.end.message}")
        if self._stopped is None:
            raise _InterruptedError
        return self._stopped

    def _compare(self, number: int) -> None:
        """Compare a stretch's end with what was recorded."""
        assert self.guest is not None
        course = self.guest.vm.course
        if any(course.executed(v.id) != self._total(number, v.id) for v in self.guest.vcpus):
            raise self._astray(number)

    def _astray(self, number: int) -> MachineError:
        tick = self._recording.past.stretch(number).tick
        return MachineError(f"the past since tick {tick} could not be repeated: its course was another one")
