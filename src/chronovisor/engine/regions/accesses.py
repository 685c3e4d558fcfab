"""Which accesses of a straight line of instructions are near each other: they share one look into the TLB.

Accesses at different distances from the same sum are near each other: see `addresses`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from chronovisor.engine.native.emitter import I64
from chronovisor.engine.native.encoding import register_or_zero
from chronovisor.engine.regions.addresses import Address, Origin, Register, Unknown, shifted
from chronovisor.engine.regions.code import Site
from chronovisor.isa.values import Block, Value, When

#: How many bytes accesses that share a look may span. The more, the more often the look finds two pages.
MOST_SPAN = 512


@dataclass
class Span:
    """Neighbouring accesses: from the lowest byte to behind the highest, by their distances from an origin.

    ``use`` is what their page is looked up for: "load" or "store", or "both" if there are both among them.
    """

    origin: Origin
    low: int
    high: int
    use: str
    stretch: int
    """How many instructions of the line that may jump are before the first access."""

    @property
    def size(self) -> int:
        """How many bytes the span has."""
        return self.high - self.low

    def fits(self, low: int, high: int) -> bool:
        """Whether an access at these distances is near enough."""
        return max(self.high, high) - min(self.low, low) <= MOST_SPAN


@dataclass(frozen=True)
class Access:
    """An access that may have neighbours: their span, and its own distance."""

    span: Span
    distance: int


class Line:
    """A straight line of instructions, seen in order.

    ``accesses`` has its accesses, by the instruction's offset and the value's id. ``registers`` has what the
    registers that it changes have at its end.
    """

    _site: Site

    def __init__(self, sites: Iterable[Site]) -> None:
        self.accesses: dict[tuple[int, int], Access] = {}
        self.registers: dict[int, Address] = {}
        self._addresses: dict[int, Address] = {}
        #: How many instructions that may jump were seen.
        self._stretch = 0
        #: For each sum the present span of loads alone, and the one that has stores.
        self._loads: dict[Origin, Span] = {}
        self._stores: dict[Origin, Span] = {}
        for site in sites:
            assert site.program is not None
            self._site, self._addresses = site, {}
            self._block(site.program.body)
            self._stretch += bool(site.jumps)

    @property
    def spans(self) -> list[Span]:
        """The spans of the accesses, in the order of their first ones."""
        return list({id(access.span): access.span for access in self.accesses.values()}.values())

    def _block(self, block: Block) -> None:
        for s in block:
            if not isinstance(s, When):
                self._statement(s)
            elif (known := self._site.constant(s.condition)) is None:
                self._forget(s.body)
            elif known:
                self._block(s.body)

    def _statement(self, v: Value) -> None:
        if v.op == "read_file":
            self._address(v)
        elif v.op == "write_file" and v.detail == "GPR":
            self.registers[self._number(v)] = self._address(v.args[1])
        elif v.op in ("load", "store"):
            size = (v if v.op == "load" else v.args[1]).width // 8
            address = self._address(v.args[0])
            distance = address.distance
            span = self._span(v.op, address.origin, distance, distance + size)
            span.low, span.high = min(span.low, distance), max(span.high, distance + size)
            self.accesses[self._site.offset, id(v)] = Access(span, distance)

    def _span(self, use: str, origin: Origin, low: int, high: int) -> Span:
        """The span that an access belongs to.

        A TLB that has a page for both has got it for a store. So loads alone wait for no store that may not
        be executed: their look would fail each time.
        """
        stores, loads = self._stores.get(origin), self._loads.get(origin)
        if stores is not None and stores.fits(low, high):
            stores.use = stores.use if use == stores.use else "both"
            return stores
        fits = loads is not None and loads.fits(low, high)
        if loads is not None and fits and (use == "load" or loads.stretch == self._stretch):
            found = loads
            if use == "store":
                self._stores[origin] = self._loads.pop(origin)
                found.use = "both"
        else:
            found = Span(origin, low, high, use, self._stretch)
            (self._loads if use == "load" else self._stores)[origin] = found
        return found

    def _forget(self, block: Block) -> None:
        """Registers that may be written or not are not known any more."""
        for v in _written(block):
            self.registers[self._number(v)] = self._unknown(v)

    def _number(self, v: Value) -> int:
        number = self._site.constant(v.args[0])
        assert number is not None, "a register whose number is not in the instruction"
        return number

    def _address(self, v: Value) -> Address:
        if id(v) not in self._addresses:
            self._addresses[id(v)] = self._made(v)
        return self._addresses[id(v)]

    def _made(self, v: Value) -> Address:
        known = self._site.constant(v)
        if known is not None:
            return Address.known(known)
        if v.op == "read_file" and v.detail == "GPR":
            number = self._number(v)
            return self.registers.get(number) or Address.of(Register(number))
        if (read := register_or_zero(v)) is not None:
            # Known or not, what is in register 0 is not (RA|0).
            return self._address(read) if self._number(read) else Address.known(0)
        found = None
        if v.op == "add" and v.width == I64.width:
            one, other = map(self._address, v.args)
            found = one.plus(other)
        elif (shift := shifted(self._site, v)) is not None:
            whole = self._address(shift.value)
            found = whole if shift.width + shift.by == I64.width else whole.low(shift.width)
            found = found and found.shifted(shift.by)
        return found or self._unknown(v)

    def _unknown(self, v: Value) -> Address:
        return Address.of(Unknown(self._site.offset, id(v)))


def _written(block: Block) -> Iterator[Value]:
    for s in block:
        if isinstance(s, When):
            yield from _written(s.body)
        elif s.op == "write_file" and s.detail == "GPR":
            yield s
