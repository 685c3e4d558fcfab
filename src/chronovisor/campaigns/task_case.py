"""A task that could not be done, as a failure: its case is the task itself."""

from __future__ import annotations

from chronovisor.campaigns.campaign import Failure, Json, Result

_PART = "the whole task"


def lost(words: str, part: Json) -> Result:
    """Return the result of a task that was given up."""
    return Result(0, None, (Failure(" ".join(words.split()), {_PART: part}),))


def part_of(case: Json) -> tuple[bool, Json]:
    """Return whether a case is a task that could not be done, and its part."""
    is_task = isinstance(case, dict) and _PART in case
    return is_task, case[_PART] if is_task else None
