"""What an act of the demonstration found: checks, each against a clause of the original text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from rich.console import RenderableType

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: the clause that it shows, what was seen, whether that is right."""

    clause: str
    """The clause of the original text, in its own words; … stands for omitted words."""
    seen: str
    ok: bool
    beyond: bool = False
    """Whether `clause` is no quotation but a promise of ours that the text leads to and does not make."""


@dataclass(slots=True)
class Act:
    """An act: its checks in order, and whatever else is to be shown or told to other programs."""

    title: str
    checks: list[Check] = field(default_factory=list)
    shown: list[RenderableType] = field(default_factory=list)
    """What is printed before the checks: a table, steps."""
    json: dict[str, Json] = field(default_factory=dict)

    def check(self, clause: str, seen: str, ok: bool, beyond: bool = False) -> None:
        """Write a check down."""
        self.checks.append(Check(clause, seen, ok, beyond))

    @property
    def ok(self) -> bool:
        """Whether everything is as it should be; an act that looked at nothing is not."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    def as_json(self) -> list[Json]:
        """Return the checks as objects of JSON."""
        return [
            {"clause": c.clause, "beyond_the_text": c.beyond, "seen": c.seen, "ok": c.ok} for c in self.checks
        ]
