"""The source's half of a move: it stops the guest, gives it away, and takes it back where that fails."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable

from chronovisor.kvm.errors import KvmError
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.memory.in_use import blocks_in_use
from chronovisor.migration import vcpu_state
from chronovisor.migration.errors import (
    LinkLostError,
    MoveCancelledError,
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
    Memory,
    Message,
    Offer,
    Query,
    Ready,
    Refused,
    Running,
    State,
)
from chronovisor.migration.precopy import MoveLimits, Precopy, Progress, estimate
from chronovisor.migration.transfer import MoveReport, Transfer
from chronovisor.timebase.clock import TickSource
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import Offset, Ticks


class Source:
    """Gives `guest` away over `channel`, within `limits`; `tell` is told how far memory has come.

    Where `console_stays`, what was typed for the guest and not read yet goes with its state. A guest that
    runs in real time runs on while most of its memory goes over.
    """

    def __init__(
        self,
        guest: Guest,
        channel: Channel,
        limits: MoveLimits = MoveLimits(),  # noqa: B008 - frozen, so one serves all
        console_stays: bool = False,
        tell: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._guest = guest
        self._console_stays = console_stays
        self._channel = channel
        self._limits = limits
        self._tell = tell
        self._clock = guest.system.clock
        self._source = self._clock.source
        self._was_running = False
        self._deciding = threading.Lock()
        self._committed = False
        self._cancelled = threading.Event()
        self._begun_at = self._saved_at = self._sent_at = self._ready_at = self._answered_at = 0
        self._copied: Precopy | None = None
        self.move = secrets.token_hex(8)
        """The move's id."""
        self.stopped_at: int | None = None
        """The tick of the source's clock at which the guest's time was sampled; None before."""

    def give_away(self) -> MoveReport:
        """Make the move; on return the guest is the destination's, and is paused here for good.

        Raises `MoveRefusedError` before anything was sent, `MoveError` where the guest went on here, and
        `MoveUndecidedError` where nobody here can know.
        """
        self._begun_at = self._source.ticks()
        offset = self._offset()
        blocks = blocks_in_use(self._guest.memory)
        self._ask_whether_possible(offset, blocks)
        self._was_running = self._guest.running
        copy = Precopy(self._guest, self._limits, estimate(blocks), self._cancelled, self._tell)
        self._copied = copy
        try:
            if self._was_running and not self._source.is_virtual:
                copy.run(self._ask)
            self._guest.pause()
            if self._guest.end is not None:
                raise MoveError(f"the guest had ended before it could move: {self._guest.end.message}")
            self.stopped_at = self._source.ticks()
            guest_time = self._clock.at(self.stopped_at) + self._offset()
            ready = self._ask(self._state(copy))
            self._ready_at = self._source.ticks()
            if not isinstance(ready, Ready):
                raise MoveError(f"the destination could not take the guest: {_reason(ready)}")
            copy.close()
            with self._deciding:
                copy.check()
                self._committed = True
        except BaseException as error:
            # Whatever else fails, the guest goes on.
            with contextlib.suppress(KvmError):
                copy.close()
            self._take_back()
            if isinstance(error, LinkLostError | OSError):
                # Cancelling breaks the way, too.
                copy.check()
                raise MoveError(
                    f"the move was given up before COMMIT, and the guest goes on here: {error}"
                ) from error
            raise
        now = self._source.ticks()
        commit = Commit(
            guest_time=guest_time,
            ideal=self._guest.ideal,
            since_sample=Ticks(now - self.stopped_at),
            dwell=Ticks(now - self._ready_at),
        )
        return self._settle(commit)

    def cancel(self) -> None:
        """Have the move come to nothing; from any thread. MachineError where COMMIT has left already.

        What waits for the destination does so no longer once the channel is broken, too.
        """
        with self._deciding:
            if self._committed:
                raise MachineError(
                    f"{self._guest.name} was given away already: it is too late to cancel its move"
                )
            self._cancelled.set()

    def _ask_whether_possible(self, offset: Offset, blocks: bytes) -> None:
        host = self._guest.system.host
        offer = Offer(
            move=self.move,
            clock=clock_name(self._source),
            frequency=host.frequency,
            origin=self._clock.origin,
            pvr=host.pvr,
            dec_bits=self._guest.decrementer_bits,
            topology=self._guest.topology,
            memory_size=self._guest.memory.size,
            name=os.path.basename(self._guest.name),
            guest_time=self._clock.now() + offset,
            limit=self._limits.clock_error,
            policy=self._limits.time,
            in_use=blocks,
        )
        try:
            answer = self._ask(offer)
        except LinkLostError as error:
            if self._cancelled.is_set():
                raise MoveCancelledError("the move was cancelled, and the guest goes on here") from error
            raise MoveError(
                f"the destination could not be asked, and the guest goes on here: {error}"
            ) from error
        if not isinstance(answer, Accepted):
            raise MoveRefusedError(_reason(answer))

    def _state(self, copy: Precopy) -> State:
        machine = self._guest.machine_state
        vcpus = tuple(vcpu_state.save(vcpu) for vcpu in self._guest.vcpus)
        self._saved_at = self._source.ticks()
        typed = self._guest.console.typed if self._console_stays else b""
        return State(machine, vcpus, self._last_round(copy), typed)

    def _last_round(self, copy: Precopy) -> Memory:
        yield from copy.last()
        self._sent_at = self._source.ticks()

    def _settle(self, message: Message) -> MoveReport:
        """Send COMMIT, or ask what became of it: from here on the destination alone decides."""
        try:
            answer = self._ask(message)
        except Exception as error:
            # Whatever it was: COMMIT may have arrived.
            raise MoveUndecidedError(self.move, str(error), lambda: self._settle(Query(self.move))) from error
        if isinstance(answer, Acknowledged):
            self._answered_at = self._source.ticks()
            told = self._channel.receive_if_soon() if isinstance(message, Commit) else None
            return self._report(answer.record, told)
        if isinstance(answer, Aborted):
            self._take_back()
            raise MoveError(f"the destination gave the move up, and the guest goes on here: {answer.reason}")
        raise MoveUndecidedError(
            self.move, f"it answered {type(answer).__name__}", lambda: self._settle(Query(self.move))
        )

    def _report(self, record: MoveRecord, told: Message | None) -> MoveReport:
        assert self._copied is not None
        assert self.stopped_at is not None
        last_round = Ticks(self._sent_at - self._saved_at)
        device_state = Ticks(self._ready_at - self.stopped_at) - last_round
        transfer = Transfer(
            rounds=self._copied.rounds,
            memory_bytes=self._guest.memory.size,
            sent_bytes=self._copied.sent_bytes,
            zero_bytes=self._copied.zero_bytes,
            duration_ns=Ticks(self._answered_at - self._begun_at).ns,
            last_round_ns=last_round.ns,
            device_state_ns=device_state.ns,
            handshake_ns=record.downtime_ns - record.wait_ns - last_round.ns - device_state.ns,
            resume_ns=told.after.ns if isinstance(told, Running) else None,
        )
        return MoveReport(record, transfer)

    def _take_back(self) -> None:
        if self._was_running and self._guest.end is None:
            self._guest.resume()

    def _ask(self, message: Message) -> Message:
        self._channel.send(message)
        return self._channel.receive()

    def _offset(self) -> Offset:
        try:
            return self._guest.offset
        except MachineError as error:
            raise MoveRefusedError(str(error)) from None


def clock_name(source: TickSource) -> str:
    """Return a name by which two hosts find out whether moving between their clocks can keep time.

    Monotonic clocks of real machines all go at the same rate; a virtual clock agrees with itself alone.
    """
    return f"virtual clock {id(source):x} of process {os.getpid()}" if source.is_virtual else "real time"


def _reason(answer: Message) -> str:
    return answer.reason if isinstance(answer, Refused | Aborted) else f"it answered {type(answer).__name__}"
