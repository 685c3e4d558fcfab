"""The source's half of a move: it stops the guest, gives it away, and takes it back where that fails."""

from __future__ import annotations

import os
import secrets

from chronovisor.kvm.interface import HostFacts, Vcpu
from chronovisor.kvm.registers import read_register
from chronovisor.machine.guest import Guest
from chronovisor.memory.in_use import blocks_in_use, runs_in_use
from chronovisor.migration import vcpu_state
from chronovisor.migration.errors import LinkLostError, MoveError, MoveRefusedError, MoveUndecidedError
from chronovisor.migration.link import Channel
from chronovisor.migration.messages import (
    Aborted,
    Accepted,
    Acknowledged,
    Commit,
    Message,
    Offer,
    Query,
    Ready,
    Refused,
    State,
)
from chronovisor.timebase.clock import TickSource
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import Offset, Ticks

_LPCR_LD = 1 << 17
"""LPCR[LD]: the guest's decrementer has the processor's full width (Power ISA 3.0B, Book III, 2.2)."""


class Source:
    """Gives `guest` away over `channel`. Its time may come out `limit` from its ideal at most.

    Where `console_stays`, what was typed for the guest and not read yet goes with its state.
    """

    def __init__(
        self,
        guest: Guest,
        channel: Channel,
        limit: Ticks = CLOCK_ERROR_LIMIT,
        console_stays: bool = False,
    ) -> None:
        self._guest = guest
        self._console_stays = console_stays
        self._channel = channel
        self._limit = limit
        self._clock = guest.system.clock
        self._source = self._clock.source
        self._was_running = False
        self.move = secrets.token_hex(8)
        """The move's id."""
        self.stopped_at: int | None = None
        """The tick of the source's clock at which the guest's time was sampled; None before."""

    def give_away(self) -> MoveRecord:
        """Make the move; on return the guest is the destination's, and is paused here for good.

        Raises `MoveRefusedError` before anything was stopped, `MoveError` where the guest went on here, and
        `MoveUndecidedError` where nobody here can know.
        """
        offset = self._offset()
        self._ask_whether_possible(offset)
        self._was_running = self._guest.running
        try:
            self._guest.pause()
            if self._guest.end is not None:
                raise MoveError(f"the guest had ended before it could move: {self._guest.end.message}")
            self.stopped_at = self._source.ticks()
            guest_time = self._clock.at(self.stopped_at) + self._offset()
            ready = self._ask(self._state())
            ready_at = self._source.ticks()
            if not isinstance(ready, Ready):
                raise MoveError(f"the destination could not take the guest: {_reason(ready)}")
        except BaseException as error:
            self._take_back()
            if isinstance(error, LinkLostError | OSError):
                raise MoveError(
                    f"the move was given up before COMMIT, and the guest goes on here: {error}"
                ) from error
            raise
        now = self._source.ticks()
        commit = Commit(
            guest_time=guest_time,
            ideal=self._guest.ideal,
            since_sample=Ticks(now - self.stopped_at),
            dwell=Ticks(now - ready_at),
        )
        return self._settle(commit)

    def _ask_whether_possible(self, offset: Offset) -> None:
        host = self._guest.system.host
        offer = Offer(
            move=self.move,
            clock=clock_name(self._source),
            frequency=host.frequency,
            origin=self._clock.origin,
            pvr=host.pvr,
            dec_bits=decrementer_width(self._guest.vcpus[0], host),
            topology=self._guest.topology,
            memory_size=self._guest.memory.size,
            name=self._guest.name,
            guest_time=self._clock.now() + offset,
            limit=self._limit,
            in_use=blocks_in_use(self._guest.memory),
        )
        try:
            answer = self._ask(offer)
        except LinkLostError as error:
            raise MoveError(
                f"the destination could not be asked, and the guest goes on here: {error}"
            ) from error
        if not isinstance(answer, Accepted):
            raise MoveRefusedError(_reason(answer))

    def _state(self) -> State:
        memory = self._guest.memory
        return State(
            machine=self._guest.machine_state,
            vcpus=tuple(vcpu_state.save(vcpu) for vcpu in self._guest.vcpus),
            memory=tuple((addr, memory.view[addr : addr + size]) for addr, size in runs_in_use(memory)),
            typed=self._guest.console.typed if self._console_stays else b"",
        )

    def _settle(self, message: Message) -> MoveRecord:
        """Send COMMIT, or ask what became of it: from here on the destination alone decides."""
        try:
            answer = self._ask(message)
        except Exception as error:
            # Whatever it was: COMMIT may have arrived.
            raise MoveUndecidedError(self.move, str(error), lambda: self._settle(Query(self.move))) from error
        if isinstance(answer, Acknowledged):
            return answer.record
        if isinstance(answer, Aborted):
            self._take_back()
            raise MoveError(f"the destination gave the move up, and the guest goes on here: {answer.reason}")
        raise MoveUndecidedError(
            self.move, f"it answered {type(answer).__name__}", lambda: self._settle(Query(self.move))
        )

    def _take_back(self) -> None:
        if self._was_running and self._guest.end is None:
            self._guest.resume()

    def _ask(self, message: Message) -> Message:
        self._channel.send(message)
        return self._channel.receive()

    def _offset(self) -> Offset:
        offsets = {read_register(vcpu, "TB_OFFSET") for vcpu in self._guest.vcpus}
        if len(offsets) > 1:
            raise MoveRefusedError(
                "the guest's virtual cores have different timebase offsets "
                f"({', '.join(f'{o:#x}' for o in sorted(offsets))}): give them one, then move it"
            )
        return Offset(offsets.pop())


def clock_name(source: TickSource) -> str:
    """Return a name by which two hosts find out whether moving between their clocks can keep time.

    Monotonic clocks of real machines all go at the same rate; a virtual clock agrees with itself alone.
    """
    return f"virtual clock {id(source):x} of process {os.getpid()}" if source.is_virtual else "real time"


def decrementer_width(vcpu: Vcpu, host: HostFacts) -> int:
    """Return how many bits the guest's decrementer has: 32 unless LPCR[LD] is set."""
    return host.dec_bits if read_register(vcpu, "LPCR_64") & _LPCR_LD else 32


def _reason(answer: Message) -> str:
    return answer.reason if isinstance(answer, Refused | Aborted) else f"it answered {type(answer).__name__}"
