"""Rows of text in columns, for terminals and pipes alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Return the rows as lines, each column as wide as its widest text; the columns whose numbers are in
    `right` end alike, the others begin alike. Every row has as many texts as the first.
    """
    rows, ends = list(rows), set(right)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{text:>{width}}" if n in ends else f"{text:{width}}"
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
