"""The long campaigns of the tests as functions of a seed and a number of cases.

From the folder `tests`, `python -m long NAME SEED COUNT` runs one, and prints how many cases it did. The
campaigns of `chronovisor campaign` that need a checkout are made of such runs. The same seed and count give
the same cases. If something is wrong the run ends in the error.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parent


def oracle(seed: int, count: int) -> int:
    """Ask QEMU what instructions and programs do."""
    from oracle.campaign import run

    report = run(seed, count)
    assert not report.missing, f"only QEMU executes {report.lacks}"
    assert not report.mismatches, report.summary()
    return report.cases


def fuzz(seed: int, count: int) -> int:
    """Read streams and snapshots that somebody made on purpose, and run programs on malformed page tables."""
    from engine.translated.hunt import hunt
    from engine.translated.worlds import STARTS
    from test_snapshot_fuzz import campaign, small_snapshot
    from test_stream_fuzz import fuzz_destination, fuzz_messages, fuzz_streams

    messages, streams, destinations, files = count // 2, count // 16, count // 128, count // 4
    chance = random.Random(seed)
    fuzz_messages(chance, messages)
    fuzz_streams(chance, streams)
    fuzz_destination(chance, destinations)
    with tempfile.TemporaryDirectory() as scratch:
        campaign(small_snapshot(Path(scratch) / "small"), seed, files)
    worlds = max(1, count // 64 // STARTS)
    return messages + streams + destinations + files + hunt(seed * 1_000_000, worlds)["starts"]


def faults(seed: int, count: int) -> int:
    """Move a guest over ways that fail."""
    from test_faults import campaign

    from chronovisor.timebase.clock import VirtualTime

    with tempfile.TemporaryDirectory() as scratch:
        travelled = campaign(VirtualTime(), Path(scratch) / "moves", count, seed)
    return sum(travelled.outcomes.values())


def model(seed: int, count: int) -> int:
    """Hold random courses of a fleet against a model."""
    from test_model import Course, run_courses

    run_courses(count, seed)
    return Course.steps


def boots(seed: int, count: int) -> int:
    """Boot Debian's kernel with moves at random moments, and check its clocks."""
    from linux_guest.boots import boots

    return boots(seed, count)


CAMPAIGNS: Final[dict[str, Callable[[int, int], int]]] = {
    "oracle": oracle,
    "fuzz": fuzz,
    "faults": faults,
    "model": model,
    "boots": boots,
}


def main() -> None:
    """Run one campaign."""
    name, seed, count = sys.argv[1:]
    # These folders are no packages: pytest finds their modules in the same way.
    sys.path += [str(TESTS / "migration"), str(TESTS / "hypervisor")]
    print(CAMPAIGNS[name](int(seed), int(count)))


if __name__ == "__main__":
    main()
