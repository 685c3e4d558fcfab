"""Which instructions form a region: the loop around a hot place, with what the loop calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from chronovisor.engine.native.layout import MOST_UNSPENT, PAGE_SHIFT
from chronovisor.engine.regions.code import Code, Site

#: The most instructions of a region around a loop, and of one without a loop.
MOST_IN_LOOP = 300
MOST_IN_LINE = 100
#: The fewest instructions that are worth a region if they are no loop.
FEWEST_IN_LINE = 6
#: How far back the beginning of a straight line is looked for, in bytes.
_LINE = 256
#: How far behind an instruction that cannot be part of a region one is looked for that can, in bytes.
_UNFIT = 16
#: How far from the hot place a loop is looked for, in instructions.
_REACH = 2 * MOST_IN_LOOP

Edges = Mapping[int, Iterable[int]]


@dataclass(frozen=True)
class Region:
    """A region's instructions by their offsets.

    ``entries`` are those at which threaded code enters the region; each cycle has one. At an entry the region
    makes sure that its budget lasts to the next one, which is at most ``longest`` instructions away.
    ``returns`` are the places behind calls within the region.
    """

    sites: Mapping[int, Site]
    entries: tuple[int, ...]
    longest: Mapping[int, int]
    returns: tuple[int, ...]

    @property
    def pages(self) -> tuple[int, ...]:
        """The pages of its instructions, by their distance from the home page."""
        return tuple(sorted({offset >> PAGE_SHIFT for offset in self.sites}))


def discover(code: Code, hot: int) -> Region | None:
    """The region around the instruction at an offset; None if there is nothing worth compiling."""
    if not code[hot].fits:
        return None
    near = _reachable(code, [hot], _REACH)
    loop = _loop(near, hot)
    if loop:
        chosen = _nearest(near, hot, loop, MOST_IN_LOOP)
        return _region(code, _back_targets(code, chosen) or {hot}, chosen)
    first = _block_begin(code, hot)
    near = _reachable(code, [first], _REACH)
    chosen = _nearest(near, first, set(near), MOST_IN_LINE)
    return _region(code, {first}, chosen) if len(chosen) >= FEWEST_IN_LINE else None


def discover_from(code: Code, starts: Iterable[int]) -> Region | None:
    """The region that control comes to at some offsets; None if there is nothing worth compiling."""
    begins = {offset for start in starts if (offset := _first_that_fits(code, start)) is not None}
    near = _reachable(code, sorted(begins), MOST_IN_LOOP)
    if len(near) < FEWEST_IN_LINE:
        return None
    return _region(code, begins | _back_targets(code, list(near)), list(near))


def _first_that_fits(code: Code, start: int) -> int | None:
    """The first instruction of a straight line from ``start`` that can be part of a region."""
    offset = start
    while not code[offset].fits and offset - start < _UNFIT:
        offset += 4
    return offset if code[offset].fits else None


def _back_targets(code: Code, chosen: list[int]) -> set[int]:
    """Where jumps go back to: the heads of loops as compilers lay them out."""
    inside = set(chosen)
    jumps = ((offset, target) for offset in chosen for target in code[offset].targets)
    return {target for offset, target in jumps if target <= offset and target in inside}


def _block_begin(code: Code, hot: int) -> int:
    """The first instruction of the straight line that leads to ``hot``."""
    offset = hot
    while hot - offset < _LINE and code[offset - 4].fits and not code[offset - 4].jumps:
        offset -= 4
    return offset


def _successors(code: Code, site: Site, returns: Iterable[int]) -> list[int]:
    """Where control goes from an instruction, as far as instructions there fit."""
    found = list(site.targets)
    # A call comes back.
    if site.falls or site.links:
        found.append(site.offset + 4)
    if site.is_indirect and not site.links:
        found += returns
    return [offset for offset in dict.fromkeys(found) if code[offset].fits]


def _reachable(code: Code, starts: list[int], most: int) -> dict[int, list[int]]:
    """The instructions that control can reach from some, the nearest first, and what follows each."""
    returns: list[int] = []
    found: dict[int, list[int]] = {start: [] for start in starts}
    order = list(starts)
    for offset in order:
        if code[offset].links:
            returns.append(offset + 4)
        for following in _successors(code, code[offset], ()):
            if following not in found and len(found) < most:
                found[following] = []
                order.append(following)
    for offset in order:
        site = code[offset]
        found[offset] = [o for o in _successors(code, site, returns) if o in found]
    return found


def _loop(edges: Edges, hot: int) -> set[int]:
    """The instructions that ``hot`` reaches and that reach ``hot``."""
    back: dict[int, list[int]] = {}
    for offset, following in edges.items():
        for one in following:
            back.setdefault(one, []).append(offset)
    reaches = _closure(lambda offset: back.get(offset, ()), hot)
    return reaches & set(edges) if reaches - {hot} or hot in edges[hot] else set()


def _closure(successors: Callable[[int], Iterable[int]], start: int) -> set[int]:
    found, todo = {start}, [start]
    while todo:
        for one in successors(todo.pop()):
            if one not in found:
                found.add(one)
                todo.append(one)
    return found


def _nearest(edges: Edges, hot: int, among: set[int], most: int) -> list[int]:
    """At most so many instructions, by their distance from ``hot``."""
    order, seen = [hot], {hot}
    for offset in order:
        for one in edges[offset]:
            if one in among and one not in seen and len(order) < most:
                seen.add(one)
                order.append(one)
    return order


def _region(code: Code, begins: set[int], chosen: list[int]) -> Region:
    inside = set(chosen)
    sites = {offset: code[offset] for offset in sorted(inside)}
    returns = tuple(o + 4 for o, s in sites.items() if s.links and o + 4 in inside)
    edges = {
        offset: [o for o in _successors(code, site, returns) if o in inside] for offset, site in sites.items()
    }
    entries = begins | _resumed(code, sites)
    entries |= _cycle_heads(edges, sorted(entries))
    longest = {entry: _longest(edges, entry, entries) for entry in entries}
    assert all(most <= MOST_UNSPENT for most in longest.values()), (
        "a region leaves more of a piece than it may"
    )
    return Region(sites, tuple(sorted(entries)), longest, returns)


def _resumed(code: Code, sites: Mapping[int, Site]) -> set[int]:
    """Where control comes back to the region after an instruction or a call that is outside."""
    found = set()
    for offset in sites:
        before = code[offset - 4]
        if offset - 4 not in sites and before.program is not None and (before.falls or before.links):
            found.add(offset)
    for offset, site in sites.items():
        # The function that is called is outside, or returns by a way that is.
        if site.links and offset + 4 in sites and not any(t in sites for t in site.targets):
            found.add(offset + 4)
    return found


def _cycle_heads(edges: Edges, starts: Iterable[int]) -> set[int]:
    """One place in each cycle: what a depth-first search comes back to."""
    heads: set[int] = set()
    state: dict[int, int] = {}
    for start in (*starts, *edges):
        if start in state:
            continue
        stack = [(start, iter(edges[start]))]
        state[start] = 1
        while stack:
            offset, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                state[offset] = 2
                stack.pop()
            elif following not in state:
                state[following] = 1
                stack.append((following, iter(edges[following])))
            elif state[following] == 1:
                heads.add(following)
    return heads


def _longest(edges: Edges, entry: int, entries: set[int]) -> int:
    """The most instructions that are executed from an entry on before another entry or an exit comes."""
    known: dict[int, int] = {}
    expanded = set()
    stack = [(entry, False)]
    while stack:
        offset, done = stack.pop()
        following = [o for o in edges[offset] if o not in entries]
        if done:
            known[offset] = 1 + max((known[o] for o in following), default=0)
        elif offset not in expanded:
            expanded.add(offset)
            stack.append((offset, True))
            stack += [(o, False) for o in following]
    return known[entry]
