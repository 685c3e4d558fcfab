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
    """Neighbouring accesses: from the lowest byte to behind the highest, by their distances.

    ``use`` is what their page is looked up for: "load" or "store", or "both" if there are both among them.
    """

    low: int
    high: int
    use: str
    stretch: int
    """How many instructions of the line that may jump are before the first access."""

    def fits(self, low: int, high: int) -> bool:
        """Whether an access at these distances is near enough."""
        return max(self.high, high) - min(self.low, low) <= MOST_SPAN


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
        line.stretch += bool(site.jumps)
    return line.found


class _Line:
    """A straight line of instructions, seen in order."""

    site: Site

    def __init__(self) -> None:
        self.found: dict[tuple[int, int], Access] = {}
        self.addresses: dict[int, _Address] = {}
        self._registers: dict[int, _Address] = {}
        #: How many instructions that may jump were seen.
        self.stretch = 0
        #: For each sum the present span of loads alone, and the one that has stores.
        self._loads: dict[_Sum, Span] = {}
        self._stores: dict[_Sum, Span] = {}

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
            origin, distance = self._address(v.args[0])
            span = self._span(v.op, origin, distance, distance + size)
            span.low, span.high = min(span.low, distance), max(span.high, distance + size)
            self.found[self.site.offset, id(v)] = Access(span, distance)

    def _span(self, use: str, origin: _Sum, low: int, high: int) -> Span:
        """The span that an access belongs to.

        A TLB that has a page for both has got it for a store. So loads alone wait for no store that may not
        be executed: their look would fail each time.
        """
        stores, loads = self._stores.get(origin), self._loads.get(origin)
        if stores is not None and stores.fits(low, high):
            stores.use = stores.use if use == stores.use else "both"
            return stores
        fits = loads is not None and loads.fits(low, high)
        if loads is not None and fits and (use == "load" or loads.stretch == self.stretch):
            found = loads
            if use == "store":
                self._stores[origin] = self._loads.pop(origin)
                found.use = "both"
        else:
            found = Span(low, high, use, self.stretch)
            (self._loads if use == "load" else self._stores)[origin] = found
        return found

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
