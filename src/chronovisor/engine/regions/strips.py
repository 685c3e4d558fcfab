"""Strips: rounds of a tight loop that are checked all at once.

If the instructions of an innermost tight loop are a straight line, and if the addresses of its accesses
change by the same number of bytes in each round, it can be said at the loop's head for how many rounds the
budget lasts and the accesses stay in their pages. A function has the instructions of such a loop twice:
without these checks for the rounds of a strip, and with them for a round if the TLB lacks a page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass

from llvmlite import ir

from chronovisor.engine.native.emitter import I64, Rows, word
from chronovisor.engine.native.layout import PAGE_SHIFT
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.regions.accesses import Line, Span
from chronovisor.engine.regions.addresses import Address, Low, Origin, Register
from chronovisor.engine.regions.code import Site
from chronovisor.engine.regions.discovery import Edges, Region
from chronovisor.engine.regions.looks import LookLowering
from chronovisor.isa.values import mask

#: The most bytes by which an access goes on in a round. The more, the fewer rounds a page lasts for.
MOST_STEP = 256


@dataclass(frozen=True)
class StraightLoop:
    """A loop whose instructions are a straight line, from its head to the one that jumps back.

    ``steps`` has the spans that go on by a known number of bytes a round, each with that number.
    """

    sites: tuple[Site, ...]
    line: Line
    steps: tuple[tuple[Span, int], ...]

    @property
    def head(self) -> int:
        """The offset of the first instruction."""
        return self.sites[0].offset


def straight_loops(sites: Mapping[int, Site], edges: Edges, heads: Set[int]) -> dict[int, StraightLoop]:
    """The straight loops that begin at some heads, if any access of theirs can be checked in advance."""
    found = {}
    for head in heads:
        line = _straight(sites, edges, heads, head)
        if line is not None and (loop := _loop(line)).steps:
            found[head] = loop
    return found


def _straight(sites: Mapping[int, Site], edges: Edges, heads: Set[int], head: int) -> tuple[Site, ...] | None:
    """The instructions from a head to the first one that jumps back to the head; None if control does not go
    straight from one to the next.
    """
    line, offset = [], head
    while (site := sites.get(offset)) is not None:
        line.append(site)
        if head in site.targets:
            entered = {one.offset for one in line[1:]}
            jumps = ((before, after) for before in sites for after in edges[before] if after in entered)
            return None if any(after != before + 4 for before, after in jumps) else tuple(line)
        offset += 4
        if not site.falls or offset in heads or offset % (1 << PAGE_SHIFT) == 0:
            break
    return None


def _loop(sites: tuple[Site, ...]) -> StraightLoop:
    line = Line(sites)
    steps = ((span, Address(span.origin).step(line.registers)) for span in line.spans)
    return StraightLoop(
        sites,
        line,
        tuple((span, step) for span, step in steps if step is not None and abs(step) <= MOST_STEP),
    )


class StripLowering(LookLowering):
    """The function of a region's entry in the making, as far as strips are concerned."""

    def __init__(
        self, module: ir.Module, name: str, mode: Mode, rows: Rows, region: Region, entry: int
    ) -> None:
        super().__init__(module, name, mode, rows, region, entry)
        inside = self.heads & self.loop if self.sixty_four else set()
        self.straight_loops = straight_loops(self.sites, region.following, inside)
        #: The loop of which a round of a strip is in the making, and the block in which each one begins.
        self.strip: tuple[StraightLoop, ir.Block] | None = None
        if self.straight_loops:
            #: How many rounds of the strip are not done yet. The budget is without those.
            self._rounds = self.b.alloca(I64)

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Make a way that ends. A strip that ends on this way goes on behind it."""
        before = self.strip
        with super()._apart():
            yield
        self.strip = before

    def _left(self, done: int) -> ir.Value:
        """What is left of the budget after so many instructions since some were spent."""
        left = super()._left(done)
        return left if self.strip is None else self.b.add(left, self._not_done())

    def _not_done(self) -> ir.Value:
        """How many instructions of the present strip are not done yet, with all of the present round."""
        assert self.strip is not None
        return self.b.mul(self.b.load(self._rounds, typ=I64), word(len(self.strip[0].sites)))

    def begin_strip(self, loop: StraightLoop, checked: ir.Block) -> dict[int, ir.Value]:
        """Find out how many rounds the strip has, and take them from the budget, which lasts for one.

        The answer has the distances of spans, for `place`. If the TLB does not have a page, control goes to
        ``checked``: only an access that is made may walk the tables.
        """
        b, rounds, looked_up = self.b, self._affordable(loop), {}
        for span, step in loop.steps:
            lowest = self._at_head(Address(span.origin, span.low))
            looked_up[id(span)] = self.look_up_in_advance(span, lowest, checked)
            place = b.and_(lowest, word(mask(PAGE_SHIFT)))
            rounds = self._fewer(rounds, place, self._room(span.size) - 1, step)
            for low in _low_terms(span.origin):
                inner = low.address.step(loop.line.registers)
                assert inner is not None, "the step of the whole is known"
                rounds = self._fewer(rounds, self._term(low), mask(low.width), inner)
        b.store(rounds, self._rounds)
        spendable = b.load(self._spendable_at, typ=I64)
        b.store(b.sub(spendable, b.mul(rounds, word(len(loop.sites)))), self._spendable_at)
        return looked_up

    def _affordable(self, loop: StraightLoop) -> ir.Value:
        """For how many rounds the budget lasts, which lasts for one."""
        b, needed = self.b, self.region.longest[loop.head] + 1
        more = b.sub(b.load(self._spendable_at, typ=I64), word(needed - self._aside))
        return b.add(b.udiv(more, word(len(loop.sites))), word(1))

    def _fewer(self, rounds: ir.Value, value: ir.Value, most: int, step: int) -> ir.Value:
        """So many rounds, or as many as a value stays from 0 to ``most`` if each adds a step to it."""
        if not step:
            return rounds
        b = self.b
        room = b.sub(word(most), value) if step > 0 else value
        lasts = b.add(b.udiv(room, word(abs(step))), word(1))
        return b.select(b.icmp_unsigned("<", lasts, rounds), lasts, rounds)

    def _at_head(self, address: Address) -> ir.Value:
        """An address that is made of what registers hold at the head."""
        b, whole = self.b, word(address.distance)
        for term, often in sorted(address.origin, key=repr):
            assert isinstance(term, Register | Low), "an address whose step is known"
            whole = b.add(whole, b.mul(self._term(term), word(often)))
        return whole

    def _term(self, term: Register | Low) -> ir.Value:
        if isinstance(term, Register):
            return self._value(("GPR", term.number))
        return self.b.and_(self._at_head(term.address), word(mask(term.width)))

    def next_round(self) -> None:
        """Go back to the head for the next round of a strip. What is made next follows the last round."""
        assert self.strip is not None
        b, (_, unchecked) = self.b, self.strip
        self.resume(self.known_in_loop())
        rounds = b.sub(b.load(self._rounds, typ=I64), word(1))
        b.store(rounds, self._rounds)
        ended = self.block_named("strip_ended")
        b.cbranch(b.icmp_unsigned("!=", rounds, word(0)), unchecked, ended)
        b.position_at_end(ended)
        self.strip = None

    def end_strip(self) -> None:
        """Give the rounds of the strip that are not done back to the budget: control leaves the loop."""
        b = self.b
        b.store(b.add(b.load(self._spendable_at, typ=I64), self._not_done()), self._spendable_at)
        self.strip = None


def _low_terms(origin: Origin) -> Iterator[Low]:
    for term, _ in origin:
        if isinstance(term, Low):
            yield term
