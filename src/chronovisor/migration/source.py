"""The source's half of a move: it stops the guest, gives it away, and takes it back if that fails."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from chronovisor.kvm.errors import KvmError
from chronovisor.machine import vcpu_state
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.machine.suspension import Suspension
from chronovisor.migration.errors import (
    LinkLostError,
    MoveError,
    MoveRefusedError,
    MoveUndecidedError,
)
from chronovisor.migration.link import Channel
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
    Running,
    State,
)
from chronovisor.migration.phases import Probe, SourcePhase, no_probe
from chronovisor.migration.precopy import MoveLimits, Precopy, Progress
from chronovisor.migration.recorded_past import PastPart
from chronovisor.migration.transfer import MoveReport, Transfer
from chronovisor.timebase.clock import TickSource
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import GuestTime, Offset, SourceTime, Ticks

_SIGN_OF_LIFE: Final = 1.0
"""Seconds from one sign of life to the next, while the destination waits for something else than memory."""


class Source:
    """Gives `guest` away over `channel`, within `limits`; `tell` is told how much memory has been sent.

    A guest that runs in real time goes on running while most of its memory is sent. `paused_at` is the
    guest's time at which its owner paused it: it arrives paused. If `console_stays`, what was typed for the
    guest and not read yet is sent with its state. `token` is what the destination may ask for. `probe` is
    told of each phase before it begins. In virtual time `shares_clock` says whether the destination counts
    with the same clock; the `past` of the stopped guest is sent along.
    """

    def __init__(
        self,
        guest: Guest,
        channel: Channel,
        limits: MoveLimits = MoveLimits(),  # noqa: B008 - frozen, so one serves all
        console_stays: bool = False,
        tell: Callable[[Progress], None] = lambda progress: None,
        paused_at: GuestTime | None = None,
        token: bytes = b"",
        probe: Probe = no_probe,
        shares_clock: bool = True,
        past: Callable[[], Iterable[PastPart]] = tuple,
    ) -> None:
        self._guest = guest
        self._clock_name = clock_name(guest.system.clock.source, shares_clock)
        self._shares_clock = shares_clock
        self._past = past
        self._console_stays = console_stays
        self._channel = channel
        self._limits = limits
        self._paused_at = paused_at
        self._token = token
        self._probe = probe
        self._clock = guest.system.clock
        self._source = self._clock.source
        self._was_running = guest.running
        self._deciding = threading.Lock()
        self._committed = False
        self._cancelled = threading.Event()
        self._begun_at = self._saved_at = self._sent_at = self._answered_at = 0
        self._loaded_at = self._ready_at = SourceTime(0)
        """When READY came for the first time, and for the last."""
        self._guest_time = GuestTime(0)
        self._copy = Precopy(guest, limits, self._cancelled, tell)
        self.move = secrets.token_hex(8)
        """The move's id."""
        self.offset: Offset | None = None
        """The guest's offset when the move began; None before."""
        self.stopped_at: SourceTime | None = None
        """The tick of the source's clock at which the guest's time was sampled; None before."""

    def give_away(self) -> MoveReport:
        """Make the move. When this returns, the guest is the destination's and stays paused here for good.

        Raises `MoveRefusedError` if the guest was not even stopped, another `MoveError` if it goes on here,
        and `MoveUndecidedError` if the source cannot know what became of it.
        """
        before_commit = (
            (SourcePhase.ASK, self._ask_whether_possible),
            (SourcePhase.COPY, self._send_rounds),
            (SourcePhase.STOP, self._stop),
            (SourcePhase.SEND_STATE, self._send_state),
            (SourcePhase.DECIDE, self._decide),
        )
        self._begun_at = self._source.ticks()
        self._was_running = self._guest.running
        if self._limits.stream is not None:
            self._guest.platform.suspension = Suspension(self._limits.stream)
        phase = SourcePhase.ASK
        try:
            for phase, act in before_commit:
                self._probe(phase)
                act()
        except BaseException as error:
            # Whatever failed, the guest goes on.
            if self._limits.stream is not None and self._guest.platform.suspension is not None:
                self._guest.platform.suspension.end()
            with contextlib.suppress(KvmError):
                self._copy.close()
            self._take_back()
            if isinstance(error, LinkLostError | OSError):
                # Cancelling breaks the connection, too.
                self._copy.check()
                what = (
                    "the destination could not be asked"
                    if phase is SourcePhase.ASK
                    else "the move was given up before COMMIT"
                )
                raise MoveError(f"{what}, and the guest goes on here: {error}") from error
            raise
        return self._settle(SourcePhase.COMMIT, self._commit)

    def cancel(self, decided: Callable[[], None] = lambda: None) -> None:
        """Cancel the move; `decided` is called before. From any thread.

        MachineError if COMMIT has left already. The source may be waiting for the destination: break the
        channel to end that.
        """
        with self._deciding:
            if self._committed:
                raise MachineError(
                    f"{self._guest.name} was given away already: it is too late to cancel its move"
                )
            decided()
            self._cancelled.set()

    # The phases

    def _ask_whether_possible(self) -> None:
        host = self._guest.system.host
        with self._guest.held():
            self.offset = self._offset()
            first = vcpu_state.save(self._guest.vcpus[0])
        offer = Offer(
            move=self.move,
            clock=self._clock_name,
            frequency=host.frequency,
            origin=self._clock.origin,
            pvr=host.pvr,
            dec_bits=self._guest.decrementer_bits,
            topology=self._guest.topology,
            memory_size=self._guest.memory.size,
            name=os.path.basename(self._guest.name),
            guest_time=self._clock.now() + self.offset,
            limit=self._limits.clock_error,
            policy=self._limits.time,
            registers=vcpu_state.in_use(first),
            sregs=first.sregs,
            token=self._token,
            devices=tuple(device.unit for device in self._guest.platform.vio.devices),
        )
        answer = self._ask(offer)
        if not isinstance(answer, Accepted):
            raise MoveRefusedError(_reason(answer))

    def _send_rounds(self) -> None:
        if self._was_running and not self._source.is_virtual:
            self._copy.run(self._ask)
            # Not before a guest moves: its start need not wait for this.
            from concurrent.futures import ThreadPoolExecutor, wait

            # Most of it, so that little is left when the guest has stopped. A slow disk may need long.
            with ThreadPoolExecutor(1, "flush") as executor:
                flushing = executor.submit(self._guest.platform.vio.flush)
                self._wait(lambda seconds: bool(wait([flushing], seconds).done), math.inf)
                flushing.result()

    def _await_suspension(self, asked: Suspension) -> None:
        asked.begin()
        self._wait(asked.wait, self._limits.suspend)
        if not asked.end():
            self._copy.check()
            raise MoveError(
                f"the guest did not suspend itself within {self._limits.suspend:g} s, and goes on here: "
                "somebody in it has to write the move's number to /sys/kernel/mobility/migration"
            )

    def _wait(self, done: Callable[[float], bool], patience: float) -> None:
        """Wait until it is `done`, which waits for so many seconds and says so, or `patience` is over.

        Meanwhile a destination in another process hears from time to time that there is no memory to send: it
        would take a long silence for the end of this side. One in this process waits as long as it takes, and
        each message would take time on a virtual clock.
        """
        deadline = time.monotonic() + patience
        while not done(max(0.0, min(_SIGN_OF_LIFE, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return
            self._copy.check()
            if not self._shares_clock:
                self._copy.send_nothing(self._ask)

    def _stop(self) -> None:
        if self._guest.platform.suspension is not None and self._limits.stream is not None:
            self._await_suspension(self._guest.platform.suspension)
        with self._guest.holding:
            # Whoever held the guest for a moment has let it go by now, and cannot let it go again.
            self._guest.pause()
        if self._guest.end is not None:
            raise MoveError(f"the guest had ended before it could move: {self._guest.end.message}")
        # The offset is read again: the guest's owner may have set another since the move began.
        offset = self._offset()
        self.stopped_at = self._source.ticks()
        self._guest_time = self._clock.at(self.stopped_at) + offset

    def _send_state(self) -> None:
        for part in self._past():
            self._copy.check()
            answer = self._ask(Past(part))
            if not isinstance(answer, Received):
                raise MoveError(f"the destination could not take the guest's past: {_reason(answer)}")
        self._loaded_at = self._expect_ready(self._state())
        self._ready_at = self._expect_ready(Measure())

    def _expect_ready(self, message: Message) -> SourceTime:
        """Send a message which READY answers; when that came."""
        ready = self._ask(message)
        came = self._source.ticks()
        if not isinstance(ready, Ready):
            raise MoveError(f"the destination could not take the guest: {_reason(ready)}")
        return came

    def _decide(self) -> None:
        self._copy.close()
        self._guest.platform.vio.give_up()
        with self._deciding:
            self._copy.check()
            self._committed = True

    def _commit(self) -> Commit:
        assert self.stopped_at is not None
        now = self._source.ticks()
        return Commit(
            guest_time=self._guest_time,
            ideal=self._guest.ideal,
            since_sample=Ticks(now - self.stopped_at),
            dwell=Ticks(now - self._ready_at),
        )

    def _state(self) -> State:
        machine = self._guest.machine_state
        vcpus = tuple(vcpu_state.save(vcpu) for vcpu in self._guest.vcpus)
        self._saved_at = self._source.ticks()
        typed = self._guest.console.typed if self._console_stays else b""
        return State(machine, vcpus, self._last_round(), typed, self._paused_at)

    def _last_round(self) -> Memory:
        yield from self._copy.last()
        self._sent_at = self._source.ticks()

    def _settle(self, phase: SourcePhase, message: Callable[[], Message]) -> MoveReport:
        """Send COMMIT, or ask what became of it: from here on the destination alone decides."""
        try:
            self._probe(phase)
            answer = self._ask(message())
        except Exception as error:
            # Whatever it was: COMMIT may have arrived.
            raise self._undecided(str(error)) from error
        if isinstance(answer, Acknowledged):
            self._answered_at = self._source.ticks()
            told = self._channel.receive_if_soon() if phase is SourcePhase.COMMIT else None
            return self._report(answer.record, told)
        if isinstance(answer, Aborted):
            self._take_back()
            raise MoveError(f"the destination gave the move up, and the guest goes on here: {answer.reason}")
        raise self._undecided(f"it answered {type(answer).__name__}")

    def _undecided(self, why: str) -> MoveUndecidedError:
        return MoveUndecidedError(
            self.move, why, lambda: self._settle(SourcePhase.QUERY, lambda: Query(self.move))
        )

    def _report(self, record: MoveRecord, told: Message | None) -> MoveReport:
        assert self.stopped_at is not None
        last_round = Ticks(self._sent_at - self._saved_at)
        device_state = Ticks(self._loaded_at - self.stopped_at) - last_round
        transfer = Transfer(
            rounds=self._copy.rounds,
            memory_bytes=self._guest.memory.size,
            sent_bytes=self._copy.sent_bytes,
            zero_bytes=self._copy.zero_bytes,
            duration_ns=Ticks(self._answered_at - self._begun_at).ns,
            last_round_ns=last_round.ns,
            device_state_ns=device_state.ns,
            handshake_ns=record.downtime_ns - record.wait_ns - last_round.ns - device_state.ns,
            resume_ns=told.after.ns if isinstance(told, Running) else None,
        )
        return MoveReport(record, transfer)

    def _take_back(self) -> None:
        if self._was_running and self._guest.end is None:
            try:
                self._guest.resume()
            except MachineError as error:
                raise MoveError(f"the move failed, and the guest stays paused here: {error}") from error

    def _ask(self, message: Message) -> Message:
        self._channel.send(message)
        return self._channel.receive()

    def _offset(self) -> Offset:
        try:
            return self._guest.offset
        except MachineError as error:
            raise MoveRefusedError(str(error)) from None


def clock_name(source: TickSource, shared: bool = True) -> str:
    """Return a name by which two hosts find out whether moving between their clocks can keep time.

    Monotonic clocks of real machines all go at the same rate. A virtual clock agrees with itself alone,
    unless nothing but the guest that moves runs on either side's (so they are not `shared`): then both stand
    while it is under way, and its move takes no time.
    """
    if not source.is_virtual:
        return "real time"
    return f"virtual clock {id(source):x} of process {os.getpid()}" if shared else "virtual time"


def _reason(answer: Message) -> str:
    return answer.reason if isinstance(answer, Refused | Aborted) else f"it answered {type(answer).__name__}"
