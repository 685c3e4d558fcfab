"""Abstract values: what an instruction's meaning computes with.

A meaning runs once, over :class:`Value` objects that remember how they were made; what it did is
kept as a :class:`Program`, which each evaluator in ``chronovisor.engine`` reads in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeAlias

from chronovisor.isa.operations import PURE
from chronovisor.isa.source_lines import NOTATION, caller


def mask(width: int) -> int:
    """``width`` ones."""
    return (1 << width) - 1


Operand: TypeAlias = "Value | int"
Detail: TypeAlias = "int | str | LaneFunction | None"


NOTATION.add(__file__)


class Value:
    """One operation's result: ``width`` bits. An effect has no result; its width is 0.

    Operators work on values of one width, or with a plain int, and give that width. Comparisons are
    methods, because ``<`` would hide whether it is signed. A value has no truth: a meaning that
    branches in Python on what is known only when the guest runs is a mistake, and raises TypeError.
    """

    __slots__ = ("_made_at", "args", "detail", "op", "trace", "width")

    def __init__(self, trace: Trace, op: str, width: int, args: tuple[Value, ...], detail: Detail) -> None:
        self.trace = trace
        self.op = op
        self.width = width
        self.args = args
        self.detail = detail
        self._made_at = caller()

    @property
    def line(self) -> str:
        """The line that made the value, as file:line: a line of a meaning, not of its notation."""
        code, number = self._made_at
        return f"{Path(code.co_filename).name}:{number}"

    def __bool__(self) -> NoReturn:
        raise TypeError("a value is known only when the guest runs: use m.when(…) or m.select(…), not `if`")

    def __repr__(self) -> str:
        return f"<{self.op}:{self.width} {self.detail if self.detail is not None else ''}>"

    def _binary(self, op: str, other: Operand, width: int | None = None) -> Value:
        return self.trace.binary(op, self, other, width)

    def _reversed(self, op: str, other: int) -> Value:
        return self.trace.binary(op, self.trace.const(other, self.width), self, None)

    def __add__(self, other: Operand) -> Value:
        return self._binary("add", other)

    __radd__ = __add__

    def __sub__(self, other: Operand) -> Value:
        return self._binary("sub", other)

    def __rsub__(self, other: int) -> Value:
        return self._reversed("sub", other)

    def __mul__(self, other: Operand) -> Value:
        return self._binary("mul", other)

    def __and__(self, other: Operand) -> Value:
        return self._binary("and", other)

    __rand__ = __and__

    def __or__(self, other: Operand) -> Value:
        return self._binary("or", other)

    __ror__ = __or__

    def __xor__(self, other: Operand) -> Value:
        return self._binary("xor", other)

    __rxor__ = __xor__

    def __invert__(self) -> Value:
        return self.trace.emit("not", self.width, (self,))

    def __neg__(self) -> Value:
        return self._reversed("sub", 0)

    def __lshift__(self, other: Operand) -> Value:
        return self._binary("shl", other)

    def __rlshift__(self, other: int) -> Value:
        return self._reversed("shl", other)

    def __rshift__(self, other: Operand) -> Value:
        """Logical: zeros come in."""
        return self._binary("lshr", other)

    def __rrshift__(self, other: int) -> Value:
        return self._reversed("lshr", other)

    def ashr(self, other: Operand) -> Value:
        """Shifted right with the sign coming in."""
        return self._binary("ashr", other)

    def udiv(self, other: Operand) -> Value:
        """Unsigned quotient; 0 for a zero divisor."""
        return self._binary("udiv", other)

    def urem(self, other: Operand) -> Value:
        """Unsigned remainder; 0 for a zero divisor."""
        return self._binary("urem", other)

    def sdiv(self, other: Operand) -> Value:
        """Signed quotient, truncated; 0 for a zero divisor."""
        return self._binary("sdiv", other)

    def srem(self, other: Operand) -> Value:
        """Signed remainder; 0 for a zero divisor."""
        return self._binary("srem", other)

    def eq(self, other: Operand) -> Value:
        """1 bit: equal."""
        return self._binary("eq", other, 1)

    def ne(self, other: Operand) -> Value:
        """1 bit: different."""
        return ~self.eq(other)

    def ult(self, other: Operand) -> Value:
        """1 bit: below, unsigned."""
        return self._binary("ult", other, 1)

    def slt(self, other: Operand) -> Value:
        """1 bit: less, signed."""
        return self._binary("slt", other, 1)

    def ugt(self, other: Operand) -> Value:
        """1 bit: above, unsigned."""
        return self.trace.value(other, self.width).ult(self)

    def sgt(self, other: Operand) -> Value:
        """1 bit: greater, signed."""
        return self.trace.value(other, self.width).slt(self)

    def extract(self, low: int, width: int) -> Value:
        """``width`` bits from bit ``low`` up, counted from the least significant."""
        if low < 0 or width < 1 or low + width > self.width:
            raise ValueError(f"bits {low}..{low + width - 1} are not within {self.width} bits")
        if width == self.width:
            return self
        return self.trace.emit("extract", width, (self,), low)

    def trunc(self, width: int) -> Value:
        """The low ``width`` bits."""
        return self.extract(0, width)

    def bit(self, number: int, of: int = 64) -> Value:
        """1 bit, numbered as the book does: 0 is the most significant of the low ``of`` bits."""
        return self.extract(of - 1 - number, 1)

    def zext(self, width: int) -> Value:
        """Widened with zeros."""
        return self if width == self.width else self.trace.emit("zext", width, (self,))

    def sext(self, width: int) -> Value:
        """Widened with the sign."""
        return self if width == self.width else self.trace.emit("sext", width, (self,))

    def clz(self) -> Value:
        """Leading zeros, in as many bits as the value."""
        return self.trace.emit("clz", self.width, (self,))

    def ctz(self) -> Value:
        """Trailing zeros, in as many bits as the value."""
        return self.trace.emit("ctz", self.width, (self,))

    def popcount(self) -> Value:
        """The number of ones, in as many bits as the value."""
        return self.trace.emit("popcount", self.width, (self,))

    def permute(self, selectors: Value) -> Value:
        """For each byte of ``selectors`` the byte of the value whose number its low four bits give.

        Both are 128 bits. Bytes count from the right.
        """
        return self.trace.emit("permute", self.width, (self, selectors))

    def byteswap(self) -> Value:
        """The bytes in reverse order."""
        return self.trace.emit("byteswap", self.width, (self,))


@dataclass(slots=True)
class When:
    """Statements that happen only if the 1-bit ``condition`` is 1."""

    condition: Value
    body: list[Value | When] = field(default_factory=list)


Block: TypeAlias = "list[Value | When]"


@dataclass(frozen=True, slots=True, eq=False)
class LaneFunction:
    """What an `each` does with lanes of ``width`` bits: pure operations, the last of which is the result."""

    width: int
    body: list[Value]
    result: Value


@dataclass(frozen=True, slots=True)
class Program:
    """What a meaning does: statements in order, each value made before it is used."""

    name: str
    operands: tuple[str, ...]
    body: Block

    def statements(self) -> Iterator[Value]:
        """All statements, those under conditions included."""

        def walk(block: Block) -> Iterator[Value]:
            for statement in block:
                if isinstance(statement, When):
                    yield from walk(statement.body)
                else:
                    yield statement

        return walk(self.body)


class Trace:
    """Records what a meaning does while it runs."""

    def __init__(self) -> None:
        self.body: Block = []
        self._block = self.body
        # Equal pure values of one block (or of a block around it) are one value.
        self._known: list[dict[tuple[object, ...], Value]] = [{}]

    def emit(self, op: str, width: int, args: tuple[Value, ...] = (), detail: Detail = None) -> Value:
        """Append one operation and return its value."""
        if op in PURE:
            key = (op, width, detail, *map(id, args))
            for known in reversed(self._known):
                if key in known:
                    return known[key]
            value = Value(self, op, width, args, detail)
            self._known[-1][key] = value
        else:
            value = Value(self, op, width, args, detail)
        self._block.append(value)
        return value

    def const(self, number: int, width: int) -> Value:
        """A constant, taken modulo 2^width."""
        return self.emit("const", width, (), number & mask(width))

    def value(self, operand: Operand, width: int) -> Value:
        """``operand`` as a value of ``width`` bits; ValueError if it has another width."""
        if isinstance(operand, int):
            return self.const(operand, width)
        if operand.width != width:
            raise ValueError(f"{operand!r} has {operand.width} bits, but {width} are needed")
        return operand

    def binary(self, op: str, left: Value, right: Operand, width: int | None) -> Value:
        """An operation on two values of one width."""
        other = self.value(right, left.width)
        return self.emit(op, left.width if width is None else width, (left, other))

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """Statements made inside happen only if ``condition`` (1 bit) is 1."""
        guarded = When(self.value(condition, 1))
        self._block.append(guarded)
        outer, self._block = self._block, guarded.body
        self._known.append({})
        try:
            yield
        finally:
            self._block = outer
            self._known.pop()

    def each(self, width: int, function: Callable[..., Value], *operands: Value) -> Value:
        """``function`` of each lane of ``width`` bits of operands of one width; the results side by side.

        The function gets a lane of each operand and computes with nothing else that was traced.
        """
        whole = operands[0].width
        if any(operand.width != whole for operand in operands) or whole % width:
            raise ValueError(f"{list(operands)} do not have as many lanes of {width} bits")
        block, known = self._block, self._known
        body: Block = []
        self._block, self._known = body, [{}]
        try:
            lanes = [self.emit("lane", width, (), number) for number in range(len(operands))]
            result = function(*lanes)
        finally:
            self._block, self._known = block, known
        made = [statement for statement in body if isinstance(statement, Value)]
        if len(made) < len(body) or any(statement.op not in PURE for statement in made):
            raise ValueError("a function of lanes has neither conditions nor effects: use m.select(…)")
        lane_function = LaneFunction(width, made, result)
        return self.emit("each", whole // width * result.width, operands, lane_function)

    def program(self, name: str, operands: tuple[str, ...]) -> Program:
        """What has been recorded."""
        return Program(name, operands, self.body)


Meaning: TypeAlias = Callable[..., None]
