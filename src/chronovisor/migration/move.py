"""Moving a guest between two hosts of this process: both halves of a move and the link between them."""

from __future__ import annotations

from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.migration.destination import Destination
from chronovisor.migration.errors import MoveError, MoveUndecidedError
from chronovisor.migration.link import Link
from chronovisor.migration.phases import Probe, no_probe
from chronovisor.migration.precopy import MoveLimits
from chronovisor.migration.source import Source
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT
from chronovisor.timebase.policy import CATCH_UP, TimePolicy
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import Ticks


def move(
    guest: Guest,
    to_host: Host,
    link: Link | None = None,
    limit: Ticks = CLOCK_ERROR_LIMIT,
    policy: TimePolicy = CATCH_UP,
    probe: Probe = no_probe,
    stream: int | None = None,
) -> tuple[Guest, MoveRecord]:
    """Move `guest` to `to_host` and return it there, with the record of what that did to its time.

    A guest that runs goes on by itself, one that is paused stays so; the one given is closed. Both hosts are
    in this process, so the record's time elapsed is the true one, by the one clock that they share.
    The guest's time comes out at most `limit` ticks from its ideal (2^23, 16.4 ms, unless relaxed);
    `policy` says how much of the time that it is away counts for it. `probe` is told of each phase of either
    side before it begins. With the number of a `stream` the guest is asked to suspend itself for the move.

    Raises `MoveRefusedError` (nothing was stopped), `MoveError` (the guest goes on at the source) and
    `MoveUndecidedError` (it stays paused until `ask` brings an answer).
    """
    destination = Destination(to_host, guest.console, probe=probe)
    running = guest.running
    source_clock = guest.system.clock.source
    channel = (link or Link()).connect(source_clock, destination.handle)
    source = Source(guest, channel, MoveLimits(clock_error=limit, time=policy, stream=stream), probe=probe)
    try:
        record = source.give_away().record
    except MoveError as error:
        destination.give_up(str(error))
        raise
    except MoveUndecidedError:
        # Whatever the source knows: a guest that was committed is the destination's, and runs there.
        if destination.committed:
            destination.start(running)
        raise
    guest.close()
    moved = destination.start(running)
    assert source.stopped_at is not None
    return moved, record.with_true_elapsed(Ticks(destination.resumes_at - source.stopped_at), policy)
