"""Which instructions of a region are in tight loops: loops without calls and jumps by register.

A tight loop stays in the region for long, so it is worth it to store what its instructions change only when
control leaves the loop. An innermost loop is one whatever its size is, a loop around others if it is small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from chronovisor.engine.regions.code import Site

#: The instructions of a loop, by their offsets.
Loop = frozenset[int]

Edges = Mapping[int, Iterable[int]]

#: The most instructions of a tight loop around others. Each is compiled once more for each loop around it.
MOST_IN_NEST = 64


def innermost(loops: Mapping[int, Loop]) -> dict[int, Loop]:
    """Those of some loops that have no other one inside, by their first instructions."""
    found: dict[int, Loop] = {}
    taken: set[int] = set()
    for head, body in sorted(loops.items(), key=lambda one: len(one[1])):
        if not body & taken:
            found[head] = body
            taken |= body
    return found


def nests(loops: Mapping[int, Loop], cuts: Set[int]) -> dict[int, Loop]:
    """Those of some loops that have other cuts than their first instruction, and are small enough."""
    return {
        head: body
        for head, body in loops.items()
        if head in cuts and len(cuts & body) > 1 and len(body) <= MOST_IN_NEST
    }


def loops_of(sites: Mapping[int, Site]) -> dict[int, Loop]:
    """The loops that can be tight, by their first instructions."""
    inside = {offset: list(_successors(sites, site)) for offset, site in sites.items()}
    before: dict[int, list[int]] = {}
    for offset, following in inside.items():
        for one in following:
            before.setdefault(one, []).append(offset)
    return {
        head: body
        for head in sorted(sites)
        if (latches := [offset for offset in before.get(head, ()) if offset >= head])
        and (body := _body(inside, before, head, latches))
        # Compilers put a loop's head first. What jumps back to another place of it comes from a side way that
        # they have put behind the loop.
        and head == min(body)
        and not any(_goes_away(sites[offset]) for offset in body)
    }


def _successors(sites: Mapping[int, Site], site: Site) -> Iterable[int]:
    following = [*site.targets, site.offset + 4] if site.falls else site.targets
    return (offset for offset in following if offset in sites)


def _body(inside: Edges, before: Edges, head: int, latches: list[int]) -> Loop:
    """The instructions that control comes to from the head and from which it goes back to the head."""
    back = _closure(before, latches, head)
    return frozenset(back & _closure(inside, [head], None) if head in back else ())


def _closure(edges: Edges, starts: list[int], last: int | None) -> set[int]:
    """What the edges lead to from some instructions; they are not followed behind the last one."""
    found, todo = set(starts), list(starts)
    while todo:
        offset = todo.pop()
        new = set(edges.get(offset, ())) - found if offset != last else set()
        found |= new
        todo += new
    return found


def _goes_away(site: Site) -> bool:
    return site.links or site.is_indirect
