"""The destination's half of a move: it answers the source, and decides how the guest's time continues."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Final

from chronovisor.kvm.errors import KvmError
from chronovisor.machine import vcpu_state
from chronovisor.machine.console import Console
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.memory import GuestMemory
from chronovisor.memory.in_use import clear
from chronovisor.migration.errors import MoveError, RestorationError
from chronovisor.migration.messages import (
    Aborted,
    Accepted,
    Acknowledged,
    Commit,
    Measure,
    Memory,
    Message,
    Offer,
    Past,
    Query,
    Ready,
    Received,
    Refused,
    Round,
    State,
    Zeros,
)
from chronovisor.migration.outcomes import Outcomes, RememberedOutcomes
from chronovisor.migration.phases import DestinationPhase, Probe, no_probe
from chronovisor.migration.preflight import obstacle
from chronovisor.migration.recorded_past import RecordedPast
from chronovisor.migration.restoration import Loaded, load
from chronovisor.migration.source import clock_name
from chronovisor.timebase.handover import (
    CLOCK_ERROR_LIMIT,
    READING,
    Exchange,
    HandoverError,
    Plan,
    Sample,
    plan,
)
from chronovisor.timebase.history import AwayClock, Hop, HopKind
from chronovisor.timebase.types import GuestTime, HostTime, SourceTime, Ticks

_FURTHEST: Final = 1 << 62
"""Ticks that a guest can be from its ideal time, less than this: differences of times have 63 bits."""


class Destination:
    """Takes one guest onto `host` and gives it `console`. `handle` answers each message at once.

    What becomes of moves is kept in `outcomes`, which others who answer for this destination may share.
    `probe` is told of each phase before it begins. In virtual time `shares_clock` says whether the source
    counts with the same clock; at most `record` bytes of a recorded guest's past are kept.
    """

    def __init__(
        self,
        host: Host,
        console: Console | None = None,
        outcomes: Outcomes | None = None,
        probe: Probe = no_probe,
        shares_clock: bool = True,
        record: int = 0,
    ) -> None:
        self._host = host
        self._clock_name = clock_name(host.system.clock.source, shares_clock)
        self.past = RecordedPast(record) if record else None
        """What comes of the guest's past; None if none of it is kept."""
        self._probe = probe
        self._console = console
        self._outcomes = outcomes or RememberedOutcomes()
        self._clock = host.system.clock
        self._offer: Offer | None = None
        self._loaded: Loaded | None = None
        self._guest: Guest | None = None
        self._ready_at: HostTime | None = None
        self._plan: Plan | None = None
        self._typed = b""
        self.paused_at: GuestTime | None = None
        """The guest's time at which its owner paused it at the source: it is to stay paused; else None."""
        self._accepted_at: HostTime | None = None
        self._resumed = threading.Event()
        self._resumed_after: Ticks | None = None

    def handle(self, message: Message) -> Message:
        """Answer a message of the source's. What goes wrong here goes back as `Refused` or `Aborted`."""
        arrived = self._clock.now()
        if self._plan is not None and not isinstance(message, Commit | Query):
            # Nothing that comes now may take the guest away again.
            return Refused("the guest was given to this destination already")
        match message:
            case Offer():
                self._probe(DestinationPhase.CONSIDER)
                return self._consider(message)
            case Round():
                self._probe(DestinationPhase.RECEIVE)
                return self._take(message)
            case Past():
                return self._remember(message)
            case State():
                self._probe(DestinationPhase.LOAD)
                return self._prepare(message)
            case Measure():
                return self._measure()
            case Commit():
                self._probe(DestinationPhase.SET_TIME)
                return self._commit(message, arrived)
            case Query():
                return self._answer(message)
        return Refused(f"a destination takes no {type(message).__name__}")

    def start(self, running: bool) -> Guest:
        """Wait out the rounding and let the guest run, if it is to be `running`; return it.

        MoveError if it was not given to this destination.
        """
        guest = self.guest
        self._probe(DestinationPhase.START)
        self._clock.source.sleep_until(self.resumes_at)
        if running:
            guest.resume()
        self._resumed_after = Ticks(self._clock.source.ticks() - self.resumes_at)
        self._resumed.set()
        return guest

    def wait_for_start(self, timeout: float) -> Ticks | None:
        """Wait for `start`; how long after the allowed moment it let the guest go, None if it did not."""
        return self._resumed_after if self._resumed.wait(timeout) else None

    @property
    def guest(self) -> Guest:
        """The guest that was given to this destination, to be looked at before `start`; else MoveError."""
        if self._guest is None or self._plan is None:
            raise MoveError("the guest was not given to this destination")
        return self._guest

    @property
    def committed(self) -> bool:
        """Whether COMMIT came and the guest is this destination's for good."""
        return self._plan is not None

    @property
    def resumes_at(self) -> SourceTime:
        """The tick of the destination's clock from which the guest may run; MoveError before COMMIT."""
        if self._plan is None:
            raise MoveError("the guest was not given to this destination")
        return self._clock.ticks_at(self._plan.resume_at)

    @property
    def round_trip(self) -> Ticks:
        """The round trip of the exchange that committed the move, as measured; MoveError before COMMIT."""
        if self._plan is None:
            raise MoveError("the guest was not given to this destination")
        return self._plan.exchange.round_trip

    @property
    def memory(self) -> GuestMemory | None:
        """The guest's memory, which comes before its state; None while no offer is accepted."""
        return self._guest.memory if self._guest is not None else None

    # The answers

    def _consider(self, offer: Offer) -> Message:
        if self._offer is not None:
            return Refused("the destination has had an offer already")
        reason = self._obstacle(offer)
        if reason is not None:
            return Refused(reason)
        try:
            self._guest = self._host.prepare(
                offer.memory_size, offer.topology.vcpus, offer.topology.threads, self._console, offer.name
            )
            self._guest.platform.vio.check(offer.devices)
        except (KvmError, MachineError) as error:
            self._discard()
            return Refused(str(error))
        if offer.sregs is not None:
            reason = vcpu_state.misfit(self._guest.vcpus[0], offer.sregs, offer.registers)
            if reason is not None:
                self._discard()
                return Refused(f"the destination cannot keep all of the guest: {reason}")
        try:
            self._outcomes.offered(offer.move)
        except (ValueError, OSError) as error:
            self._discard()
            return Refused(f"the move cannot be written down here: {error}")
        self._offer = offer
        self._accepted_at = self._clock.now()
        return Accepted()

    def _take(self, message: Round) -> Message:
        if self._offer is None or self._guest is None:
            return Aborted("memory came without an offer")
        if self._loaded is not None:
            return self._abort(self._offer.move, "memory came behind the state")
        try:
            _fill(self._guest.memory, message.memory)
        except LookupError as error:
            return self._abort(self._offer.move, str(error))
        return Received()

    def _remember(self, message: Past) -> Message:
        if self._offer is None or self._guest is None:
            return Aborted("the guest's past came without an offer")
        if self._loaded is not None:
            return self._abort(self._offer.move, "the guest's past came behind the state")
        if self.past is not None:
            try:
                self.past.take(message.part, self._guest.memory.size, self._guest.topology.vcpus)
            except ValueError as error:
                return self._abort(self._offer.move, str(error))
        return Received()

    def _prepare(self, state: State) -> Message:
        if self._offer is None or self._guest is None:
            return Aborted("the state came without an offer")
        if self._loaded is not None:
            return self._abort(self._offer.move, "the state came twice")
        try:
            _fill(self._guest.memory, state.memory)
            self._loaded = load(self._guest, state.machine, state.vcpus)
        except (KvmError, LookupError, MachineError, ValueError) as error:
            return self._abort(self._offer.move, str(error))
        # Typed for the guest only once it is given: a later try would type it again.
        self._typed, self.paused_at = state.typed, state.paused_at
        self._ready_at = self._clock.now()
        return Ready()

    def _measure(self) -> Message:
        if self._offer is None or self._guest is None:
            return Aborted("a measurement came without an offer")
        if self._loaded is None:
            return self._abort(self._offer.move, "a measurement came before READY")
        self._ready_at = self._clock.now()
        return Ready()

    def _commit(self, commit: Commit, arrived: HostTime) -> Message:
        if self._offer is not None and self._plan is not None:
            return self._outcomes.ask(self._offer.move)
        if self._offer is None or self._guest is None:
            return Aborted("COMMIT came without an offer")
        if self._loaded is None or self._ready_at is None:
            return self._abort(self._offer.move, "COMMIT came before READY")
        reason = self._doubt(commit, arrived)
        if reason is not None:
            return self._abort(self._offer.move, reason)
        try:
            exchange = Exchange(
                since_sample=commit.since_sample,
                dwell=commit.dwell,
                ready_to_commit=arrived - self._ready_at,
                committed=arrived,
            )
            decided = plan(
                Sample(commit.guest_time, commit.ideal), exchange, self._offer.limit, self._offer.policy
            )
            self._guest = self._loaded.set_clock(decided.offset).set_deadlines().release()
            # The source has given them up.
            self._guest.platform.vio.take()
        except (HandoverError, KvmError, MachineError, RestorationError) as error:
            return self._abort(self._offer.move, str(error))
        hop = Hop.planned(HopKind.MOVE, AwayClock.EXCHANGE, decided, self._offer.origin, self._clock.origin)
        outcome = Acknowledged(hop.record)
        try:
            self._probe(DestinationPhase.RECORD)
            settled = self._outcomes.settle(self._offer.move, outcome)
        except OSError as error:
            return self._abort(self._offer.move, f"the move cannot be written down here: {error}")
        if settled != outcome:
            self._discard()
            return settled
        self._plan = decided
        if self._typed:
            # Typing interrupts the guest, even with nothing.
            self._guest.console.type(self._typed)
        self._guest.history = self._guest.history.then(hop)
        return outcome

    def give_up(self, reason: str) -> None:
        """Give the current move up, unless its guest was given to this destination."""
        if self._plan is None and self._offer is not None:
            self._abort(self._offer.move, reason)

    def _answer(self, query: Query) -> Message:
        answer = self._outcomes.ask(query.move)
        if isinstance(answer, Aborted) and self._offer is not None and self._offer.move == query.move:
            self._discard()
        return answer

    def _abort(self, move: str, reason: str) -> Message:
        self._discard()
        # The move is aborted even if that cannot be written down: the guest is gone from here.
        with contextlib.suppress(OSError):
            return self._outcomes.settle(move, Aborted(reason))
        return Aborted(reason)

    def _discard(self) -> None:
        if self._guest is not None:
            self._host.discard(self._guest)
            self._guest = None

    def _doubt(self, commit: Commit, arrived: HostTime) -> str | None:
        """Return why COMMIT cannot be true, None if it can; `timebase.handover` checks the rest."""
        assert self._accepted_at is not None
        at_most = arrived - self._accepted_at + Ticks(2 * READING)
        if commit.since_sample > at_most:
            return (
                f"the source says that it sampled the guest's time {commit.since_sample.value} ticks ago, "
                f"and its offer was accepted {at_most.value} ticks ago"
            )
        if self.paused_at is not None and commit.guest_time - self.paused_at < Ticks(0):
            return "the source says that the guest was paused later than its time is now"
        if not -_FURTHEST < commit.ideal.least <= commit.ideal.most < _FURTHEST:
            return (
                "the source says that the guest is further from its ideal time than times can be told apart"
            )
        return None

    def _obstacle(self, offer: Offer) -> str | None:
        """Return why the guest cannot come here, None if it can."""
        here = self._clock_name
        if os.path.basename(offer.name) != offer.name:
            return f"the guest's name {offer.name!r} is that of a path: give it another"
        if offer.limit < CLOCK_ERROR_LIMIT:
            return (
                f"a clock error limit of {offer.limit.value} ticks cannot be kept: "
                f"the least is {CLOCK_ERROR_LIMIT.value}"
            )
        if offer.clock != here:
            return (
                f"the source runs in {offer.clock} and the destination in {here}: "
                "between clocks that do not go together the time of a move cannot be measured"
            )
        return obstacle(offer, self._host.system, offer.limit, "the destination")


def _fill(memory: GuestMemory, runs: Memory) -> None:
    for addr, run in runs:
        if isinstance(run, Zeros):
            clear(memory, addr, run.size)
        else:
            memory.write(addr, run)
