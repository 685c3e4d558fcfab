"""Guest memory against a plain bytearray, and the dirty log against the set of pages really written."""

import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronovisor.memory import PAGE_SIZE, AddressError, GuestMemory

SIZE = 4 * PAGE_SIZE
NEAR_A_PAGE = st.builds(lambda page, at: page * PAGE_SIZE + at, st.integers(0, 4), st.integers(-8, 8))
ADDRESSES = st.integers(-8, SIZE + 8) | NEAR_A_PAGE
VALUES = st.integers(0, 2**128 - 1)


@given(st.lists(st.tuples(ADDRESSES, st.sampled_from([1, 2, 3, 4, 8, 16]), VALUES, st.booleans())))
def test_loads_and_stores_are_those_of_a_byte_array(stores: list[tuple[int, int, int, bool]]) -> None:
    memory, model, pages = GuestMemory(SIZE), bytearray(SIZE), set[int]()
    for addr, size, value, little in stores:
        if addr < 0 or addr + size > SIZE:
            with pytest.raises(AddressError):
                memory.store(addr, size, value, little)
            with pytest.raises(AddressError):
                memory.load(addr, size, little)
            continue
        memory.store(addr, size, value, little)
        data = (value % (1 << (8 * size))).to_bytes(size, "little" if little else "big")
        model[addr : addr + size] = data
        pages |= {(addr + i) // PAGE_SIZE for i in range(size)}
        assert memory.load(addr, size, little) == int.from_bytes(data, "little" if little else "big")
    assert memory.read(0, SIZE) == bytes(model)
    assert memory.dirty.take() == sorted(pages)
    assert memory.dirty.take() == []


@given(ADDRESSES, st.sampled_from([1, 2, 4, 8]), VALUES, st.integers(0, 2**32))
def test_a_sum_is_what_a_load_and_a_store_make(addr: int, size: int, value: int, amount: int) -> None:
    memory, model = GuestMemory(SIZE), GuestMemory(SIZE)
    if addr < 0 or addr + size > SIZE:
        with pytest.raises(AddressError):
            memory.add(addr, size, amount)
        assert memory.dirty.take() == []
        return
    for one in (memory, model):
        one.store(addr, size, value, False)
        one.dirty.take()
    before = memory.read(0, SIZE)
    memory.add(addr, size, amount)
    model.store(addr, size, model.load(addr, size, False) + amount, False)
    after = memory.read(0, SIZE)
    assert after == model.read(0, SIZE)
    changed = {at // PAGE_SIZE for at in range(addr, addr + size) if before[at] != after[at]}
    assert changed <= set(memory.dirty.take()) <= set(model.dirty.take())


@given(st.sets(st.integers(0, 7)), st.lists(st.integers(0, 7), max_size=12))
def test_a_store_while_the_log_is_taken_is_in_this_answer_or_the_next(
    before: set[int], meanwhile: list[int]
) -> None:
    """A vCPU stores to a page after each look at the log."""
    stores = iter(meanwhile)

    class Busy(bytearray):
        def find(self, *where: int) -> int:  # type: ignore[override]
            found = super().find(*where)
            for page in (next(stores, None),):
                if page is not None:
                    self[page] = 1
                    stored.add(page)
            return found

    memory, stored = GuestMemory(8 * PAGE_SIZE), set[int]()
    memory.dirty.pages = Busy(memory.dirty.pages)
    for page in before:
        memory.store(page * PAGE_SIZE, 1, 1, False)
    answers = [page for _ in range(len(meanwhile) + 2) for page in memory.dirty.take()]
    assert set(answers) == before | stored
    assert not memory.dirty.take()


@given(st.integers(0, SIZE) | NEAR_A_PAGE.filter(lambda addr: addr >= 0), st.integers(0, SIZE))
def test_a_block_marks_the_pages_it_touches_and_no_other(addr: int, size: int) -> None:
    memory = GuestMemory(SIZE)
    if addr + size > SIZE:
        with pytest.raises(AddressError):
            memory.write(addr, bytes(size))
        assert memory.dirty.take() == []
        return
    memory.write(addr, b"\xa5" * size)
    assert memory.dirty.take() == sorted({(addr + i) // PAGE_SIZE for i in range(size)})
    assert memory.read(addr, size) == b"\xa5" * size


@pytest.mark.parametrize("size", [0, -4096, 1, 4097])
def test_a_size_that_makes_no_pages_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="multiple of 4096"):
        GuestMemory(size)


def test_more_than_the_machine_has_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        GuestMemory(1 << 62)


def test_an_error_says_where() -> None:
    with pytest.raises(AddressError, match=r"8 byte\(s\) at real address 0x3ffc"):
        GuestMemory(SIZE).load(SIZE - 4, 8, True)


@given(st.sets(st.integers(0, 63)))
def test_the_log_is_taken_whole_and_once(pages: set[int]) -> None:
    """Runs at the front, the end and in between, while others hold the bytes as native code does."""
    memory = GuestMemory(64 * PAGE_SIZE)
    held = memoryview(memory.dirty.pages)
    for page in pages:
        memory.write(page * PAGE_SIZE, b"x")
    assert memory.dirty.take() == sorted(pages)
    assert held.tobytes() == bytes(64)
    assert memory.dirty.take() == []


def test_no_write_is_lost_between_two_takings_of_the_log() -> None:
    """One side writes and then marks, as a vCPU does; the other takes the log and then copies the pages."""
    memory = GuestMemory(256 * PAGE_SIZE)
    copy = bytearray(memory.size)
    done = threading.Event()

    def write() -> None:
        chance = random.Random(1)
        for value in range(30_000):
            memory.store(chance.randrange(256) * PAGE_SIZE, 8, value, True)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    last = False
    while not last:
        last = done.is_set()
        for page in memory.dirty.take():
            at = page * PAGE_SIZE
            copy[at : at + PAGE_SIZE] = memory.view[at : at + PAGE_SIZE]
    writer.join()
    assert copy == memory.read(0, memory.size)
