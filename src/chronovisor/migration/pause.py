"""Stopping a guest by its owner's order, and letting it go on: with its time as a policy says."""

from __future__ import annotations

from dataclasses import replace

from chronovisor.machine import vcpu_state
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.machine.machine_state import MachineState
from chronovisor.machine.wall_clock import TimeOfDay
from chronovisor.migration.restoration import Loaded
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT, Absence, Sample, plan
from chronovisor.timebase.history import AwayClock, Hop, HopKind
from chronovisor.timebase.policy import FREEZE, TimePolicy
from chronovisor.timebase.types import GuestTime, SourceTime, Ticks


class Pause:
    """Stops `guest`, and knows since when: one that did not run is away from now on, and stays stopped.

    Its registers and its offset may be read and set during the pause. One that `goes_on` runs afterwards even
    if it does not run now.
    """

    def __init__(self, guest: Guest, goes_on: bool = False) -> None:
        self._ran = guest.running or goes_on
        guest.pause()
        self._guest = guest
        self.stopped_at = guest.system.clock.source.ticks()
        """The tick of its host's clock at which it was out of the way."""
        self._time_of_day = guest.wall_clock.at(self.stopped_at)

    @classmethod
    def since(cls, guest: Guest, guest_time: GuestTime) -> Pause:
        """Return the pause of a guest that came here paused, since its time was `guest_time`."""
        pause = cls(guest)
        away = pause.guest_time - guest_time
        pause.stopped_at = SourceTime(pause.stopped_at - away.value)
        pause._time_of_day = pause._time_of_day - away
        pause._ran = True
        return pause

    @property
    def guest_time(self) -> GuestTime:
        """The guest's time at which it was stopped, by the offset that it has now."""
        return self._guest.system.clock.at(self.stopped_at) + self._guest.offset

    def machine_state(self) -> MachineState:
        """Return the machine's state, with the time of day at which it was stopped."""
        return replace(self._guest.machine_state, time_of_day=TimeOfDay(self.guest_time, self._time_of_day))

    def resume(self, policy: TimePolicy = FREEZE, limit: Ticks = CLOCK_ERROR_LIMIT) -> Hop:
        """Set the guest's time as the policy says, wait out the rounding, and let it go on if it ran.

        Its clock is set, then its deadlines; its vCPUs run after both. A guest that catches up has nothing
        set: its timebase went on. MachineError if it has ended.
        """
        guest, clock = self._guest, self._guest.system.clock
        if guest.end is not None:
            raise MachineError(f"{guest.name} has ended ({guest.end.message})")
        state = self.machine_state()
        saved = [vcpu_state.save(vcpu) for vcpu in guest.vcpus]
        now = clock.source.ticks()
        away = now - self.stopped_at
        decided = plan(
            Sample(self.guest_time, guest.ideal), Absence(away, away, clock.at(now)), limit, policy
        )
        guest.machine_state = state
        Loaded(guest, saved).set_clock(decided.offset).set_deadlines().release()
        hop = Hop.planned(HopKind.RESUME, AwayClock.HOST, decided, clock.origin, clock.origin)
        guest.history = guest.history.then(hop)
        clock.source.sleep_until(clock.ticks_at(decided.resume_at))
        if self._ran:
            guest.resume()
        return hop
