"""`--config FILE`: a command's options from a TOML file. What is on the command line counts more."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeAlias

import typer

from chronovisor.machine.errors import MachineError
from chronovisor.machine.files import FileError, read_regular

_LARGEST: Final = 1 << 20
"""Bytes."""


def _take(context: typer.Context, path: str) -> str:
    """Make what is in the file the defaults of the options that come later."""
    if path:
        context.default_map = _defaults(context.command.params, path)
    return path


Config: TypeAlias = Annotated[
    str,
    typer.Option(
        help="Take options from a TOML file: their names as keys, and image. Options of the command line "
        "count more.",
        metavar="FILE",
        is_eager=True,
        callback=_take,
    ),
]


def _defaults(parameters: Sequence[Any], path: str) -> dict[str, Any]:
    """Return the file's values by the names of a command's parameters (typer's). MachineError for what makes
    no sense.
    """
    try:
        given = tomllib.loads(read_regular(path, _LARGEST).decode())
    except FileError as error:
        raise MachineError(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise MachineError(f"{path}: it is no text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise MachineError(f"{path}: {error}") from None
    known = {max(parameter.opts, key=len).lstrip("-"): parameter for parameter in parameters}
    found = {}
    for key, value in given.items():
        parameter = known.get(key)
        if parameter is None or key in ("config", "help"):
            raise MachineError(f"{path}: there is no option --{key}")
        found[parameter.name] = _value(f"{path}: {key}", parameter, value)
    return found


def _value(what: str, parameter: Any, value: Any) -> Any:
    if getattr(parameter, "multiple", False):
        return [_text(what, one) for one in (value if isinstance(value, list) else [value])]
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise MachineError(f"{what} is true or false")
        return value
    return _text(what, value)


def _text(what: str, value: Any) -> str:
    """A value as it would be on the command line."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise MachineError(f"{what} is a text or a number")
    return str(value)
