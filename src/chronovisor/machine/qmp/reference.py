"""The reference of the monitor's commands, events and types, in Markdown, made from their declarations.

`python -m chronovisor.machine.qmp.reference docs/qmp.md` renews the part of that file that is made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chronovisor.machine.qmp.declarations import SCHEMA
from chronovisor.machine.qmp.schema import Enumeration, Member, Schema

BEGIN: Final = (
    "<!-- From here on this page is made: python -m chronovisor.machine.qmp.reference docs/qmp.md -->\n"
)
"""The line after which the made part of a page begins."""


def reference(schema: Schema) -> str:
    """Return the reference."""
    return "".join(f"{line}\n" for line in _lines(schema))


def renewed(page: str) -> str:
    """Return the page with its made part made again; ValueError if it has none."""
    written, begin, _ = page.partition(BEGIN)
    if not begin:
        raise ValueError("the page has no part that is made")
    return written + begin + "\n" + reference(SCHEMA)


def _lines(schema: Schema) -> Iterator[str]:
    yield "## Commands"
    for command in schema.commands:
        yield from ("", f"### {command.name}", "", command.doc)
        if command.returns is not None:
            yield from ("", f"Returns {command.returns}.")
        yield from _members(command.arguments)
    yield from ("", "## Events")
    for event in schema.events:
        yield from ("", f"### {event.name}", "", event.doc)
        yield from _members(event.data)
    yield from ("", "## Types")
    for type_ in schema.types:
        yield from ("", f"### {type_.name}")
        if isinstance(type_, Enumeration):
            yield from (
                "",
                "One of " + ", ".join(f"`{v}`" for v in type_.values) + "." if type_.values else "No value.",
            )
        else:
            yield from _members(type_.members)


def _members(members: tuple[Member, ...]) -> Iterator[str]:
    if members:
        yield ""
    for member in members:
        optional = ", optional" if member.optional else ""
        yield f"- `{member.name}` ({member.type}{optional}): {member.doc}"


def _renew(path: Path) -> None:
    path.write_text(renewed(path.read_text()))


if __name__ == "__main__":
    _renew(Path(sys.argv[1]))
