"""A campaign for tests: it adds up squares. Some of its tasks kill their worker, hang, or find a failure."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from chronovisor.campaigns.campaign import (
    Answer,
    Batch,
    CampaignError,
    Course,
    Failure,
    Json,
    Parameters,
    Replay,
    Result,
)

TRIED = "SUMS_TRIED"
"""Names the directory in which tasks note that they were tried."""


def _first_time(part: Json) -> bool:
    place = Path(os.environ[TRIED]) / f"{part['from']}"
    tried = place.exists()
    place.touch()
    return not tried


@dataclass(frozen=True)
class Sums:
    name: str = "campaigns.sums"
    unit: str = "numbers"
    parameters: Parameters = field(
        default_factory=lambda: {
            "numbers": 100,
            "each": 10,
            "ms": 0,
            "die_once": 999,
            "hang_once": 999,
            "die": 999,
            "raise": 999,
            "find": 999,
            "cannot": 0,
        }
    )
    shared: Sequence[str] = ("numbers",)
    time_limit: float = 2.0

    def course(self, seed: int, given: Parameters, endless: bool) -> Course:
        return self._course(given, endless)

    def _course(self, given: Parameters, endless: bool) -> Course:
        starts = count(0, given["each"]) if endless else range(0, given["numbers"], given["each"])
        parts = ({"from": start, "to": start + given["each"]} for start in starts)
        results = yield Batch(parts, None if endless else len(range(0, given["numbers"], given["each"])))
        first = sum(result.data for result in results)
        # What the second batch is depends on what the first one gave.
        results = yield Batch([{"from": first, "to": first + 2}], 1)
        total = first + sum(result.data for result in results)
        return Answer([("sum",), (str(total),)], total)

    def perform(self, seed: int, given: Parameters, part: Json) -> Result:
        number = part["from"] // given["each"]
        time.sleep(given["ms"] / 1000)
        if given["cannot"]:
            raise CampaignError("there are no numbers here")
        if number == given["die"] or (number == given["die_once"] and _first_time(part)):
            os.kill(os.getpid(), signal.SIGKILL)
        if number == given["hang_once"] and _first_time(part):
            time.sleep(60)
        if number == given["raise"]:
            raise ArithmeticError("no squares here")
        squares = [n * n for n in range(part["from"], part["to"])]
        found = (Failure("a square is odd", {"number": part["from"] + 1}),) if number == given["find"] else ()
        return Result(len(squares), sum(squares), found)

    def replay(self, seed: int, given: Parameters, case: Json) -> Replay:
        return Replay(case["number"] % 2 == 1, (f"the square of {case['number']} is {case['number'] ** 2}",))


CAMPAIGN = Sums()
