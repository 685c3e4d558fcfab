"""`chronovisor cache`: the compiled code that is kept on disk."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from chronovisor.kvm.code_cache import CodeCache
from chronovisor.kvm.provider import code_cache
from chronovisor.machine.errors import MachineError
from chronovisor.report.columns import aligned


class Action(StrEnum):
    """What to do with the cache."""

    show = "show"
    clear = "clear"


def command(
    action: Annotated[
        Action, typer.Argument(help="show: what is kept; clear: delete it. Guests may run meanwhile.")
    ] = Action.show,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> None:
    """Show the compiled code that is kept on disk, or clear it: it is compiled again when it is needed.

    If more than the limit is kept, what was not used for longest is deleted.
    """
    cache = code_cache()
    try:
        if action is Action.clear:
            _clear(cache, as_json)
        else:
            _show(cache, as_json)
    except OSError as error:
        raise MachineError(f"{error.filename or cache.directory}: {error.strerror}") from None


def _clear(cache: CodeCache, as_json: bool) -> None:
    files, size = cache.clear()
    if as_json:
        print(json.dumps({"directory": str(cache.directory), "deleted": files, "bytes": size}))
    else:
        print(f"{cache.directory}: {files:,} files deleted, {_mib(size)}")


def _show(cache: CodeCache, as_json: bool) -> None:
    found = sorted(cache.contents().items())
    files = sum(count for _, (count, _) in found)
    size = sum(of_kind for _, (_, of_kind) in found)
    if as_json:
        kinds = {kind: {"files": count, "bytes": of_kind} for kind, (count, of_kind) in found}
        whole = {"files": files, "bytes": size, "limit": cache.limit}
        print(json.dumps({"directory": str(cache.directory), **whole, "kinds": kinds}, indent=2))
        return
    print(cache.directory)
    rows = [(kind, f"{count:,}", _mib(of_kind)) for kind, (count, of_kind) in found]
    total = ("all", f"{files:,}", f"{_mib(size)} of at most {_mib(cache.limit)}")
    for line in aligned([("KIND", "FILES", "SIZE"), *rows, total], right=(1,)):
        print(line)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
