"""An object of a command line, as QEMU's `-object` takes it."""

from __future__ import annotations

from typing import Any, Final

from chronovisor.cli.qemu.option import key_values
from chronovisor.machine.errors import MachineError
from chronovisor.machine.qmp.declarations import SCHEMA
from chronovisor.machine.qmp.schema import ArgumentError

_SWITCH: Final = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}


def parse_object(text: str) -> dict[str, Any]:
    """Return the arguments of `object-add` that an object of a command line says, as QEMU's `-object`.

    MachineError for what `object-add` does not take.
    """
    given: dict[str, Any] = dict(key_values(text, "qom-type"))
    if (switch := given.get("verify-peer")) is not None:
        if switch not in _SWITCH:
            raise MachineError("Parameter 'verify-peer' expects 'on' or 'off'")
        given["verify-peer"] = _SWITCH[switch]
    command = SCHEMA.command("object-add")
    assert command is not None
    try:
        SCHEMA.check(command, given)
    except ArgumentError as error:
        raise MachineError(str(error)) from None
    return given
