"""The monitor's commands, events and types, in Markdown, made from their declarations for docs/qmp.md."""

from __future__ import annotations

from collections.abc import Iterator

from chronovisor.machine.qmp.declarations import SCHEMA
from chronovisor.machine.qmp.schema import Alternate, Enumeration, Member


def lines() -> Iterator[str]:
    """Return the lines of the reference."""
    yield "## Commands"
    for command in SCHEMA.commands:
        yield from ("", f"### {command.name}", "", command.doc)
        if command.returns is not None:
            yield from ("", f"Returns {command.returns}.")
        yield from _members(command.arguments)
    yield from ("", "## Events")
    for event in SCHEMA.events:
        yield from ("", f"### {event.name}", "", event.doc)
        yield from _members(event.data)
    yield from ("", "## Types")
    for type_ in SCHEMA.types:
        yield from ("", f"### {type_.name}")
        if isinstance(type_, Enumeration):
            yield from (
                "",
                "One of " + ", ".join(f"`{v}`" for v in type_.values) + "." if type_.values else "No value.",
            )
        elif isinstance(type_, Alternate):
            yield from ("", "One of the types " + ", ".join(type_.types) + ".")
        else:
            yield from _members(type_.members)


def _members(members: tuple[Member, ...]) -> Iterator[str]:
    if members:
        yield ""
    for member in members:
        optional = ", optional" if member.optional else ""
        yield f"- `{member.name}` ({member.type}{optional}): {member.doc}"
