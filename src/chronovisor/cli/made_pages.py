"""Pages of the documentation whose second part is made from declarations.

`python -m chronovisor.cli.made_pages docs` makes these parts anew in the pages of that directory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from chronovisor.cli.qemu import reference as qemu
from chronovisor.machine.qmp import reference as qmp
from chronovisor.report.trace import reference as traces

BEGIN: Final = "<!-- From here on this page is made: python -m chronovisor.cli.made_pages docs -->\n"
"""The line after which the made part of a page begins."""

MADE: Final[Mapping[str, Callable[[], Iterator[str]]]] = {
    "qemu.md": qemu.lines,
    "qmp.md": qmp.lines,
    "traces.md": traces.lines,
}
"""The lines of the made parts, by the pages' names."""


def renewed(name: str, page: str) -> str:
    """Return the page of that name with its made part made again; ValueError if it has none."""
    written, begin, _ = page.partition(BEGIN)
    if not begin:
        raise ValueError(f"{name} has no part that is made")
    return written + begin + "\n" + "".join(f"{line}\n" for line in MADE[name]())


if __name__ == "__main__":
    for name in MADE:
        path = Path(sys.argv[1]) / name
        path.write_text(renewed(name, path.read_text()))
