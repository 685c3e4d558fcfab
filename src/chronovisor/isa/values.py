"""Abstract values: what an instruction's meaning computes with.

A meaning runs once, over :class:`Value` objects that remember how they were made; what it did is
kept as a :class:`Program`. Each evaluator in ``chronovisor.engine`` gives every operation of
:data:`OPERATIONS` a reading of its own: Python source over ints, z3 terms, machine code. The table
is the contract: a test fails if an evaluator lacks one of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeAlias

from chronovisor.isa.source_lines import NOTATION, caller

#: Every operation, with what it means. Operands are unsigned, of the stated widths in bits.
OPERATIONS: dict[str, str] = {
    # pure: the same operands always give the same result
    "const": "the number `detail`",
    "operand": "the instruction's field named `detail`, 64 bits (signed fields are sign-extended)",
    "add": "a + b, modulo 2^width",
    "sub": "a - b, modulo 2^width",
    "mul": "a * b, modulo 2^width",
    "udiv": "a // b, unsigned; 0 if b is 0",
    "urem": "a mod b, unsigned; 0 if b is 0",
    "sdiv": "a / b, signed, truncated; 0 if b is 0, a if it overflows",
    "srem": "the remainder that goes with sdiv; 0 if b is 0 or it overflows",
    "and": "bitwise and",
    "or": "bitwise or",
    "xor": "bitwise exclusive or",
    "not": "bitwise complement",
    "shl": "a << b; 0 if b >= width",
    "lshr": "a >> b, zeros shifted in; 0 if b >= width",
    "ashr": "a >> b, the sign shifted in; all sign if b >= width",
    "eq": "1 bit: a = b",
    "ult": "1 bit: a < b, unsigned",
    "slt": "1 bit: a < b, signed",
    "select": "b if the 1-bit a is 1, else c",
    "zext": "a with zeros above it, up to width",
    "sext": "a with its sign above it, up to width",
    "extract": "`width` bits of a from bit `detail` up (0 is the least significant)",
    "concat": "a above b",
    "clz": "the number of zeros above a's highest one; its width if a is 0",
    "ctz": "the number of zeros below a's lowest one; its width if a is 0",
    "popcount": "the number of ones in a",
    "byteswap": "a with its bytes in reverse order; its width is a multiple of 8",
    "permute": "for each byte of b the byte of a whose number, from the right, its low four bits give",
    "ieee": "the IEEE arithmetic that `detail` names (isa/ieee): its result, what it raises of FPSCR above",
    "lane": "within the function of an `each`: the present lane of the operand number `detail`",
    "each": "the function `detail` of each lane of the operands, with its results side by side",
    # state: in the order in which the program lists them
    "read_file": "register number a of the register file named `detail`",
    "write_file": "register number a of the register file named `detail` becomes b",
    "get": "the register named `detail`",
    "set": "the register named `detail` becomes a",
    "read_live": "the present value of the register named `detail`, which moves by itself",
    "write_live": "the register named `detail`, which moves by itself, becomes a",
    "load": "the `width` bits in memory at effective address a, in the thread's byte order",
    "store": "memory at effective address a becomes b, in the thread's byte order",
    "load_reserved": "as load, and makes a reservation of the place",
    "store_conditional": "1 bit: as store and 1 if the reservation holds, else 0; it ends the reservation",
    "invalidate_code": "instructions of the block at effective address a are fetched from memory again",
    "zero_block": "the cache block that holds effective address a becomes zeros",
    "probe": "check the access that `detail` names ('load' or 'store') to the byte at a; do not make it",
    "barrier": "order accesses: all ('full'), or all but a store and a later load ('light')",
    "random": "64 random bits",
    "load_real": "the `width` bits in memory at real address a, big-endian; 0 if they lie outside memory",
    "update_real": "the big-endian doubleword at real address a becomes c if it is b; else start anew",
    "store_real": "the big-endian doubleword at real address a becomes b, if there is memory",
    "translated": "the address that was asked for is real address a, in a page of 2^b bytes, which may be "
    "loaded from if c",
    "new_context": "the register named `detail` changed, which address translation depends on",
    "forget_translations": "every thread ('all') or this one ('own') forgets what it translated for process "
    "a, or for all if a is all ones, in the effective pages of 4 KiB from b to c; the instruction ends",
    "await_invalidations": "what this thread had others forget is not used any more",
    "read_shared": "the word number `detail` of those that the thread shares with its hypervisor",
    "exchange_shared": "1 bit: the shared word number `detail` was a, and becomes b in one step; else 0",
    "init_page": "1 bit: there is memory at real address a, and its page of 4 KiB becomes zeros ('zero') or "
    "what the page at b is ('copy'), where memory must be too; else 0, and nothing changes",
    "set_words": "1 bit: the table of words number a, which hypercalls set, has c words from word b on, and "
    "they become d ('fill') or the big-endian doublewords at real address d ('copy'), where memory must be; "
    "else 0, and nothing changes",
    "read_word": "word b of the table of words number a; 0 if there is none",
    "exchange_word": "1 bit: word b of the table of words number a was c, and becomes d in one step; else 0",
    "host_io": "how many bytes the machine has moved at once between d bytes of memory at real address c and "
    "its file with the descriptor a, from offset b on ('read', 'write'), or to a connection, behind the 4 "
    "bytes of b unless b is all ones ('send'); another number if it cannot, or if it may have read over code",
    "decline": "the program ends, and the hypervisor does what it was for; it has changed nothing",
    "interrupt": "the instruction ends in the interrupt `detail`, a are SRR1's bits for its cause",
    "resync": "the machine state is looked at again before the next instruction",
}

#: Operations whose result depends only on their operands.
PURE = frozenset(list(OPERATIONS)[: list(OPERATIONS).index("read_file")])

#: Operations that yield no value.
EFFECTS = frozenset(
    {
        *("write_file", "set", "write_live", "store", "invalidate_code", "zero_block", "probe", "barrier"),
        *(
            "update_real",
            "store_real",
            "translated",
            "new_context",
            "forget_translations",
            "await_invalidations",
        ),
        *("interrupt", "resync", "decline"),
    }
)


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
