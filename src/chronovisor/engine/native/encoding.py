"""Where an instruction's operands lie in its record: what is known at decode time is computed there.

A value is *fixed* where it depends on the instruction's fields and its own address alone. A record has
some bytes for small fixed values (register numbers, shift amounts) and some 64-bit words for wide ones
(displacements, masks, branch targets).
"""

from __future__ import annotations

from dataclasses import dataclass

from chronovisor.engine.native.layout import RECORD_SIZE, SMALL_COUNT, WIDE_COUNT, ZERO_REGISTER
from chronovisor.isa.forms import FIELDS, Kind
from chronovisor.isa.values import PURE, Block, Program, Trace, Value, When, mask

#: The name of the operand that is the instruction's own address.
ADDRESS = "CIA"

#: A pure operation that is cheaper done anew than loaded.
_FREE = frozenset({"zext", "sext", "extract"})


@dataclass(frozen=True)
class Encoding:
    """A program's fixed values by the places that they have in a record.

    The keys of ``places`` are the ids of the program's own values; the values in ``small`` and ``wide``
    compute the same from operands and ADDRESS. ``target`` is where the program jumps, if that is fixed;
    ``jump`` is the place in ``wide`` of the distance to the target's record, in bytes, where the program is
    laid out for a target in its own page.
    """

    small: tuple[Value, ...]
    wide: tuple[Value, ...]
    places: dict[int, tuple[str, int]]
    target: Value | None
    jump: int | None = None


def bound(value: Value) -> int:
    """The largest number that a value can be, as far as can be told cheaply."""
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


class _Layout:
    """A program's fixed values, and the places found for them."""

    def __init__(self, program: Program, near: bool) -> None:
        self.program = program
        self.near = near
        self.fixed: dict[int, Value] = {}
        self.roots: dict[int, Value] = {}
        self.bases: dict[int, Value] = {}
        self.targets: list[Value] = []
        self._at_decode = Trace()
        self._walk(program.body)

    def _walk(self, block: Block) -> None:
        for v in block:
            if isinstance(v, When):
                self._use(v.condition)
                self._walk(v.body)
            elif self._is_fixed(v):
                self.fixed[id(v)] = v
            elif v.op == "gpr_or_zero" and id(v.args[0]) in self.fixed:
                self.bases[id(v)] = v
            else:
                jump = v.op == "set" and v.detail == "NIA"
                if jump:
                    self.targets.append(v.args[0])
                for a in () if jump and self.near else v.args:
                    self._use(a)

    def _is_fixed(self, v: Value) -> bool:
        if v.op == "get":
            return v.detail in ("CIA", "NIA")
        return v.op in PURE and v.width <= 64 and all(id(a) in self.fixed for a in v.args)

    def _use(self, v: Value) -> None:
        """Note that native code needs a fixed value: one to load, or to make of one to load."""
        if id(v) not in self.fixed or not self.varies(v):
            return
        if v.op in _FREE:
            self._use(v.args[0])
        else:
            self.roots[id(v)] = v

    def varies(self, v: Value) -> bool:
        """Whether a fixed value differs between instructions."""
        return v.op in ("operand", "get") or any(map(self.varies, v.args))

    def cost(self, v: Value) -> int:
        """How much there is to compute."""
        return 1 + sum(map(self.cost, v.args)) if v.args and self.varies(v) else 0

    def at_decode(self, v: Value) -> Value:
        """The same value with the instruction's address as an operand."""
        t = self._at_decode
        if v.op == "get":
            here = t.emit("operand", 64, (), ADDRESS)
            return here if v.detail == "CIA" else here + 4
        return t.emit(v.op, v.width, tuple(map(self.at_decode, v.args)), v.detail)

    def base(self, v: Value) -> Value:
        """The number of the register that (RA|0) names."""
        number = self.at_decode(v.args[0])
        t = self._at_decode
        return t.emit("select", 64, (number.eq(0), t.const(ZERO_REGISTER, 64), number))

    def places(self) -> Encoding:
        """Find places; what finds none is computed when it is needed."""
        small: list[Value] = []
        wide: list[Value] = []
        found: dict[int, tuple[str, int]] = {}
        for key, v in self.bases.items():
            found[key] = ("small", len(small))
            small.append(self.base(v))
        fixed = len(self.targets) == 1 and id(self.targets[0]) in self.fixed
        target = self.at_decode(self.targets[0]) if fixed else None
        jump = None
        if self.near:
            assert target is not None, f"{self.program.name} has no fixed target"
            jump = 0
            distance = target - self._at_decode.emit("operand", 64, (), ADDRESS)
            wide.append(distance * (RECORD_SIZE // 4))
        while True:
            narrow = [v for v in self.roots.values() if bound(v) <= 0xFF]
            large = [v for v in self.roots.values() if bound(v) > 0xFF]
            crowded = large if len(wide) + len(large) > WIDE_COUNT else narrow
            if crowded is narrow and len(small) + len(narrow) <= SMALL_COUNT:
                break
            cheapest = min((v for v in crowded if v.args), key=self.cost, default=None)
            if cheapest is None:
                raise ValueError(f"{self.program.name}: its operands do not fit an instruction record")
            del self.roots[id(cheapest)]
            for a in cheapest.args:
                self._use(a)
        for v in narrow:
            found[id(v)] = ("small", len(small))
            small.append(self.at_decode(v))
        for v in large:
            found[id(v)] = ("wide", len(wide))
            wide.append(self.at_decode(v))
        return Encoding(tuple(small), tuple(wide), found, target, jump)


def encoding(program: Program, near: bool = False) -> Encoding:
    """Lay out a program's operands; ValueError where they do not fit.

    ``near``: for a program with a fixed target, which is in the same page.
    """
    return _Layout(program, near).places()
