"""The long campaigns of the tests as functions of a seed and a number of cases.

From the folder `tests`, `python -m long NAME SEED COUNT` runs one, and prints how many cases of each kind it
did, as JSON. The campaigns of `chronovisor campaign` that need a checkout are made of such runs. The same
seed and count give the same cases, but for moves in real time. If something is wrong the run ends in the
error.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parent


def oracle(seed: int, count: int) -> Counter[str]:
    """Ask QEMU what instructions and programs do: `count` cases, and then a word of each instruction."""
    from oracle import test_decimals, test_floating_point, test_translated, test_vectors
    from oracle.campaign import run

    report = run(seed, count)
    assert not report.missing, f"only QEMU executes {report.lacks}"
    assert not report.mismatches, report.summary()
    done = Counter({"instructions, programs, interrupts": report.cases})
    done["floating-point words"] = test_floating_point.compare_words(seed, 1)
    done["decimal words"] = test_decimals.compare_words(seed, 5)
    done["vector words"] = test_vectors.compare_words(seed, 1)
    done["translated accesses"] = test_translated.compare_cases(seed, test_translated.CASES)
    return done


def engines(seed: int, count: int) -> Counter[str]:
    """Have all evaluators do the same: the concrete one, native code, regions, the symbolic one."""
    from engine import (
        region_programs,
        test_native_agrees,
        test_native_ieee,
        test_regions,
        test_symbolic_agrees,
    )
    from engine.drawn import drawn
    from oracle import test_native, test_native_floating_point
    from oracle.ours import Evaluator
    from test_hypercall_programs import compare_courses

    from chronovisor.engine.native.engine import NativeEngine

    chance, done = random.Random(seed), Counter[str]()
    done["words"] = test_native_agrees.compare(drawn(seed, count // 8))
    done["instructions, programs, interrupts"] = test_native.compare_drawn(
        seed, count // 4, Evaluator(NativeEngine), Evaluator()
    )
    done["floating-point words"] = test_native_floating_point.compare_words(
        chance.sample(test_native_floating_point.hosted(), 40), seed
    )
    for name in test_native_ieee.HOSTED:
        compared, wrong = test_native_ieee.differences(name, count // 64, seed)
        assert not wrong, wrong[:5]
        done["IEEE operations"] += compared
    done["symbolic words"] = test_symbolic_agrees.compare(
        seed, chance.sample(test_symbolic_agrees.exact(), 50)
    )
    programs = range(seed * 1_000, seed * 1_000 + max(1, count // 1_000))
    for program in (
        region_programs.program,
        region_programs.tangle,
        region_programs.carries,
        region_programs.comparisons,
        region_programs.strips,
    ):
        test_regions.compare_many(programs, program=program)
        done["programs with regions"] += len(programs)
    compare_courses(programs)
    done["programs that make hypercalls"] = len(programs)
    return done


def fuzz(seed: int, count: int) -> Counter[str]:
    """Read streams and snapshots that somebody made on purpose, call devices with rubbish, and run programs
    on malformed page tables.
    """
    import test_device_fuzz
    from engine.translated.hunt import hunt
    from engine.translated.worlds import STARTS
    from test_snapshot_fuzz import campaign, small_snapshot
    from test_stream_fuzz import fuzz_destination, fuzz_messages, fuzz_streams

    chance = random.Random(seed)
    done = Counter(
        {
            "messages": count // 2,
            "streams": count // 16,
            "courses of a destination": count // 128,
            "snapshots": count // 4,
            "courses of devices": max(1, count // 2_500),
        }
    )
    fuzz_messages(chance, done["messages"])
    fuzz_streams(chance, done["streams"])
    fuzz_destination(chance, done["courses of a destination"])
    with tempfile.TemporaryDirectory() as scratch:
        campaign(small_snapshot(Path(scratch) / "small"), seed, done["snapshots"])
    seeds = range(seed * 1_000, seed * 1_000 + done["courses of devices"])
    with tempfile.TemporaryDirectory() as scratch:
        test_device_fuzz.campaign(Path(scratch), seeds, 1_000)
    worlds = max(1, count // 2 // STARTS)
    done["translated programs"] = hunt(seed * 1_000_000, worlds)["starts"]
    found = hunt(seed * 1_000_000, max(1, worlds // 256), regions=True)
    done["translated programs with regions"] = found["starts"]
    return done


def faults(seed: int, count: int) -> Counter[str]:
    """Move a guest over ways that fail: three times of four in virtual time, else in real time."""
    from test_faults import campaign

    from chronovisor.timebase.clock import RealTime, VirtualTime

    done = Counter[str]()
    real = count // 4
    for clock, moves in ((VirtualTime(), count - real), (RealTime(), real)):
        with tempfile.TemporaryDirectory() as scratch:
            done.update(campaign(clock, Path(scratch) / "moves", moves, seed).outcomes)
    return done


def model(seed: int, count: int) -> Counter[str]:
    """Hold random courses of a fleet against a model."""
    from test_model import run_courses

    return run_courses(count, seed)


def boots(seed: int, count: int) -> Counter[str]:
    """Boot Debian's kernel with moves at random moments, and check its clocks."""
    from linux_guest.boots import boots

    return boots(seed, count)


CAMPAIGNS: Final[dict[str, Callable[[int, int], Counter[str]]]] = {
    "oracle": oracle,
    "engines": engines,
    "fuzz": fuzz,
    "faults": faults,
    "model": model,
    "boots": boots,
}


def main() -> None:
    """Run one campaign."""
    name, seed, count = sys.argv[1:]
    # These folders are no packages: pytest finds their modules in the same way.
    sys.path += [str(TESTS / folder) for folder in ("hypervisor", "machine", "migration")]
    print(json.dumps(CAMPAIGNS[name](int(seed), int(count))))


if __name__ == "__main__":
    main()
