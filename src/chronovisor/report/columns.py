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


def fitting(rows: Iterable[Sequence[str]], width: int | None) -> list[str]:
    """Return the rows as lines of at most `width` characters; None is any width. The headings come first.

    If the columns do not fit side by side, each row becomes a block with one text a line.
    """
    rows = list(rows)
    lines = aligned(rows)
    if width is None or max(map(len, lines)) <= width or len(rows) == 1:
        return lines
    headings, *others = rows
    widest = max(map(len, headings))
    blocks: list[str] = []
    for row in others:
        if blocks:
            blocks.append("")
        blocks += [
            f"{heading:{widest}}  {text}".rstrip()
            for heading, text in zip(headings, row, strict=True)
            if text
        ]
    return blocks
