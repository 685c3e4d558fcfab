"""What `--stats` says at a guest's end: which tier executed its instructions, and what was compiled."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

from chronovisor.cli.output import say
from chronovisor.kvm.statistics import NativeCode, Statistics
from chronovisor.report.columns import aligned

_CODE = ("NATIVE CODE", "COMPILED", "COMPILING", "FROM DISK", "LINKING", "BYTES")


def tell_statistics(found: Statistics | None, as_json: bool) -> None:
    """Print a guest's statistics on stderr: as tables, or as one JSON object (None: not counted)."""
    if as_json:
        shown = None if found is None else asdict(found)
        print(json.dumps({"statistics": shown}), file=sys.stderr, flush=True)
    elif found is None:
        say("no statistics: the processor itself executes the guest")
    else:
        for line in _lines(found):
            say(line)


def _lines(found: Statistics) -> Iterator[str]:
    total = found.instructions.total
    rows = [("TIER", "INSTRUCTIONS", "SHARE")]
    for tier, count in asdict(found.instructions).items():
        rows.append((tier, f"{count:,}", f"{count / total:.1%}" if total else "-"))
    yield from aligned([*rows, ("all", f"{total:,}", "")], right=(1, 2))
    code = [_code("handlers, in sets", found.handlers), _code("regions", found.regions)]
    yield from aligned([_CODE, *code], right=range(1, len(_CODE)))


def _code(kind: str, code: NativeCode) -> tuple[str, ...]:
    compiling, linking = f"{code.compile_seconds:.2f} s", f"{code.link_seconds:.2f} s"
    return kind, str(code.compiled), compiling, str(code.kept), linking, f"{code.size:,}"
