"""Which instructions form a region: the loop around a hot place, with what the loop calls."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass

from chronovisor.engine.native.layout import PAGE_SHIFT
from chronovisor.engine.native.state_layout import MOST_UNSPENT
from chronovisor.engine.regions.code import Code, Site
from chronovisor.engine.regions.tight_loops import Loop, innermost, loops_of, nests

#: The most instructions of a region around a loop, and of one without a loop.
MOST_IN_LOOP = 120
MOST_IN_LINE = 60
#: The fewest instructions that are worth a region if they are no loop.
FEWEST_IN_LINE = 2
#: How far back the beginning of a straight line is looked for, in bytes.
_LINE = 256
#: How far behind an instruction that cannot be part of a region one is looked for that can, in bytes.
_UNFIT = 16
#: The fewest instructions that parts of a region do not have a copy each of.
_WORTH_A_PART = 8
#: How far from the hot place a loop is looked for, in instructions.
_REACH = 2 * MOST_IN_LOOP

Edges = Mapping[int, Iterable[int]]


@dataclass(frozen=True)
class Region:
    """A region's instructions by their offsets.

    ``entries`` are those at which the region can be entered. Some are cuts: control goes from one cut to the
    next, and each cycle has one. At an entry the region makes sure that its budget lasts to the next cut,
    which is at most ``longest`` instructions away. ``following`` has where control goes from an instruction
    within the region, ``returns`` the places behind calls of functions that the region has. ``loops`` are the
    tight loops by their first instructions, which are cuts. They may have other cuts inside.
    """

    sites: Mapping[int, Site]
    following: Edges
    returns: tuple[int, ...]
    loops: Mapping[int, Loop]
    entries: tuple[int, ...]
    cuts: frozenset[int]
    longest: Mapping[int, int]

    @property
    def pages(self) -> tuple[int, ...]:
        """The pages of its instructions, by their distance from the home page."""
        return tuple(sorted({offset >> PAGE_SHIFT for offset in self.sites}))

    def loop(self, entry: int) -> Loop:
        """The tight loop that begins at an entry; nothing if none does."""
        return self.loops.get(entry, frozenset())

    def part(self, entry: int) -> dict[int, Site]:
        """The instructions that control comes to from an entry on before it comes to a cut.

        The cuts in the tight loop that begins there count for no cuts.
        """
        cuts = self.cuts - self.loop(entry)
        return {offset: self.sites[offset] for offset in sorted(_part(self.following, entry, cuts))}


def region_of(sites: Mapping[int, Site], begins: Iterable[int], returns: tuple[int, ...] = ()) -> Region:
    """The region of some instructions, with entries at some of them at least."""
    edges = {offset: [o for o in _followers(site, returns) if o in sites] for offset, site in sites.items()}
    all_loops = loops_of(sites)
    loops = innermost(all_loops)
    entries = {*begins, *loops}
    entries |= _beginnings(edges, entries)
    cuts = _cuts(edges, loops, entries)
    loops = {head: body for head, body in loops.items() if cuts & body == {head}}
    loops |= nests(all_loops, cuts)
    entries |= cuts
    longest = {entry: _longest(edges, entry, cuts) for entry in entries}
    return Region(sites, edges, returns, loops, tuple(sorted(entries)), frozenset(cuts), longest)


def _beginnings(edges: Edges, entries: Iterable[int]) -> set[int]:
    """Further entries, from which control comes to the instructions that it does not come to from these."""
    reached: set[int] = set()
    for entry in entries:
        reached |= _closure(edges.__getitem__, entry)
    found = set()
    for offset in edges:
        if offset not in reached:
            found.add(offset)
            reached |= _closure(edges.__getitem__, offset)
    return found


def _cuts(edges: Edges, loops: Mapping[int, Loop], entries: set[int]) -> set[int]:
    """The entries at which parts end, and places besides.

    In a tight loop that is its first instruction alone. What is common to several parts becomes one of its
    own.
    """
    inside = {offset for head, body in loops.items() for offset in body if offset != head}
    cuts = entries - inside
    cuts |= _cycle_heads({o: [t for t in after if t not in cuts] for o, after in edges.items()}, sorted(cuts))
    while True:
        owners: dict[int, set[int]] = {}
        for cut in cuts:
            for offset in _part(edges, cut, cuts):
                owners.setdefault(offset, set()).add(cut)
        common = {
            following
            for offset, after in edges.items()
            for following in after
            if following not in cuts and following not in inside and len(owners.get(following, ())) > 1
            if owners[following] != owners.get(offset) and len(_part(edges, following, cuts)) >= _WORTH_A_PART
        }
        if not common:
            return cuts
        cuts |= common


def _part(edges: Edges, entry: int, cuts: Container[int]) -> set[int]:
    return _closure(lambda offset: (o for o in edges[offset] if o not in cuts), entry)


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


def discover_from(code: Code, starts: Iterable[int], stops: Container[int] = ()) -> Region | None:
    """The region that control comes to at some offsets; None if there is nothing worth compiling.

    It ends at ``stops``, where other regions begin.
    """
    begins = {offset for start in starts if (offset := _first_that_fits(code, start)) is not None}
    near = _reachable(code, sorted(begins), MOST_IN_LOOP, stops)
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
    found = _followers(site, returns)
    # A call comes back.
    if site.links:
        found.append(site.offset + 4)
    return [offset for offset in dict.fromkeys(found) if code[offset].fits]


def _followers(site: Site, returns: Iterable[int]) -> list[int]:
    """Where control goes from an instruction; from a return, behind some calls."""
    found = list(site.targets)
    if site.falls:
        found.append(site.offset + 4)
    if site.is_indirect and not site.links:
        found += returns
    return list(dict.fromkeys(found))


def _reachable(code: Code, starts: list[int], most: int, stops: Container[int] = ()) -> dict[int, list[int]]:
    """The instructions that control can reach from some, the nearest first, and what follows each.

    What follows from ``stops`` on is left out.
    """
    returns: list[int] = []
    found: dict[int, list[int]] = {start: [] for start in starts}
    order = list(starts)
    for offset in order:
        if code[offset].links:
            returns.append(offset + 4)
        for following in _successors(code, code[offset], ()):
            if following not in found and following not in stops and len(found) < most:
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
    returns = tuple(
        o + 4 for o, s in sites.items() if s.links and o + 4 in inside and any(t in inside for t in s.targets)
    )
    region = region_of(sites, begins | _resumed(code, sites), returns)
    assert all(most <= MOST_UNSPENT for most in region.longest.values()), (
        "a region leaves more of a piece than it may"
    )
    return region


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


def _longest(edges: Edges, entry: int, cuts: Container[int]) -> int:
    """The most instructions that are executed from an entry on before a cut or an exit comes."""
    known: dict[int, int] = {}
    expanded = set()
    stack = [(entry, False)]
    while stack:
        offset, done = stack.pop()
        following = [o for o in edges[offset] if o not in cuts]
        if done:
            known[offset] = 1 + max((known[o] for o in following), default=0)
        elif offset not in expanded:
            expanded.add(offset)
            stack.append((offset, True))
            stack += [(o, False) for o in following]
    return known[entry]
