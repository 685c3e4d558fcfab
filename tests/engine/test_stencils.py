"""Lines of stencils do what the concrete evaluator does, to the instruction."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from handlers import ensure

from chronovisor.engine.concrete import ConcreteEngine
from chronovisor.engine.native import block_code, code_cache, compiler, page_lines, pages
from chronovisor.engine.native.assembling import BLOCK_INSTRUCTIONS
from chronovisor.engine.native.code_space import code_space
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.layout import PAGE_SHIFT
from chronovisor.engine.native.page_records import Records, _space
from chronovisor.engine.native.sets import everyday_keys, stencils_name
from chronovisor.engine.native.state import NativeThread
from chronovisor.engine.native.stencil_set import Piece, compile_stencils
from chronovisor.engine.native.stencil_tables import Patch, Source, StencilSet
from chronovisor.isa.assembly import assemble

from .drawn import MEMORY_SIZE, Drawn, drawn
from .lines import instructions_in_lines, links, put_in_lines
from .native_guest import CODE, ENGINES, KERNEL, Guest, registers
from .test_native_agrees import thread_of
from .test_regions import Case, Run, compare_runs, put_in


def _compare(seed: int) -> tuple[int, int]:
    """How many states were compared, and how many instructions had lines."""
    draw = Random(seed)
    case = Case.drawn(draw)
    runs = [Run(engine, case) for engine in (ConcreteEngine, NativeEngine)]
    hots = [draw.randrange(0, len(case.code), 4) for _ in range(2)]
    # Regions come first, later or, since they take long to compile, mostly not at all.
    early, late, changes = draw.random() < 0.1, draw.random() < 0.1, draw.random() < 0.4
    if early:
        put_in(runs[1], hots)
    most = 0

    def put_in_now() -> None:
        nonlocal most, late
        put_in_lines(runs[1].guest.engine)
        most = max(most, instructions_in_lines(runs[1].guest.engine))
        if late:
            late = False
            put_in(runs[1], hots)

    return compare_runs(seed, draw, runs, 50, changes, put_in_now), most


def compare_many(seeds: Sequence[int]) -> None:
    """Compare the programs of these seeds."""
    found = [_compare(seed) for seed in seeds]
    assert sum(compared for compared, _ in found) > 5 * len(seeds)
    assert sum(most for _, most in found) > 20 * len(seeds)


def test_random_programs() -> None:
    compare_many(range(25))


def test_a_guest_with_little_room_for_lines_loses_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    room = block_code.MOST_BLOCK_BYTES * 3 // 2
    monkeypatch.setattr(page_lines, "CHUNK", room)
    monkeypatch.setattr(page_lines, "MOST_CHUNKS", 1)
    taken = []
    retire = pages.DecodedPages._retire
    monkeypatch.setattr(pages.DecodedPages, "_retire", lambda *of: taken.append(of) or retire(*of))
    compare_many(range(1000, 1020))
    assert len(taken) > 20


def test_chunks_are_used_again() -> None:
    space = code_space()
    gc.collect()
    before = set(space._chunks)
    compare_many(range(1020, 1023))
    gc.collect()
    assert before <= set(space._chunks)


def test_places_of_records_are_used_again() -> None:
    gc.collect()
    before = len(_space()._free)
    compare_many(range(1020, 1023))
    made = {ctypes.addressof(Records.new()) for _ in range(3)}
    gc.collect()
    # None is taken from a new piece of memory, and each one is clean.
    assert len(_space()._free) >= before
    assert len(made) == 1
    assert not any(Records.new())


def test_without_room_there_are_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    # Guests that are gone give their chunks back when they are collected.
    gc.collect()
    monkeypatch.setattr(code_space(), "take_chunk", lambda: None)
    found = [_compare(seed) for seed in range(1030, 1035)]
    assert not any(most for _, most in found)


@pytest.mark.soak
def test_many_random_programs() -> None:
    compare_many(range(25, 3000))


def test_the_register_that_is_always_zero() -> None:
    """It is farther away than the others: 8 bits do not reach it, as they reach them."""
    text = f"loop: isel r3,0,r5,2; add r4,r4,r3; {'nop; ' * 40}bc 16,0,loop; sc 1"
    case = Case(text, CODE, KERNEL, {"r0": 99, "r5": 7, "CTR": 5, "CR": 1 << 29}, 0, "nop")
    runs = [Run(engine, case) for engine in (ConcreteEngine, NativeEngine)]
    for _ in range(3):
        for run in runs:
            run.guest.advance(run.thread, 50)
        put_in_lines(runs[1].guest.engine)
        assert runs[0].seen() == runs[1].seen()
    assert instructions_in_lines(runs[1].guest.engine) > 40


def test_lines_lead_to_each_other_until_a_region_begins() -> None:
    text = f"loop: addi r3,r3,1; {'nop; ' * 40}addi r4,r4,1; bc 16,0,loop; sc 1"
    run = Run(NativeEngine, Case(text, CODE, KERNEL, {"CTR": 1 << 20}, 0, "nop"))
    # It comes to both blocks.
    run.guest.advance(run.thread, 60)
    put_in_lines(run.guest.engine)
    assert isinstance(run.guest.engine, NativeEngine)
    assert isinstance(run.thread, NativeThread)
    records = run.guest.engine.pages_of(run.thread)._records[CODE >> PAGE_SHIFT]
    (distance,) = (distance for target, distance in links(records) if target == 0)
    assert distance
    run.guest.advance(run.thread, 1000)
    assert not run.thread.done_in_regions
    assert put_in(run, [0]) == 1
    run.guest.advance(run.thread, 10_000)
    assert run.thread.done_in_regions > 9_500


def test_changed_code_is_seen_behind_what_synchronizes() -> None:
    """A line would go on with the old code behind these (Power ISA Book II 1.9, Book III 1.5.1)."""
    kept = code_cache.kept(stencils_name((True, True)), compiler.fingerprint())
    stencils = StencilSet.decode(kept or compile_stencils((True, True)))
    have = {everyday_keys()[row.key][0].mnemonic for row in stencils.rows}
    assert len(have) > 100
    assert not have & {"isync", "rfid", "rfscv", "sc", "scv", "mtmsr", "mtmsrd", "tlbie", "tlbiel"}


def _distance(source: Source, at: int) -> Patch:
    return Patch(source=source, size=4, at=at, base=-4)


def test_the_end_of_a_stencil_falls_through() -> None:
    next_, own = _distance(Source.NEXT, 3), _distance(Source.OWN, 8)
    # nop; jne next; jmp own
    made = Piece(bytes.fromhex("90 0f85 00000000 e9 00000000"), [next_, own])
    made.fall_through()
    assert made.code == bytes.fromhex("90 0f84 00000000")
    assert [(patch.source, patch.at) for patch in made.patches] == [(Source.OWN, 3)]


def test_an_end_that_is_jumped_to_stays() -> None:
    next_, own = _distance(Source.NEXT, 4), _distance(Source.OWN, 9)
    # je . + 8; jne next; jmp own
    code = bytes.fromhex("74 06 0f85 00000000 e9 00000000")
    made = Piece(code, [next_, own])
    made.fall_through()
    assert made.code == code


# Each instruction, with operands and a state of any kind


class Guests:
    """Both engines, each over memory of its own: of harmless instructions in either byte order."""

    def __init__(self) -> None:
        self.guests = [Guest(engine, "nop", size=MEMORY_SIZE) for engine in ENGINES]
        draw = Random(1)
        words = bytearray()
        for _ in range(0, MEMORY_SIZE, 4):
            # `ori`, whose bytes are the same from behind.
            outer, inner = 0x60 + draw.randrange(4), draw.randrange(256)
            words += bytes((outer, inner, inner, outer))
        for guest in self.guests:
            guest.memory.write(0, bytes(words))
        self._harmless = bytes(words)

    def run(self, case: Drawn) -> list[dict[str, object]]:
        """What the guests' states are after some instructions, the case's the first; memory is put back."""
        return [self._one(guest, case) for guest in self.guests]

    def _one(self, guest: Guest, case: Drawn) -> dict[str, object]:
        cia = case.registers["CIA"]
        guest.memory.store(cia, 4, case.word, case.mode[1])
        guest.engine.forget(cia)
        thread = thread_of(guest, case)
        if isinstance(guest.engine, NativeEngine):
            assert isinstance(thread, NativeThread)
            decoded = guest.engine.pages_of(thread)
            decoded.add(cia >> PAGE_SHIFT)
            decoded.decode(cia)
            put_in_lines(guest.engine)
        guest.memory.dirty.take()
        guest.advance(thread, 2 * BLOCK_INSTRUCTIONS)
        found: dict[str, object] = {**registers(thread), "reservation": thread.reservation}
        dirty = guest.memory.dirty.take()
        found["memory"] = [(page, guest.memory.read(page << 12, 4096)) for page in dirty]
        for page in {cia >> 12, *dirty}:
            guest.memory.write(page << 12, self._harmless[page << 12 : (page + 1) << 12])
            guest.engine.forget_code(page << 12, 4096)
        return found


def test_each_instruction_does_the_same_in_a_line() -> None:
    everyday = {instruction for instruction, _ in everyday_keys()}
    # The package brings stencils of 64-bit mode.
    cases = [case for case in drawn(11, 4000) if case.instruction in everyday and case.mode[0]]
    ensure((case.word, case.mode) for case in cases)
    guests = Guests()
    for case in cases:
        concrete, native = guests.run(case)
        assert native == concrete, f"{case.instruction.mnemonic} {case.word:#010x} in mode {case.mode}"
    assert len(cases) > 300


def test_numbers_of_each_kind_and_common_uses() -> None:
    """These choose between the stencils of an instruction."""
    texts = [
        *(
            "nop",
            "ori 7,7,0",
            "ori 7,8,0",
            "ori 7,7,1",
            "oris 7,8,0x8000",
            "or 7,8,8",
            "or. 7,8,8",
            "or 7,8,9",
        ),
        *("rlwinm 7,8,5,3,20", "rlwinm 7,8,5,0,31", "rlwinm 7,8,5,20,3", "rlwinm. 7,8,31,31,31"),
        *("rldicl 7,8,63,1", "rldicl 7,8,0,32", "rldicl 7,8,0,33", "rldicr 7,8,3,60", "rldicr 7,8,9,31"),
        *(
            "rldimi 7,8,4,50",
            "rlwimi 7,8,4,3,5",
            "rlwimi 7,8,4,30,1",
            "addis 7,8,-32768",
            "andis. 7,8,0xffff",
        ),
    ]
    words = [int.from_bytes(assemble(text), "big") for text in texts]
    states = [case for case in drawn(12, 4000) if case.instruction.mnemonic in ("add", "ori", "or", "and")]
    cases = [case for case in states if case.mode[0]]
    wanted = [replace(case, word=word) for case in cases for word in words]
    guests = Guests()
    for case in wanted:
        concrete, native = guests.run(case)
        assert native == concrete, f"{case.word:#010x} in mode {case.mode}"
    assert len(wanted) >= 4 * len(words)
