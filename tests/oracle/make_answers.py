"""Make the answers of tests/oracle/data anew: `python -m oracle.make_answers` from tests/, with QEMU
installed.

What is written is compared with the concrete evaluator first; a mismatch is printed and nothing is written.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

from .campaign import Report, compare, lacking, make
from .ours import Evaluator
from .qemu import run_batch
from .store import save

DATA = Path(__file__).parent / "data"
SEEDS = {"answers-1": 12_600, "answers-2": 12_600, "answers-3": 12_600, "answers-4": 12_600}


def main() -> int:
    """Write each file; the exit status says whether all answers were ours, too."""
    evaluator, status = Evaluator(), 0
    for name, count in SEEDS.items():
        cases = make(Random(name), count)
        answers = run_batch(cases)
        report = Report()
        compare(cases, answers, evaluator, report)
        if report.mismatches:
            print(f"{name}: {report.summary()}", file=sys.stderr)
            status = 1
            continue
        path = DATA / f"{name}.jsonl.xz"
        kept = [pair for pair in zip(cases, answers, strict=True) if not lacking(*pair)]
        save(path, kept)
        print(f"{path.name}: {len(kept)} answers, {path.stat().st_size} bytes")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
