"""The notation in which QMP's commands, types and events are declared, and what follows from a declaration:
the checks of arguments and the answers to `query-commands` and `query-qmp-schema`.

A type is a builtin's name, the name of a declared one, or `[name]` for an array of it. Words of errors are
QEMU's, because scripts may look for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

_BUILTINS: Final[Mapping[str, tuple[str, str, tuple[type, ...]]]] = {
    "str": ("string", "string", (str,)),
    "int": ("int", "integer", (int,)),
    "number": ("number", "number", (int, float)),
    "bool": ("boolean", "boolean", (bool,)),
    "null": ("null", "null", (type(None),)),
    "any": ("value", "value", (object,)),
}
"""JSON's type as the schema names it, as errors name it, and Python's."""
_INTEGERS: Final = range(-(1 << 63), 1 << 64)
"""Integers with or without a sign, of 64 bits."""
_NOTHING: Final = "0"
"""The name of the object without members, as an argument or an answer."""


class ArgumentError(Exception):
    """Arguments that the schema does not allow: a line for people."""


@dataclass(frozen=True, slots=True)
class Member:
    """A named value in an object: an argument, a field of an answer or of an event."""

    name: str
    type: str
    doc: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Enumeration:
    """A type with listed values, all strings."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Alternate:
    """A type whose values are of one of several builtin types."""

    name: str
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Structure:
    """A type of objects."""

    name: str
    members: tuple[Member, ...]


Declared: TypeAlias = Enumeration | Alternate | Structure
"""A type that is declared by its name."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command. `returns` is the type of its answer; None for an object without members."""

    name: str
    doc: str
    arguments: tuple[Member, ...] = ()
    returns: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """An event, which every client is sent."""

    name: str
    doc: str
    data: tuple[Member, ...] = ()


@dataclass(frozen=True)
class Schema:
    """All that a monitor has, by declaration."""

    commands: tuple[Command, ...]
    events: tuple[Event, ...]
    types: tuple[Declared, ...]
    _types: dict[str, Declared] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._types.update({declared.name: declared for declared in self.types})

    def command(self, name: str) -> Command | None:
        """Return the command of that name, if there is one."""
        return next((command for command in self.commands if command.name == name), None)

    def check(self, command: Command, arguments: Mapping[str, Any]) -> None:
        """ArgumentError unless the command takes these arguments."""
        self._check_members(command.arguments, arguments)

    def introspect(self) -> list[dict[str, Any]]:
        """Return the answer to `query-qmp-schema`: a list of QEMU's `SchemaInfo`."""
        used: dict[str, None] = {_NOTHING: None}
        answer: list[dict[str, Any]] = []

        def members(of: tuple[Member, ...]) -> list[dict[str, Any]]:
            for member in of:
                used[member.type] = None
            return [{"name": m.name, "type": m.type} | ({"default": None} if m.optional else {}) for m in of]

        objects: list[dict[str, Any]] = []

        def anonymous(name: str, of: tuple[Member, ...]) -> str:
            if not of:
                return _NOTHING
            objects.append({"name": name, "meta-type": "object", "members": members(of)})
            return name

        for command in self.commands:
            returns = command.returns or _NOTHING
            used[returns] = None
            arguments = anonymous(f"{command.name}-arg", command.arguments)
            answer.append(
                {"name": command.name, "meta-type": "command", "arg-type": arguments, "ret-type": returns}
            )
        for event in self.events:
            data = anonymous(f"{event.name}-arg", event.data)
            answer.append({"name": event.name, "meta-type": "event", "arg-type": data})
        described: set[str] = set()
        while waiting := [name for name in used if name not in described]:
            for name in waiting:
                described.add(name)
                if name.startswith("["):
                    used[name[1:-1]] = None
                    objects.append({"name": name, "meta-type": "array", "element-type": name[1:-1]})
                elif name in _BUILTINS:
                    objects.append({"name": name, "meta-type": "builtin", "json-type": _BUILTINS[name][0]})
                else:
                    objects.append(self._describe(name, members))
                    if isinstance(declared := self._types.get(name), Alternate):
                        used.update(dict.fromkeys(declared.types))
        return answer + objects

    def _describe(
        self, name: str, members: Callable[[tuple[Member, ...]], list[dict[str, Any]]]
    ) -> dict[str, Any]:
        if name == _NOTHING:
            return {"name": name, "meta-type": "object", "members": []}
        declared = self._types[name]
        if isinstance(declared, Structure):
            return {"name": name, "meta-type": "object", "members": members(declared.members)}
        if isinstance(declared, Alternate):
            types = [{"type": one} for one in declared.types]
            return {"name": name, "meta-type": "alternate", "members": types}
        values = declared.values
        return {
            "name": name,
            "meta-type": "enum",
            "members": [{"name": value} for value in values],
            "values": list(values),
        }

    def _check_members(self, members: tuple[Member, ...], given: Mapping[str, Any], inside: str = "") -> None:
        for member in members:
            if member.name in given:
                self._check(member.type, given[member.name], f"{inside}{member.name}")
            elif not member.optional:
                raise ArgumentError(f"Parameter '{inside}{member.name}' is missing")
        known = {member.name for member in members}
        for name in given:
            if name not in known:
                raise ArgumentError(f"Parameter '{inside}{name}' is unexpected")

    def _check(self, type_: str, value: Any, where: str) -> None:
        if type_.startswith("["):
            _expect(isinstance(value, list), where, "array")
            for number, element in enumerate(value):
                self._check(type_[1:-1], element, f"{where}[{number}]")
        elif type_ in _BUILTINS:
            _expect(_is_of(type_, value), where, _BUILTINS[type_][1])
            if type_ == "int" and value not in _INTEGERS:
                raise ArgumentError(f"Parameter '{where}' expects an integer of 64 bits")
        elif isinstance(declared := self._types[type_], Structure):
            _expect(isinstance(value, dict), where, "object")
            self._check_members(declared.members, value, f"{where}.")
        elif isinstance(declared, Alternate):
            _expect(any(_is_of(one, value) for one in declared.types), where, declared.name)
        else:
            _expect(isinstance(value, str), where, "string")
            if value not in declared.values:
                # QEMU names the member alone here.
                name = where.rpartition(".")[2]
                raise ArgumentError(f"Parameter '{name}' does not accept value '{value}'")


def _is_of(builtin: str, value: Any) -> bool:
    # To Python a truth value is an integer.
    return isinstance(value, _BUILTINS[builtin][2]) and (
        builtin in ("bool", "any") or not isinstance(value, bool)
    )


def _expect(right: bool, where: str, expected: str) -> None:
    if not right:
        raise ArgumentError(f"Invalid parameter type for '{where}', expected: {expected}")
