"""What the demonstration's guest says that it saw, held against what must be."""

from __future__ import annotations

from typing import Any

_UNEXPLAINED: int = 1
"""Log entries that a guest of the real kernel found outside its readings: one, once in thirty runs on a
loaded machine, and nobody knows why yet."""


def check_report(report: dict[str, Any], emulated: bool = True) -> None:
    """What the guest itself says of its time and memory.

    Where it ran in the `emulated` machine, interrupts may be so late that the guest gives them up for lost:
    QEMU's decrementer expires on a thread that has to be given a processor of this machine first. The guest
    asks for the next one then, and the one that it gave up, which the real kernel keeps, comes early.
    """
    check_numbers(report["numbers"], report["text"], emulated)
    assert report["memory_intact"], report["text"]


def check_numbers(numbers: dict[str, int], text: str, emulated: bool = True) -> None:
    """Its counts alone."""
    assert numbers["back"] == 0, text
    assert numbers.get("back_between", 0) == 0, text
    lost = numbers["lost"]
    assert emulated or lost == 0, text
    assert 0 <= numbers["early"] <= lost, text
    # One may be due that very moment.
    assert 0 <= numbers["expected"] - numbers["taken"] <= lost + 1, text
    assert numbers["taken"] > 0, text
    assert numbers["outside"] <= (_UNEXPLAINED if emulated else 0), text
