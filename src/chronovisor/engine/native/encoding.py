"""Where an instruction's operands lie in its record, and how native code comes by each value.

A value is *fixed* if it depends on the instruction's fields alone: it can be computed when the instruction
is decoded. A record has some bytes for small fixed values (register numbers, shift amounts) and some 64-bit
words for wide ones (displacements, masks). A jump's target may depend on the instruction's own address, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from chronovisor.engine.native.layout import RECORD_SIZE, SMALL_COUNT, WIDE_COUNT
from chronovisor.isa.forms import FIELDS, Kind
from chronovisor.isa.operations import PURE
from chronovisor.isa.registers import FILES
from chronovisor.isa.values import Block, Program, Trace, Value, When, mask

#: The name of the operand that is the instruction's own address.
ADDRESS = "CIA"

#: Pure operations that cost less than loading their result from the record.
_FREE = frozenset({"zext", "sext", "extract"})

#: Operations that native code leaves out if nothing needs their result.
_DROPPABLE = PURE | {"read_file", "get"}


class Source(Enum):
    """How native code comes by a value."""

    COMPUTED = "by its operation, from its arguments"
    RECORD = "from the record: a fixed value"
    REGISTER = "from the register whose number is in the record: (RA|0)"
    JUMP = "a jump whose distance is in the record"
    DROPPED = "not at all: nothing in native code needs it"


@dataclass(frozen=True)
class Encoding:
    """How native code comes by each of a program's values.

    ``sources`` is by the ids of the program's own values. A value from the record, or its register's
    number, is at ``places``: in the bytes ("small") or the words ("wide"). The values in ``small`` and
    ``wide`` compute the same from operands. ``target`` is where the program jumps, if operands and ADDRESS
    say. ``jump`` is the place in ``wide`` of the distance to the target's record, in bytes, if the
    program is laid out for a target in its own page.
    """

    small: tuple[Value, ...]
    wide: tuple[Value, ...]
    sources: dict[int, Source]
    places: dict[int, tuple[str, int]]
    target: Value | None
    jump: int | None = None


def register_or_zero(v: Value) -> Value | None:
    """The reading of a register that ``v`` chooses unless the number is 0, if ``v`` is an (RA|0)."""
    if v.op != "select":
        return None
    condition, zero, read = v.args
    if read.op != "read_file" or zero.op != "const" or zero.detail != 0 or condition.op != "eq":
        return None
    number, none = condition.args
    return read if number is read.args[0] and none.op == "const" and none.detail == 0 else None


def bound(value: Value) -> int:
    """An upper bound of a value, found cheaply."""
    most = mask(value.width)
    args = value.args
    if value.op == "const":
        assert isinstance(value.detail, int)
        return value.detail
    if value.op == "operand":
        field = FIELDS.get(str(value.detail))
        signed = field is None or field.kind is Kind.SIGNED
        return most if field is None or signed else mask(field.width) << field.shift
    if value.op == "and":
        return min(map(bound, args))
    if value.op in ("zext", "concat") and all(bound(a) == 0 for a in args[:-1]):
        return bound(args[-1])
    if value.op == "extract":
        assert isinstance(value.detail, int)
        return min(most, bound(args[0]) >> value.detail)
    if value.op == "select":
        return max(bound(args[1]), bound(args[2]))
    if value.op == "sub" and args[0].op == "const" and bound(args[1]) <= bound(args[0]):
        return bound(args[0])
    if value.op == "lshr" and args[1].op == "const":
        return bound(args[0]) >> bound(args[1])
    if value.op == "shl" and args[1].op == "const":
        return min(most, bound(args[0]) << bound(args[1]))
    return most


def _conditions(block: Block) -> Iterator[Value]:
    for statement in block:
        if isinstance(statement, When):
            yield statement.condition
            yield from _conditions(statement.body)


class _Layout:
    """A program on its way to an encoding."""

    def __init__(self, program: Program, near: bool) -> None:
        self.name = program.name
        self._fixed: set[int] = set()
        #: Values that depend on operands and the instruction's address.
        self._located: set[int] = set()
        #: Fixed values that native code loads, and (RA|0)s for which it loads their register's number.
        self._roots: dict[int, Value] = {}
        self._bases: dict[int, Value] = {}
        self._sources: dict[int, Source] = {}
        self._seen: set[int] = set()
        self._at_decode = Trace()
        starts = list(_conditions(program.body))
        targets = []
        for v in program.statements():
            if self._is_made_of(v, self._fixed):
                self._fixed.add(id(v))
            if (v.op == "get" and v.detail in ("CIA", "NIA")) or self._is_made_of(v, self._located):
                self._located.add(id(v))
            jumps = v.op == "set" and v.detail == "NIA"
            targets += [v.args[0]] if jumps else []
            if v.op in _DROPPABLE:
                self._sources[id(v)] = Source.DROPPED
            elif jumps and near:
                self._sources[id(v)] = Source.JUMP
            else:
                self._sources[id(v)] = Source.COMPUTED
                starts += v.args
        for v in starts:
            self._need(v)
        known = len(targets) == 1 and id(targets[0]) in self._located
        self._target = self._computed_at_decode(targets[0]) if known else None
        self.encoding = self._placed(near)
        for v in starts:
            self._settle(v)

    @staticmethod
    def _is_made_of(v: Value, known: set[int]) -> bool:
        return v.op in PURE and v.width <= 64 and all(id(a) in known for a in v.args)

    def _need(self, v: Value) -> None:
        """Note what native code loads from the record in order to have ``v``."""
        if id(v) in self._seen:
            return
        self._seen.add(id(v))
        read = register_or_zero(v)
        if id(v) in self._fixed:
            self._load(v)
        elif read is not None and id(read.args[0]) in self._fixed:
            self._bases[id(v)] = v
        else:
            for a in v.args:
                self._need(a)

    def _load(self, v: Value) -> None:
        """Note that native code loads a fixed value, or what the value is cheaply made of."""
        if not self._varies(v):
            return
        if v.op in _FREE:
            self._load(v.args[0])
        else:
            self._roots[id(v)] = v

    def _settle(self, v: Value) -> None:
        """Decide how native code comes by a value that it needs, once all have found their places."""
        if self._sources[id(v)] is not Source.DROPPED:
            return
        if id(v) in self._bases:
            self._sources[id(v)] = Source.REGISTER
        elif id(v) in self._roots:
            self._sources[id(v)] = Source.RECORD
        else:
            self._sources[id(v)] = Source.COMPUTED
            for a in v.args:
                self._settle(a)

    def _varies(self, v: Value) -> bool:
        """Whether a fixed value differs between instructions."""
        return v.op == "operand" or any(map(self._varies, v.args))

    def _cost(self, v: Value) -> int:
        """How much there is to compute."""
        return 1 + sum(map(self._cost, v.args)) if v.args and self._varies(v) else 0

    def _computed_at_decode(self, v: Value) -> Value:
        """The same value with the instruction's address as an operand."""
        t = self._at_decode
        if v.op == "get":
            here = t.emit("operand", 64, (), ADDRESS)
            return here if v.detail == "CIA" else here + 4
        return t.emit(v.op, v.width, tuple(map(self._computed_at_decode, v.args)), v.detail)

    def _number(self, v: Value) -> Value:
        """The number of the register that (RA|0) chooses; that of the file's zero register for 0."""
        read = register_or_zero(v)
        assert read is not None
        number = self._computed_at_decode(read.args[0])
        t = self._at_decode
        zero = t.const(FILES[str(read.detail)].count, 64)
        return t.emit("select", 64, (number.eq(0), zero, number))

    def _placed(self, near: bool) -> Encoding:
        """Find a place for each root. One that finds none is computed: its arguments are roots instead."""
        small: list[Value] = []
        wide: list[Value] = []
        places: dict[int, tuple[str, int]] = {}
        for key, v in self._bases.items():
            places[key] = ("small", len(small))
            small.append(self._number(v))
        if near:
            assert self._target is not None, f"{self.name} has no target that is known"
            distance = self._target - self._at_decode.emit("operand", 64, (), ADDRESS)
            wide.append(distance * (RECORD_SIZE // 4))
        while True:
            narrow = [v for v in self._roots.values() if bound(v) <= 0xFF]
            large = [v for v in self._roots.values() if bound(v) > 0xFF]
            crowded = large if len(wide) + len(large) > WIDE_COUNT else narrow
            if crowded is narrow and len(small) + len(narrow) <= SMALL_COUNT:
                break
            cheapest = min((v for v in crowded if v.args), key=self._cost, default=None)
            if cheapest is None:
                raise ValueError(f"{self.name}: its operands do not fit an instruction record")
            del self._roots[id(cheapest)]
            for a in cheapest.args:
                self._load(a)
        for v in narrow:
            places[id(v)] = ("small", len(small))
            small.append(self._computed_at_decode(v))
        for v in large:
            places[id(v)] = ("wide", len(wide))
            wide.append(self._computed_at_decode(v))
        jump = 0 if near else None
        return Encoding(tuple(small), tuple(wide), self._sources, places, self._target, jump)


def encoding(program: Program, near: bool = False) -> Encoding:
    """Lay out a program's operands; ValueError if they do not fit.

    ``near``: for a program whose target is in the same page.
    """
    return _Layout(program, near).encoding
