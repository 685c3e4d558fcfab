"""What a client of the monitor asks, from the negotiation on, and what it is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.registers import RegisterError
from chronovisor.machine.control import ControlError
from chronovisor.machine.errors import MachineError
from chronovisor.machine.qmp.json_stream import JsonError
from chronovisor.machine.qmp.schema import ArgumentError, Schema

Implementation: TypeAlias = Callable[[dict[str, Any]], Any]
"""Does a command, given its arguments, and returns its answer; None for an object without members."""

NEGOTIATION: Final = "qmp_capabilities"
_REQUEST: Final = ("execute", "arguments", "id")


class _RequestError(Exception):
    def __init__(self, desc: str, kind: str = "GenericError") -> None:
        super().__init__(desc)
        self.kind = kind


class Session:
    """One client's negotiation and commands, which `implementations` do."""

    def __init__(self, schema: Schema, implementations: Mapping[str, Implementation]) -> None:
        self._schema = schema
        self._implementations = implementations
        self.negotiated = False
        """Whether commands are taken and events are sent."""

    def answer(self, request: Any | JsonError) -> dict[str, Any]:
        """Do what a client asks, and return what it is to be told."""
        identified = {"id": request["id"]} if isinstance(request, dict) and "id" in request else {}
        try:
            return {"return": self._do(request)} | identified
        except _RequestError as error:
            return _failure(error.kind, str(error)) | identified
        except (ArgumentError, ControlError, MachineError, KvmError, RegisterError) as error:
            return _failure("GenericError", str(error)) | identified
        except Exception as error:
            return _failure("GenericError", f"internal error: {type(error).__name__}: {error}") | identified

    def _do(self, request: Any | JsonError) -> Any:
        if isinstance(request, JsonError):
            raise _RequestError(str(request))
        name, arguments = _parse(request)
        if not self.negotiated:
            if name != NEGOTIATION:
                raise _RequestError(
                    f"Expecting capabilities negotiation with '{NEGOTIATION}'", "CommandNotFound"
                )
        elif name == NEGOTIATION:
            raise _RequestError(
                "Capabilities negotiation is already complete, command ignored", "CommandNotFound"
            )
        command = self._schema.command(name)
        if command is None:
            raise _RequestError(f"The command {name} has not been found", "CommandNotFound")
        self._schema.check(command, arguments)
        if name == NEGOTIATION:
            self.negotiated = True
            return {}
        answer = self._implementations[name](arguments)
        return {} if answer is None else answer


def _parse(request: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(request, dict):
        raise _RequestError("QMP input must be a JSON object")
    for member in request:
        if member not in _REQUEST:
            raise _RequestError(f"QMP input member '{member}' is unexpected")
    if "execute" not in request:
        raise _RequestError("QMP input lacks member 'execute'")
    name, arguments = request["execute"], request.get("arguments", {})
    if not isinstance(name, str):
        raise _RequestError("QMP input member 'execute' must be a string")
    if not isinstance(arguments, dict):
        raise _RequestError("QMP input member 'arguments' must be an object")
    return name, arguments


def _failure(kind: str, desc: str) -> dict[str, Any]:
    return {"error": {"class": kind, "desc": desc}}
