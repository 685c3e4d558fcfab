"""Options that do nothing without another one: giving them alone is a mistake, and is told as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from typer.core import TyperCommand

from chronovisor.machine.errors import MachineError


class _Rule(NamedTuple):
    options: tuple[str, ...]
    """The parameters of commands that do nothing alone."""
    needs: str
    """What they need, for people."""
    looks_at: tuple[str, ...]
    """The parameters that decide; the rule is for commands that have them."""
    met: Callable[[Mapping[str, Any]], bool]
    """Whether these parameters' values are what the options need."""
    some: bool = False
    """Whether the rule is for commands that have one of the parameters, too."""


_MOVE: Final = (
    *("downtime_limit", "bandwidth_limit", "time", "max_step", "clock_error_limit", "cooperative"),
    *("suspend_limit", "time_limit", "token", "token_file"),
)
_PLACES: Final = ("address", "to", "qmp", "gdb", "console", "at")
"""Where something listens or connects."""


def _given(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda values: any(values[name] for name in names)


def _a_place_is(*schemes: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether one of the places begins so; `defer` may become any."""
    return lambda values: any(str(place or "").startswith((*schemes, "defer")) for place in values.values())


def _a_place_is_open(values: Mapping[str, Any]) -> bool:
    # gdb's is also written without its scheme.
    bare = (values.get(name) or "tls:" for name in ("gdb", "at"))
    return _a_place_is("tcp:")(values) or not all(place.startswith(("tls:", "unix:")) for place in bare)


_RULES: Final = (
    _Rule(("ticks_per_instruction",), "--clock virtual", ("clock",), lambda at: at["clock"] == "virtual"),
    _Rule(("wait", "gdb_time"), "--gdb", ("gdb",), _given("gdb")),
    _Rule(("stay", "object_"), "--qmp", ("qmp",), _given("qmp")),
    _Rule(("log_file",), "--log", ("log",), _given("log")),
    _Rule(
        ("log_size",),
        "--detach or --console file:FILE",
        ("detach", "console"),
        lambda at: at["detach"] or at["console"].startswith("file:"),
    ),
    _Rule(
        ("escape",),
        "a console on the terminal",
        ("detach", "console"),
        lambda at: not at["detach"] and at["console"] in ("", "stdio"),
    ),
    _Rule(("initrd", "append"), "--kernel", ("memory_limit", "kernel"), _given("kernel")),
    _Rule(("changed_disks",), "--disk", ("disk",), _given("disk")),
    _Rule(_MOVE, "the ADDRESS of a destination", ("to",), _given("to")),
    _Rule(("max_step",), "--time catch-up", ("time",), lambda at: at["time"] == "catch-up"),
    _Rule(("suspend_limit",), "--cooperative", ("cooperative",), _given("cooperative")),
    _Rule(("progress",), "--json", ("as_json",), _given("as_json")),
    _Rule(
        ("tls_credentials", "tls_ca", "tls_cert", "tls_key", "tls_hostname", "allow"),
        "a tls: address",
        _PLACES,
        _a_place_is("tls:"),
        some=True,
    ),
    _Rule(("insecure",), "a tcp: address", _PLACES, _a_place_is_open, some=True),
    _Rule(("symbols",), "--attach", ("attach",), _given("attach")),
    _Rule(
        ("arch",), "--program or --initramfs", ("program_", "initramfs_"), _given("program_", "initramfs_")
    ),
    _Rule(
        ("interval",),
        "a table that renews itself",
        ("once", "as_json"),
        lambda at: not at["once"] and not at["as_json"],
    ),
    _Rule(("timeout",), "--prove", ("prove",), _given("prove")),
    _Rule(("limit",), "--code", ("code",), _given("code")),
    _Rule(("packages",), "--linux", ("with_linux",), _given("with_linux")),
)


class CheckedCommand(TyperCommand):
    """A command that refuses options which do nothing as it is called."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; MachineError for an option without what it needs."""
        names = {parameter.name: max(parameter.opts, key=len) for parameter in self.params}
        for rule in _RULES:
            values = {name: ctx.params[name] for name in rule.looks_at if name in names}
            enough = bool(values) if rule.some else len(values) == len(rule.looks_at)
            if not enough or rule.met(values):
                continue
            for option in rule.options:
                if option in names and _is_given(ctx, option):
                    raise MachineError(f"{names[option]} does nothing without {rule.needs}")
        return super().invoke(ctx)


def _is_given(ctx: Any, parameter: str) -> bool:
    """Whether a parameter's value is the user's: of the command line, or of the file of --config."""
    source = ctx.get_parameter_source(parameter)
    return source is not None and source.name in ("COMMANDLINE", "DEFAULT_MAP")
