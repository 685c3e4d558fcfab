"""The watchers of a run: each checks its events for one promise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chronovisor.cli.demo.watched import GuestReport, Moment
from chronovisor.timebase.trace import (
    DecrementerKept,
    DispatchLogged,
    HostTimeRestored,
    OffsetApplied,
    SecondaryLetIn,
    Tbu40Written,
    ThreadOut,
    TimebaseRead,
    Wrapped,
)
from chronovisor.timebase.types import LOW_MASK, Offset


def exits(moments: Sequence[Moment]) -> tuple[int, int]:
    """Return how many exits there were, and how many left a timebase that is not the host's."""
    found = [(m, m.event) for m in moments if isinstance(m.event, HostTimeRestored)]
    return len(found), sum(event.value != moment.host_time for moment, event in found)


def secondaries(moments: Sequence[Moment]) -> tuple[int, int]:
    """Return how many secondary threads were let in, and how many before the timebase was the guest's."""
    found = early = 0
    in_guest: set[int] = set()
    for event in _events(moments):
        _follow(event, in_guest)
        if isinstance(event, SecondaryLetIn):
            found += 1
            early += event.core not in in_guest
    return found, early


def decrementers(moments: Sequence[Moment]) -> tuple[int, int]:
    """Return how many decrementers were kept, and how many while their core's timebase was not the host's."""
    found = early = 0
    in_guest: set[int] = set()
    core_of: dict[int, int] = {}
    for event in _events(moments):
        _follow(event, in_guest)
        if isinstance(event, ThreadOut):
            core_of[event.vcpu] = event.core
        elif isinstance(event, DecrementerKept):
            found += 1
            early += core_of.get(event.vcpu) in in_guest
    return found, early


def log_entries(moments: Sequence[Moment], offset: Offset) -> tuple[int, int]:
    """Return how many dispatches were logged, and how many not under the host's time plus `offset`."""
    found = [(m, m.event) for m in moments if isinstance(m.event, DispatchLogged)]
    return len(found), sum(event.timebase != moment.host_time + offset for moment, event in found)


def phases(moments: Sequence[Moment]) -> tuple[int, int]:
    """Return how many timebase values of any core there were, and how many differ from the host in the low 24
    bits.

    A reading is reported after its switch, so its low bits are those of some moment since the event before.
    """
    looked = wrong = since = 0
    for moment in moments:
        match moment.event:
            case TimebaseRead(_, value):
                ticks: int | None = value
            case HostTimeRestored(_, value):
                ticks = value.value
            case DispatchLogged(_, timebase):
                ticks = timebase.value
            case _:
                ticks = None
        if ticks is not None:
            looked += 1
            wrong += (moment.host_time.value - ticks) & LOW_MASK > moment.tick - since
        if not isinstance(moment.event, TimebaseRead | Tbu40Written | Wrapped):
            since = moment.tick
    return looked, wrong


def found(moments: Sequence[Moment], offset: Offset, report: GuestReport | None) -> list[str]:
    """Return in words what the watchers and the guest itself found to be wrong."""
    sentences = []
    if report is None:
        sentences.append("the guest: it fell silent")
    else:
        if report.backward_steps:
            sentences.append(f"the guest: its time went back {report.backward_steps} times")
        if report["outside"]:
            sentences.append(f"the guest: {report['outside']} log entries outside its own readings")
        if report["lost"] or report["early"]:
            sentences.append(f"the guest: {report['lost']} timers lost, {report['early']} early")
    for who, (looked, wrong), what in (
        ("exits", exits(moments), "left a timebase that is not the host's"),
        ("secondary threads", secondaries(moments), "were let in before the timebase was the guest's"),
        ("decrementers", decrementers(moments), "were kept before the timebase was the host's"),
        ("log entries", log_entries(moments, offset), "do not carry the guest's time"),
        ("readings", phases(moments), "have other low 24 bits than the host's clock"),
    ):
        if wrong:
            sentences.append(f"the trace: {wrong} of {looked} {who} {what}")
    return sentences


def _events(moments: Sequence[Moment]) -> Iterable[object]:
    return (moment.event for moment in moments)


def _follow(event: object, in_guest: set[int]) -> None:
    """Track which cores' timebases are a guest's."""
    if isinstance(event, OffsetApplied):
        in_guest.add(event.core)
    elif isinstance(event, HostTimeRestored):
        in_guest.discard(event.core)
