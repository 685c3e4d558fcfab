"""JSON values that a peer sends one after the other, on lines or with nothing between."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Final, NoReturn

LONGEST: Final = 1 << 18
"""Bytes of one value."""
DEEPEST: Final = 64
"""Objects and arrays in one another."""

_SPACE: Final = b" \t\r\n"
_NEWLINE: Final = ord("\n")
_OPENING: Final = b"{["
_CLOSING: Final = b"}]"
_QUOTE: Final = ord('"')
_BACKSLASH: Final = ord("\\")


class JsonError(ValueError):
    """What a peer sent is no JSON, or longer or deeper than is taken: a line for people."""


class JsonStream:
    """Finds the values in what a peer sends piece by piece; keeps at most `LONGEST` bytes.

    What is not an object or an array extends to the end of its line. After a value that is too long or too
    deep, the rest of the line is passed over.
    """

    def __init__(self) -> None:
        self._value = bytearray()
        self._depth = 0
        self._in_string = self._escaped = self._skipping = False

    def feed(self, data: bytes) -> Iterator[Any | JsonError]:
        """Give each value that ends in `data`, decoded, and a JsonError in the place of each that is none."""
        for byte in data:
            if self._skipping:
                self._skipping = byte != _NEWLINE
            elif ends := self._take(byte):
                yield self._decoded()
            elif ends is None:
                yield self._refused()

    def _take(self, byte: int) -> bool | None:
        """Take one byte: whether a value ends with it; None if the value cannot be taken."""
        value = self._value
        if not value and byte in _SPACE:
            return False
        value.append(byte)
        if len(value) > LONGEST:
            return None
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif byte == _BACKSLASH:
                self._escaped = True
            elif byte == _QUOTE:
                self._in_string = False
            return False
        if not self._depth and len(value) > 1:
            # Something that is neither an object nor an array.
            return byte == _NEWLINE
        if byte in _OPENING:
            self._depth += 1
            return None if self._depth > DEEPEST else False
        if byte in _CLOSING and self._depth:
            self._depth -= 1
            return self._depth == 0
        if byte == _QUOTE and self._depth:
            self._in_string = True
        return False

    def _reset(self) -> bytes:
        value, self._value = bytes(self._value), bytearray()
        self._depth = 0
        self._in_string = self._escaped = False
        return value

    def _refused(self) -> JsonError:
        self._skipping = self._value[-1] != _NEWLINE
        deep = self._depth > DEEPEST
        self._reset()
        if deep:
            return JsonError(f"JSON parse error, more than {DEEPEST} objects and arrays in one another")
        return JsonError(f"JSON parse error, a value of more than {LONGEST} bytes")

    def _decoded(self) -> Any | JsonError:
        try:
            text = self._reset().decode()
            return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        except ValueError as error:
            return JsonError(f"JSON parse error, {error}")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no value of JSON")
