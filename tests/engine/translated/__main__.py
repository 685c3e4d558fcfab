"""The process in which the fuzzer runs: `python -m engine.translated FIRST COUNT`, from the folder `tests`.

It prints what it compared as JSON, or the first difference with the seed and the start of its world.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from random import Random

from chronovisor.memory.guest_memory import GuestMemory

from .checked import WatchedMemory
from .course import Counts, Course, prepare
from .mutants import MUTANTS
from .progress import Progress
from .worlds import SIZE, STARTS, world


def main() -> int:
    """Run the worlds of some seeds."""
    parser = argparse.ArgumentParser(description="Compare native code with the concrete evaluator.")
    parser.add_argument("first", type=int, help="the first seed")
    parser.add_argument("count", type=int, nargs="?", default=1, help="how many seeds")
    parser.add_argument("--start", type=int, help="of each world, run this start alone")
    parser.add_argument("--limit", type=int, help="execute at most so many instructions of a start")
    parser.add_argument("--progress", type=Path, help="a file to note the present seed and start in")
    parser.add_argument("--regions", action="store_true", help="put regions in at random places")
    parser.add_argument("--lines", action="store_true", help="make lines of all code that is decoded")
    parser.add_argument("--mutant", choices=MUTANTS, help="break the engine on purpose")
    given = parser.parse_args()
    if given.mutant:
        MUTANTS[given.mutant]()
    prepare()
    progress = Progress(given.progress) if given.progress else None
    counts = Counts()
    memories = WatchedMemory(SIZE), GuestMemory(SIZE)
    for seed in range(given.first, given.first + given.count):
        course = Course(world(seed), memories, Random(seed) if given.regions else None, given.lines)
        for start in range(STARTS) if given.start is None else (given.start,):
            if progress:
                progress.note(seed, start)
            try:
                course.run(start, counts, given.limit)
            except AssertionError as error:
                print(f"seed {seed}, start {start}: {error}")
                return 1
            course.restore()
        try:
            course.walk(Random(seed), counts)
        except AssertionError as error:
            print(f"seed {seed}: {error}")
            return 1
    json.dump(vars(counts), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
