"""Which accesses of a straight line of instructions are near each other: they share one look into the TLB.

Addresses are compared by what they are made of: the sum of values that are not known (what a register held
when the line began, say), and a known distance from it. Accesses at different distances from the same sum are
near each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from chronovisor.engine.native.encoding import register_or_zero
from chronovisor.engine.regions.code import Site
from chronovisor.isa.values import Block, Value, When

#: How many bytes accesses that share a look may span. The more, the more often the look finds two pages.
MOST_SPAN = 512

#: The names of the values that a sum has, in order.
_Sum = tuple[str, ...]
#: An address: a sum, and the distance from that in bytes.
_Address = tuple[_Sum, int]
#: The most values of a sum that is told from others.
_MOST_VALUES = 3


@dataclass
class Span:
    """Neighbouring accesses of one kind: from the lowest byte to behind the highest, by their distances."""

    low: int
    high: int


@dataclass(frozen=True)
class Access:
    """An access that may have neighbours: their span, and its own distance."""

    span: Span
    distance: int


def near(sites: Iterable[Site]) -> dict[tuple[int, int], Access]:
    """The accesses of instructions that follow each other, by the instruction's offset and the value's id."""
    line = _Line()
    for site in sites:
        assert site.program is not None
        line.site, line.addresses = site, {}
        line.block(site.program.body)
    return line.found


class _Line:
    """A straight line of instructions, seen in order."""

    site: Site

    def __init__(self) -> None:
        self.found: dict[tuple[int, int], Access] = {}
        self.addresses: dict[int, _Address] = {}
        self._registers: dict[int, _Address] = {}
        #: The present span for each kind of access and each sum.
        self._spans: dict[tuple[str, _Sum], Span] = {}

    def block(self, block: Block) -> None:
        """See statements in order."""
        for s in block:
            if not isinstance(s, When):
                self._statement(s)
            elif (known := self.site.constant(s.condition)) is None:
                self._forget(s.body)
            elif known:
                self.block(s.body)

    def _statement(self, v: Value) -> None:
        if v.op == "read_file":
            self._address(v)
        elif v.op == "write_file" and v.detail == "GPR":
            self._registers[self._number(v)] = self._address(v.args[1])
        elif v.op in ("load", "store"):
            size = (v if v.op == "load" else v.args[1]).width // 8
            self._access(v, *self._address(v.args[0]), size)

    def _access(self, v: Value, origin: _Sum, distance: int, size: int) -> None:
        low, high = distance, distance + size
        span = self._spans.get((v.op, origin))
        if span is None or max(span.high, high) - min(span.low, low) > MOST_SPAN:
            span = self._spans[v.op, origin] = Span(low, high)
        span.low, span.high = min(span.low, low), max(span.high, high)
        self.found[self.site.offset, id(v)] = Access(span, distance)

    def _forget(self, block: Block) -> None:
        """Registers that may be written or not are not known any more."""
        for v in _written(block):
            self._registers[self._number(v)] = self._unknown(v)

    def _number(self, v: Value) -> int:
        number = self.site.constant(v.args[0])
        assert number is not None, "a register whose number is not in the instruction"
        return number

    def _address(self, v: Value) -> _Address:
        if id(v) not in self.addresses:
            self.addresses[id(v)] = self._made(v)
        return self.addresses[id(v)]

    def _made(self, v: Value) -> _Address:
        known = self.site.constant(v)
        if known is not None:
            return (), known - (known >> 63 << 64)
        if v.op == "read_file" and v.detail == "GPR":
            return self._registers.get(self._number(v), ((f"GPR{self._number(v)}",), 0))
        if (read := register_or_zero(v)) is not None:
            # Known or not, what is in register 0 is not (RA|0).
            return self._address(read) if self._number(read) else ((), 0)
        if v.op == "add" and v.width == 64:
            (one, near), (other, far) = map(self._address, v.args)
            if len(one) + len(other) <= _MOST_VALUES:
                return tuple(sorted(one + other)), near + far
        return self._unknown(v)

    def _unknown(self, v: Value) -> _Address:
        return (f"{self.site.offset}:{id(v)}",), 0


def _written(block: Block) -> Iterator[Value]:
    for s in block:
        if isinstance(s, When):
            yield from _written(s.body)
        elif s.op == "write_file" and s.detail == "GPR":
            yield s
