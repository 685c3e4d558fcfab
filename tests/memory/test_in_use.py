from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronovisor.memory import PAGE_SIZE, GuestMemory, in_use
from chronovisor.memory.in_use import BLOCK, estimate_in_use, have_ready, runs_in_use

SIZE = 3 * BLOCK + 5 * PAGE_SIZE
writes = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 255)), max_size=12)


def pages_by_looking(memory: GuestMemory) -> set[int]:
    return {a for a in range(0, memory.size, PAGE_SIZE) if memory.read(a, PAGE_SIZE) != bytes(PAGE_SIZE)}


@settings(deadline=None)
@given(writes)
def test_runs_are_the_pages_that_are_not_all_zeros(written: list[tuple[int, int]]) -> None:
    memory = GuestMemory(SIZE)
    for addr, value in written:
        memory.write(addr, bytes([value]))
    runs = runs_in_use(memory)
    pages = [page for addr, size in runs for page in range(addr, addr + size, PAGE_SIZE)]
    assert pages == sorted(pages)
    assert set(pages) == pages_by_looking(memory) == {a // PAGE_SIZE * PAGE_SIZE for a, _ in written}
    assert all(a + size < b for (a, size), (b, _) in pairwise(runs))


@settings(deadline=None)
@given(writes)
def test_blocks_hold_all_that_is_not_zero(written: list[tuple[int, int]]) -> None:
    memory = GuestMemory(SIZE)
    for addr, value in written:
        memory.write(addr, bytes([value]))
    used = {addr // BLOCK for addr, _ in written}
    assert estimate_in_use(memory) == sum(min(BLOCK, SIZE - block * BLOCK) for block in used)


def test_having_pages_ready_changes_nothing() -> None:
    memory = GuestMemory(SIZE)
    memory.write(BLOCK + 5, b"here")
    have_ready(memory, 0, 2 * BLOCK)
    assert memory.read(BLOCK + 5, 4) == b"here"
    assert runs_in_use(memory) == [(BLOCK, PAGE_SIZE)]


def test_memory_that_was_never_touched_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """And looking changes nothing about what is found, nor does a machine that does not say."""
    memory = GuestMemory(64 * BLOCK)
    memory.write(7 * BLOCK + 5, b"here")
    memory.write(9 * BLOCK, b"x" * PAGE_SIZE)
    memory.write(9 * BLOCK, bytes(PAGE_SIZE))
    looked: list[int] = []
    look = in_use._ZeroFinder.__call__

    def noted(self: in_use._ZeroFinder, addr: int, size: int) -> bool:
        looked.append(addr // BLOCK)
        return look(self, addr, size)

    monkeypatch.setattr(in_use._ZeroFinder, "__call__", noted)
    found = runs_in_use(memory), estimate_in_use(memory)
    assert found == ([(7 * BLOCK, PAGE_SIZE)], BLOCK)
    # Where pages are huge a neighbour may come with them.
    assert {7, 9} <= set(looked) <= set(range(6, 12))
    monkeypatch.setattr(in_use, "_PAGEMAP", Path("/nowhere"))
    assert (runs_in_use(memory), estimate_in_use(memory)) == found
    assert set(looked) == set(range(64))
