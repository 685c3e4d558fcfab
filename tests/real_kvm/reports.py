"""What the demonstration's guest says that it saw, held against what must be."""

from __future__ import annotations

from typing import Any


def check_report(report: dict[str, Any]) -> None:
    """What the guest itself says of its time and memory."""
    numbers, text = report["numbers"], report["text"]
    assert report["memory_intact"], text
    for never in ("back", "back_between", "early", "lost", "outside"):
        assert numbers[never] == 0, text
    # One interrupt may be due that very moment.
    assert 0 <= numbers["expected"] - numbers["taken"] <= 1, text
