"""docs/qemu.md's table of options, in Markdown, made from their declarations.

`python -m chronovisor.cli.qemu.reference docs/qemu.md` renews the part of that file that is made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chronovisor.cli.qemu.options import OPTIONS

BEGIN: Final = (
    "<!-- From here on this page is made: python -m chronovisor.cli.qemu.reference docs/qemu.md -->\n"
)
"""The line after which the made part of the page begins."""


def renewed(page: str) -> str:
    """Return the page with its made part made again; ValueError if it has none."""
    written, begin, _ = page.partition(BEGIN)
    if not begin:
        raise ValueError("the page has no part that is made")
    return written + begin + "\n" + "".join(f"{line}\n" for line in _lines())


def _lines() -> Iterator[str]:
    yield "## Options"
    for option in OPTIONS:
        names = ", ".join(f"-{name}" for name in option.names)
        yield from ("", f"### {names} {option.argument}".rstrip(), "")
        sentence = f"{option.help[0].upper()}{option.help[1:]}."
        yield sentence + (f" Becomes {option.becomes}." if option.becomes else "")
        if option.differs:
            yield from ("", f"Differs: {option.differs}")


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text()))
