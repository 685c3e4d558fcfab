"""QMP's protocol, without a guest: the stream of JSON, the checks of requests, the schema."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from chronovisor.machine.qmp import json_stream
from chronovisor.machine.qmp.declarations import SCHEMA
from chronovisor.machine.qmp.json_stream import DEEPEST, LONGEST, JsonError, JsonStream
from chronovisor.machine.qmp.schema import Structure
from chronovisor.machine.qmp.session import Session

QEMU_ANSWERS = [
    (
        '{"execute":"qmp_capabilities","id":7}',
        "CommandNotFound",
        "Capabilities negotiation is already complete, command ignored",
    ),
    ('{"execute":"nope","id":3}', "CommandNotFound", "The command nope has not been found"),
    ("42", "GenericError", "QMP input must be a JSON object"),
    ("[1]", "GenericError", "QMP input must be a JSON object"),
    ('{"execute":"stop","arguments":{"x":1}}', "GenericError", "Parameter 'x' is unexpected"),
    ('{"execute":"stop","foo":1}', "GenericError", "QMP input member 'foo' is unexpected"),
    ('{"execute":1}', "GenericError", "QMP input member 'execute' must be a string"),
    ('{"x":1}', "GenericError", "QMP input member 'x' is unexpected"),
    ("{}", "GenericError", "QMP input lacks member 'execute'"),
    (
        '{"execute":"stop","arguments":3}',
        "GenericError",
        "QMP input member 'arguments' must be an object",
    ),
    ('{"execute":"migrate"}', "GenericError", "Parameter 'uri' is missing"),
    (
        '{"execute":"migrate","arguments":{"uri":4}}',
        "GenericError",
        "Invalid parameter type for 'uri', expected: string",
    ),
    (
        '{"execute":"migrate-set-parameters","arguments":{"nope":100}}',
        "GenericError",
        "Parameter 'nope' is unexpected",
    ),
]
"""Requests, and what qemu-system-ppc64 7.2 answered each of them after the negotiation."""


def done(given: dict[str, Any]) -> dict[str, Any]:
    return {"did": given}


def session() -> Session:
    return Session(SCHEMA, {command.name: done for command in SCHEMA.commands})


def negotiated() -> Session:
    made = session()
    assert made.answer({"execute": "qmp_capabilities"}) == {"return": {}}
    return made


def fed(data: bytes, *cuts: int) -> list[Any]:
    stream, ends = JsonStream(), [*sorted(cuts), len(data)]
    return [
        value for start, end in zip([0, *ends], ends, strict=False) for value in stream.feed(data[start:end])
    ]


@pytest.mark.parametrize(("request_", "kind", "desc"), QEMU_ANSWERS)
def test_errors_are_qemus(request_: str, kind: str, desc: str) -> None:
    (value,) = fed(request_.encode() + b"\n")
    expected = {"error": {"class": kind, "desc": desc}}
    identified = {"id": value["id"]} if isinstance(value, dict) and "id" in value else {}
    assert negotiated().answer(value) == expected | identified


@pytest.mark.parametrize("number", [1 << 64, -1 - (1 << 63), 10**100])
def test_a_number_of_more_than_64_bits_is_refused(number: int) -> None:
    request = {"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": number}}
    error = negotiated().answer(request)["error"]
    assert "64 bits" in error["desc"]
    assert len(error["desc"]) < 100


def test_nothing_is_done_before_the_negotiation() -> None:
    answer = session().answer({"execute": "stop", "id": [1]})
    assert answer["error"]["class"] == "CommandNotFound"
    assert answer["id"] == [1]


def test_values_are_found_wherever_the_pieces_end() -> None:
    values = [{"a": ["}", '"{', "\\"]}, [], [[{}]], {"b": "ü\n", "c": 1.5}, 42, "x", None]
    for separator in (b"\n", b"\r\n", b"\n \n"):
        data = separator.join(json.dumps(value).encode() for value in values) + separator
        draw = random.Random(0)
        for _ in range(100):
            assert fed(data, *draw.sample(range(len(data)), 5)) == values
    assert fed(b'{"a":1}{"b":2}[3] {"c":4}') == [{"a": 1}, {"b": 2}, [3], {"c": 4}]


@pytest.mark.parametrize(
    "wrong",
    [
        b"hello", b"{]", b"}", b'{"a":NaN}', b'{"a":1e999}', b'{"a":"\xff"}', b'{"a":' + b"1" * 5000 + b"}",
        b"[" * (DEEPEST + 1), b'{"a":' * 100_000, b'"' + b"x" * LONGEST, b'{"' + b"[" * (2 * LONGEST),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_error_and_the_next_line_is_taken(wrong: bytes) -> None:
    first, *rest = fed(wrong + b'\n{"execute":"stop"}\n')
    assert isinstance(first, JsonError)
    assert str(first).startswith("JSON parse error, ")
    assert "\n" not in str(first)
    assert rest == [{"execute": "stop"}]


def test_rubbish_ends_in_errors_and_keeps_little() -> None:
    draw, stream, errors = random.Random(1), JsonStream(), 0
    made = negotiated()
    for _ in range(300):
        piece = bytes(draw.choice(b'{}[]",:\\ \nexecut1\xff') for _ in range(500))
        errors += sum("error" in made.answer(value) for value in stream.feed(piece))
    assert errors > 100
    assert len(stream._value) <= json_stream.LONGEST


def test_the_schema_refers_to_nothing_that_it_lacks() -> None:
    described = {
        (info["meta-type"] in ("command", "event"), info["name"]): info for info in SCHEMA.introspect()
    }
    assert len(described) == len(SCHEMA.introspect())
    looked_up = 0
    for info in described.values():
        names = [info[key] for key in ("arg-type", "ret-type", "element-type") if key in info]
        if info["meta-type"] == "object":
            names += [member["type"] for member in info["members"]]
        for name in names:
            assert (False, name) in described
            looked_up += 1
    assert looked_up > 60
    commands = {
        name for (is_call, name), info in described.items() if is_call and info["meta-type"] == "command"
    }
    assert commands == {command.name for command in SCHEMA.commands}
    # Every declared type is used.
    assert {type_.name for type_ in SCHEMA.types} <= {name for _, name in described}
    assert any(isinstance(type_, Structure) for type_ in SCHEMA.types)
