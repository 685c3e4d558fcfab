"""Samples: native code puts the block's line together, and leaves to Python what tells something new."""

from __future__ import annotations

import gc

from chronovisor.engine.native.code_space import code_space
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.enter import INSTRUCTIONS_PER_SAMPLE
from chronovisor.engine.native.layout import PAGE_SHIFT
from chronovisor.engine.native.pages import DecodedPages
from chronovisor.engine.native.state import NativeThread
from chronovisor.engine.native.state_layout import SAMPLES
from chronovisor.engine.regions.heat import HALF_LIFE, Heat
from chronovisor.engine.state import CACHE_BLOCK

from .lines import await_stencils, instructions_in_lines
from .native_guest import CODE, Guest

PAGE = CODE >> PAGE_SHIFT
#: A loop in two blocks.
LOOP = f"loop: addi r3,r3,1; xor r4,r4,r3; {'nop; ' * 40}b loop"
BOTH = 0b11


class Sampled:
    """A guest that runs the loop for some samples at a time."""

    def __init__(self, text: str = LOOP) -> None:
        self.guest = Guest(NativeEngine, text)
        assert isinstance(self.guest.engine, NativeEngine)
        self.engine = self.guest.engine
        thread = self.guest.thread()
        assert isinstance(thread, NativeThread)
        self.thread = thread
        self.pages: DecodedPages = self.engine.pages_of(thread)
        await_stencils(self.pages.library)
        self.note = self.pages.lines.notes[PAGE]

    def run(self, samples: int) -> None:
        self.guest.advance(self.thread, samples * INSTRUCTIONS_PER_SAMPLE)


def test_a_sample_has_the_line_of_its_block_put_together() -> None:
    one = Sampled()
    one.run(20)
    # There was no room.
    assert one.note.lines == 0
    one.pages.provide_room()
    one.run(20)
    assert one.note.lines == BOTH
    assert instructions_in_lines(one.engine) > 40
    rounds, rest = divmod(one.thread.executed, 43)
    value = 0
    for number in range(1, rounds + 1):
        value ^= number
    # The rest of a round has at least changed r3, and r4 a step later.
    added, changed = rounds + (rest > 0), value ^ (rounds + 1) * (rest > 1)
    assert (one.thread.CIA, one.thread.gpr[3], one.thread.gpr[4]) == (CODE + 4 * rest, added, changed)


def test_blocks_beside_a_sampled_one_get_lines_if_they_are_decoded() -> None:
    # All of the first 14 blocks, and from then on a loop in the sixth.
    text = f"{'nop; ' * 32 * 5}b past; loop: addi r3,r3,1; b loop; past: {'nop; ' * 32 * 8}b loop"
    one = Sampled(text)
    one.run(2)
    one.pages.provide_room()
    one.run(20)
    assert one.note.lines == 0b00111111111100


def test_a_block_that_is_decoded_later_gets_a_line_at_once() -> None:
    # A loop in the first block, and code in the 11th once r5 is not 0: no neighbours.
    text = f"loop: addi r3,r3,1; cmpdi r5,0; beq loop; b far; {'nop; ' * 32 * 10}far: b far"
    one = Sampled(text)
    one.pages.provide_room()
    one.run(20)
    assert one.note.lines == 1
    one.thread.gpr[5] = 1
    one.guest.advance(one.thread, 10)
    assert one.note.lines == 1 | 1 << 10


def test_samples_of_quiet_blocks_are_counted_once_the_block_has_a_line() -> None:
    one = Sampled()
    one.note.quiet = BOTH
    one.run(20)
    assert one.thread.sample_count > 15
    assert one.note.samples == one.thread.take_counted() == 0
    one.pages.provide_room()
    one.run(20)
    assert one.note.lines == BOTH
    kept = one.thread.sample_count
    one.run(20)
    counted = one.thread.take_counted()
    assert one.thread.sample_count == kept
    assert one.note.samples == counted > 35
    assert one.thread.take_counted() == 0
    # The second block goes on telling.
    one.note.quiet = 0b01
    one.run(20)
    assert one.thread.sample_count > kept + 2
    assert one.thread.take_counted() > 10
    kept, one.note.quiet = one.thread.sample_count, 0
    one.run(20)
    assert one.thread.sample_count > kept + 15
    assert one.thread.take_counted() == 0


def test_changed_code_is_not_quiet_and_has_no_lines() -> None:
    one = Sampled()
    one.pages.provide_room()
    one.run(20)
    one.note.quiet = BOTH
    assert one.note.lines == BOTH
    one.engine.forget(CODE)
    assert (one.note.lines, one.note.quiet) == (0, 0)
    one.run(20)
    assert one.note.lines == BOTH


def test_records_keep_the_chunks_of_their_lines() -> None:
    one, free = Sampled(), code_space()._chunks
    one.pages.provide_room()
    one.run(20)
    assert one.pages.lines.present is not None
    at = one.pages.lines.present._at
    with one.pages.changing:
        assert one.pages.lines.begin_chunk(one.pages._records) == []
    gc.collect()
    assert at not in free
    (old,) = [one.pages._records[PAGE]]
    assert {chunk._at for chunk in old.chunks} == {at}
    # They may be executed as long as anything refers to them.
    one.engine.forget(CODE)
    one.run(1)
    gc.collect()
    assert at not in free
    del old
    gc.collect()
    assert at in free


def test_old_records_keep_the_present_chunk() -> None:
    one = Sampled()
    one.pages.provide_room()
    one.run(20)
    old = one.pages._records[PAGE]
    one.engine.forget(CODE)
    assert old.chunks == {one.pages.lines.present}
    # Now no page has lines there.
    with one.pages.changing:
        one.pages.lines.begin_chunk(one.pages._records)
    assert one.pages._records[PAGE].chunks == set()


def test_the_latest_samples_are_taken_in_order() -> None:
    one = Sampled()
    for number in range(SAMPLES + 10):
        one.thread.samples[number % SAMPLES].offset = number
    one.thread.samples_taken, one.thread.sample_count = 5, SAMPLES + 10
    assert [sample[2] for sample in one.thread.take_samples()] == list(range(10, SAMPLES + 10))
    assert one.thread.take_samples() == []
    one.thread.sample_count = 2 * SAMPLES
    assert [sample[2] for sample in one.thread.take_samples()] == list(range(10, SAMPLES))[: SAMPLES - 10]


def test_a_page_that_waits_is_quiet_except_for_covered_blocks_and_gets_warm() -> None:
    one = Sampled()
    heat = Heat(0, one.note)
    heat.waits = True
    one.note.samples = 8
    assert heat.warmth(100) == 8
    assert one.note.samples == 0
    assert heat.warmth(100 + HALF_LIFE) == 4
    one.note.samples = 2
    assert heat.warmth(100 + HALF_LIFE) == 6
    assert one.note.quiet == (1 << 32) - 1
    heat.cover([0, 4, 3 * CACHE_BLOCK])
    heat.waits = False
    assert not one.note.quiet
    # Samples tell where handlers come to code that has a region.
    heat.waits = True
    assert one.note.quiet == (1 << 32) - 1 - 0b1001
