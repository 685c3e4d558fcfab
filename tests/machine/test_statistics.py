"""What a guest's owner is told of the engine: instructions by tier, and native code."""

from __future__ import annotations

import handlers

from chronovisor.kvm.statistics import Instructions, Statistics
from chronovisor.machine.host import Host

LITTLE = (True, True)


def _statistics(engine: str) -> Statistics:
    with Host(clock="virtual", engine=engine) as host:
        guest = host.boot("hello-le.elf", "16M")
        before = guest.statistics()
        assert before is not None
        assert before.instructions == Instructions(0, 0, 0)
        guest.run()
        found = guest.statistics()
    assert found is not None
    closed = guest.statistics()
    assert closed is not None
    # What is compiled for guests of other tests goes on meanwhile.
    assert closed.instructions == found.instructions, "the counts of a guest that is closed"
    return found


def test_every_tier_counts_the_same_instructions() -> None:
    handlers.ensure([(0x60000000, LITTLE)])
    found = {engine: _statistics(engine) for engine in ("concrete", "threaded", "regions")}
    counts = {engine: one.instructions for engine, one in found.items()}
    assert len({one.total for one in counts.values()}) == 1
    assert counts["concrete"].concrete == counts["concrete"].total > 1000
    assert counts["threaded"].threaded > counts["threaded"].concrete
    assert not counts["threaded"].regions
    assert counts["regions"].threaded > counts["regions"].concrete


def test_native_code_is_counted_for_the_process() -> None:
    handlers.ensure([(0x60000000, LITTLE)])
    found = _statistics("threaded")
    # The functions beside the handlers and the two sets that every guest wants, at least.
    assert found.handlers.compiled + found.handlers.kept >= 3
    assert found.handlers.size > 100_000
    assert found.handlers.link_seconds > 0
