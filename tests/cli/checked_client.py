"""QMP's own client from PyPI, which holds every answer and event against what `query-qmp-schema` says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qemu.qmp import QMPClient

BUILTIN: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "int": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "value": (object,),
}
"""JSON's types by their names in SchemaInfo (QEMU's qapi/introspect.json)."""


class CheckedClient(QMPClient):
    """A client whose commands fail an assertion if the answer is not what the schema promises."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._types: dict[str, dict[str, Any]] = {}
        self._returns: dict[str, str] = {}
        self._data: dict[str, str] = {}
        self.checked = 0
        """How many answers and events were held against the schema."""

    async def execute(
        self, cmd: str, arguments: Mapping[str, object] | None = None, oob: bool = False
    ) -> Any:
        """Execute a command, and check its answer."""
        if not self._types:
            self._learn(await super().execute("query-qmp-schema"))
        answer = await super().execute(cmd, arguments, oob)
        self._check(self._returns[cmd], answer, cmd)
        self.checked += 1
        return answer

    def check_event(self, event: Mapping[str, Any]) -> None:
        """Check an event's data."""
        self._check(self._data[event["event"]], event.get("data", {}), event["event"])
        self.checked += 1

    def _learn(self, schema: Any) -> None:
        for info in schema:
            if info["meta-type"] == "command":
                self._returns[info["name"]] = info["ret-type"]
            elif info["meta-type"] == "event":
                self._data[info["name"]] = info["arg-type"]
            else:
                self._types[info["name"]] = info

    def _check(self, name: str, value: Any, where: str) -> None:
        info = self._types[name]
        match info["meta-type"]:
            case "builtin":
                kinds = BUILTIN[info["json-type"]]
                assert isinstance(value, kinds), f"{where}: {value!r} is no {name}"
                assert not isinstance(value, bool) or {bool, object} & set(kinds), (
                    f"{where}: {value} is no {name}"
                )
            case "array":
                assert isinstance(value, list), f"{where}: {value!r} is no array"
                for number, element in enumerate(value):
                    self._check(info["element-type"], element, f"{where}[{number}]")
            case "enum":
                assert value in info["values"], f"{where}: {value!r} is none of {name}"
            case "object":
                members = {member["name"]: member for member in info["members"]}
                assert value.keys() <= members.keys(), f"{where}: {name} has other members"
                needed = {member for member, has in members.items() if "default" not in has}
                assert needed <= value.keys(), f"{where}: members of {name} are missing"
                for member, inner in value.items():
                    self._check(members[member]["type"], inner, f"{where}.{member}")
            case other:
                raise AssertionError(f"{where}: {other}")
