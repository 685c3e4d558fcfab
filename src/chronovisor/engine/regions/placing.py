"""Puts regions into a guest's decoded pages."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chronovisor.engine.native.code_space import code_space
from chronovisor.engine.native.layout import PAGE_SHIFT
from chronovisor.engine.native.pages import DecodedPages, Snapshot
from chronovisor.engine.regions.compile import CompiledRegion, page_digest
from chronovisor.engine.statistics import REGIONS


@dataclass(frozen=True)
class Loaded:
    """A region's machine code in this process: the addresses of its entries' handlers, in their order."""

    region: CompiledRegion
    handlers: tuple[int, ...]


def load(region: CompiledRegion) -> Loaded:
    """Copy a region's code into executable memory."""
    begin = time.monotonic()
    at = code_space().put(region.code)
    REGIONS.add_linked(len(region.code), time.monotonic() - begin)
    return Loaded(region, tuple(at + place for place in region.places))


def snapshots_of(pages: DecodedPages, home: int, distances: Iterable[int]) -> dict[int, Snapshot]:
    """Those of some pages, as they are now, by their distance from the home page."""
    return {n: pages.snapshot(home + n) for n in distances}


def put_in(pages: DecodedPages, snapshots: Mapping[int, Snapshot], one: Loaded) -> bool:
    """Put a region in at the home page of the snapshots, if all its pages are there with its code."""
    if not all(page in snapshots for page in one.region.pages):
        return False
    made_of = [snapshots[page] for page in one.region.pages]
    if [page_digest(s.content) for s in made_of] != list(one.region.pages.values()):
        return False
    home = snapshots[0].page << PAGE_SHIFT
    entries = zip(one.region.entries, one.handlers, strict=True)
    return pages.put_in(made_of, {home + offset: handler for offset, handler in entries})
