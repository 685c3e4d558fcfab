"""Regions do what the concrete evaluator does, to the instruction, wherever they are put in and left."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from random import Random
from typing import Any

import pytest

from chronovisor.engine.concrete import ConcreteEngine, Reason
from chronovisor.engine.native import code_cache
from chronovisor.engine.native import pages as decoded
from chronovisor.engine.native.compile_service import Prepare
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.enter import INSTRUCTIONS_PER_SAMPLE
from chronovisor.engine.native.layout import PAGE_SHIFT, RECORD_SIZE, WAYS, Tlb
from chronovisor.engine.native.state import NativeThread
from chronovisor.engine.native.state_layout import SAMPLES
from chronovisor.engine.regions import heat as hot_pages
from chronovisor.engine.regions import placing, tier
from chronovisor.engine.regions import worker as workers
from chronovisor.engine.regions.compile import (
    WantedRegion,
    compile_region,
    encode_page,
    fingerprint,
    page_digest,
    page_name,
)
from chronovisor.engine.state import CACHE_BLOCK, Thread
from chronovisor.isa.assembly import assemble
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.isa.radix import PRIVILEGED
from chronovisor.memory.watched import Watchpoint

from .native_guest import CODE, KERNEL, Guest, registers
from .page_tables import KERNEL as EFFECTIVE
from .page_tables import PID, PageTables
from .region_exits import Exits
from .region_mutants import MUTANTS
from .region_programs import DATA, carries, comparisons, program, start, strips, tangle

#: Interrupt handlers: each goes on behind the instruction that it was for.
_SKIP = "mfspr r30,SRR0; addi r30,r30,4; mtspr SRR0,r30; rfid"
HANDLERS = {0x300: f"addi r31,r31,1; {_SKIP}", 0x600: _SKIP, 0x700: _SKIP, 0xC00: "addi r27,r27,1; rfid"}
TRANSLATED = int(MSR.IR | MSR.DR)
MODES = {
    "64be": KERNEL,
    "64le": KERNEL | int(MSR.LE),
    "32be": KERNEL & ~int(MSR.SF),
    "64be translated": KERNEL | TRANSLATED,
    "64le translated": KERNEL | TRANSLATED | int(MSR.LE),
}
RADIX = int(LPCR.HR | LPCR.UPRT | LPCR.GTSE)
ALL = 0x18F
"""A page that the kernel may read, write and execute; referenced and changed."""
FACILITIES = int(MSR.FP | MSR.VEC | MSR.VSX)
MOST = 3000
"""Instructions of a program that are compared: a program may have made its counters large."""


@dataclass(frozen=True)
class Case:
    """A program, where it lies, and how its pages are mapped if they are translated."""

    text: str
    at: int
    msr: int
    values: dict[str, int]
    scattered: int
    """The real address of the program's second page if translation leads there, else 0."""
    decoy: str
    """What lies behind the first page then."""

    @classmethod
    def drawn(cls, draw: Random, program: Callable[[Random], str] = program) -> Case:
        """A random case; many programs cross into another page, somewhere."""
        # A strip that goes too far meets another page only if addresses are translated.
        modes = [name for name in MODES if "translated" in name] if program is strips else list(MODES)
        msr = MODES[draw.choice(modes)]
        text = program(draw)
        at = CODE + draw.choice((0, 0x1000 - draw.randrange(4, len(assemble(text, 0)), 4)))
        scattered = CODE + 0x5000 if msr & TRANSLATED and draw.random() < 0.4 else 0
        return cls(text, at, msr, start(draw), scattered, program(draw))

    @property
    def code(self) -> bytes:
        """The program's bytes."""
        return assemble(self.text, self.at, bool(self.msr & MSR.LE))


class Run:
    """One engine's guest with a program, and its thread."""

    def __init__(self, engine: type[ConcreteEngine], case: Case) -> None:
        self.case = case
        self.guest = Guest(engine, "nop", case.msr | FACILITIES)
        for vector, handler in HANDLERS.items():
            # Interrupts are entered in big-endian 64-bit mode: no LPCR[ILE].
            self.guest.memory.write(vector, assemble(handler, vector, False))
        self.guest.memory.write(DATA, Random(3).randbytes(0x2000))
        self.guest.place(case.at, case.text)
        self.thread: Thread = self.guest.thread(case.at, False, **case.values)
        if case.scattered:
            self.guest.memory.write(case.scattered, self.guest.memory.read(CODE + 0x1000, 0x1000))
            self.guest.place(CODE + 0x1000, case.decoy)
        if case.msr & TRANSLATED:
            self._translate()
        self.guest.memory.dirty.take()

    def _translate(self) -> None:
        """Map the code in the kernel's quadrant, and the data."""
        tables = self.tables = PageTables(self.guest.memory)
        for page in range(CODE, CODE + 0x3000, 0x1000):
            moved = self.case.scattered if page == CODE + 0x1000 else 0
            tables.map(EFFECTIVE | page, moved or page, 12, ALL)
        for page in range(DATA - 0x1000, DATA + 0x2000, 0x1000):
            # What follows the first page of data lies elsewhere in real memory.
            tables.map(page, page + 0x1000 if page == DATA + 0x1000 else page, 12, ALL)
        for name, value in {"LPCR": RADIX, "PATE1": tables.process_table, "PIDR": PID}.items():
            self.thread.set(name, value)
        self.thread.CIA |= EFFECTIVE

    def change(self, offset: int) -> None:
        """Another instruction in the place of one of the program's."""
        place = self.case.at + offset
        if self.case.scattered and place >= CODE + 0x1000:
            place += self.case.scattered - CODE - 0x1000
        self.guest.place(place, "addi r6,r6,3")
        self.guest.engine.forget(place)

    def seen(self) -> tuple[object, ...]:
        return registers(self.thread), self.guest.memory.read(DATA - 0x1000, 0x5000)


def put_in(run: Run, hots: list[int]) -> int:
    """Compile regions around some offsets of the program and put them in; how many there were.

    Every other region begins at its offset.
    """
    engine, thread = run.guest.engine, run.thread
    assert isinstance(engine, NativeEngine)
    assert isinstance(thread, NativeThread)
    pages, made = engine.pages_of(thread), 0
    for number, hot in enumerate(hots):
        page, offset = divmod(run.case.at + hot, 1 << PAGE_SHIFT)
        snapshots = {n: pages.snapshot(page + n) for n in range(-1, 4)}
        contents = {n: snapshot.content for n, snapshot in snapshots.items()}
        starts = (offset,) if number % 2 else ()
        region = placing.load(compile_region(WantedRegion(pages.library.mode, contents, offset, starts)))
        assert placing.put_in(pages, snapshots, region)
        made += bool(region.handlers)
    return made


def compare_runs(
    seed: int, draw: Random, runs: list[Run], most_of_few: int, changes: bool, meanwhile: Callable[[], None]
) -> int:
    """How many states were compared of two runs, cut into pieces of few instructions or of many.

    After each piece there is a `meanwhile`, and if there are to be `changes`, maybe one of the program.
    """
    compared, executed, size = 0, 0, len(runs[0].case.code)
    while executed < MOST:
        count = draw.choice((draw.randrange(1, most_of_few), draw.randrange(1, 400)))
        stops = [run.guest.advance(run.thread, count) for run in runs]
        seen = [run.seen() for run in runs]
        assert seen[0] == seen[1], f"seed {seed}, after {executed} to {executed + count} instructions"
        compared += 1
        executed = runs[0].thread.executed
        if stops[0].reason is Reason.HYPERCALL:
            break
        meanwhile()
        if changes and draw.random() < 0.5:
            changed = draw.randrange(0, size, 4)
            for run in runs:
                run.change(changed)
    dirty = [run.guest.memory.dirty.take() for run in runs]
    assert dirty[0] == dirty[1], f"seed {seed}: other pages are logged"
    return compared


def _compare(seed: int, program: Callable[[Random], str] = program) -> tuple[int, int]:
    """How many states were compared, and how many regions there were."""
    draw = Random(seed)
    case = Case.drawn(draw, program)
    runs = [Run(engine, case) for engine in (ConcreteEngine, NativeEngine)]
    hots = [draw.randrange(0, len(case.code), 4) for _ in range(3)]
    late, changes = draw.random() < 0.3, draw.random() < 0.4
    made = 0 if late else put_in(runs[1], hots)

    def put_in_late() -> None:
        nonlocal made
        if late and not made:
            made = put_in(runs[1], hots)

    return compare_runs(seed, draw, runs, 9, changes, put_in_late), made


def compare_many(
    seeds: Sequence[int], exits: Exits | None = None, program: Callable[[Random], str] = program
) -> None:
    """Compare the programs of these seeds."""
    found = []
    for seed in seeds:
        found.append(_compare(seed, program))
        if exits is not None:
            exits.note(seed)
    assert sum(compared for compared, _ in found) > 5 * len(seeds)
    assert sum(made for _, made in found) > len(seeds)


#: Few programs that together take every exit of regions: the table of exits says which seeds to choose.
TELLING = (1, 3, 6, 24, 51, 68, 95, 138, 239, 283)
#: Programs without a form in which control comes into the middle of tight loops.
TANGLED = (32, 45, 53, 92, 149)


def test_random_programs_take_every_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    exits = Exits(monkeypatch)
    compare_many(TELLING, exits)
    exits.check()


def test_control_may_come_into_the_middle_of_loops() -> None:
    compare_many(TANGLED, program=tangle)


def test_carries_in_tight_loops() -> None:
    compare_many(range(20), program=carries)


def test_comparisons_in_tight_loops() -> None:
    compare_many(range(20), program=comparisons)


def test_straight_tight_loops() -> None:
    compare_many(range(8), program=strips)


def test_a_region_that_is_left_where_another_thread_has_taken_it_out() -> None:
    """Its budget is used up at an entry whose record has the instruction's own handler again."""
    text = "outer: addi r3,r3,1; inner: addi r4,r4,1; xor r5,r5,r4; bc 16,0,inner; mtctr r6; b outer"
    case = Case(text, CODE, KERNEL, {"CTR": 9, "r6": 9}, 0, "nop")
    runs = [Run(engine, case) for engine in (ConcreteEngine, NativeEngine)]
    assert put_in(runs[1], [0]) == 1
    engine, thread = runs[1].guest.engine, runs[1].thread
    assert isinstance(engine, NativeEngine)
    assert isinstance(thread, NativeThread)
    records, place = engine.pages_of(thread)._record(CODE + 4)
    plain = decoded.plain_place(CODE + 4)
    assert records[plain], "the inner loop is an entry"
    records[place], records[plain] = records[plain], 0
    for count in range(1, 60):
        for run in runs:
            run.guest.advance(run.thread, count)
        assert runs[0].seen() == runs[1].seen()
    assert thread.done_in_regions


def test_a_tight_loop_that_is_left_and_entered_in_its_middle() -> None:
    """Code behind the loop returns to a place behind a call, from which a jump leads into the loop."""
    text = "call: bl head; b middle; head: addi r3,r3,1; andi. r5,r3,1; bc 4,2,middle; bclr 20,0,0; "
    text += "middle: add r4,r4,r3; bc 16,0,head; mtctr r6; b call"
    case = Case(text, CODE, KERNEL, {"CTR": 9, "r6": 9}, 0, "nop")
    runs = [Run(engine, case) for engine in (ConcreteEngine, NativeEngine)]
    assert put_in(runs[1], [8]) == 1
    for count in range(1, 60):
        for run in runs:
            run.guest.advance(run.thread, count)
        assert runs[0].seen() == runs[1].seen(), count
    thread = runs[1].thread
    assert isinstance(thread, NativeThread)
    assert thread.done_in_regions > 500


@pytest.mark.parametrize("bit", [MSR.FP, MSR.VEC, MSR.VSX])
def test_a_facility_that_is_off_is_found_off_behind_others(bit: MSR) -> None:
    text = (
        "loop: addi r3,r3,1; lfd f1,8(r20); lvx v3,0,r20; lxvx vs9,0,r20; lfd f2,8(r20); bc 16,0,loop; sc 1"
    )
    runs = [
        Run(e, Case(text, CODE, KERNEL, {"CTR": 9, "r20": DATA}, 0, "nop"))
        for e in (ConcreteEngine, NativeEngine)
    ]
    assert put_in(runs[1], [0]) == 1
    for run in runs:
        run.guest.advance(run.thread, 8)
        run.thread.set_msr(run.thread.MSR & ~int(bit))
        run.guest.advance(run.thread, 12)
    assert runs[0].seen() == runs[1].seen()
    assert runs[1].thread.MSR & FACILITIES == 0, "the interrupt was not entered"


def test_instructions_in_regions_are_counted() -> None:
    text = "loop: addi r3,r3,1; addi r4,r4,1; xor r5,r5,r4; bc 16,0,loop; li r6,7; li r7,8; sc 1"
    # Of many pieces none is ended by handlers.
    run = Run(NativeEngine, Case(text, CODE, KERNEL, {"CTR": 100_000}, 0, "nop"))
    assert isinstance(run.thread, NativeThread)
    assert put_in(run, [0]) == 1
    run.guest.until_called(run.thread)
    assert (run.thread.executed, run.thread.done_in_regions) == (400_003, 400_000)


def _compare_code_that_changes() -> None:
    """A loop over two pages: its entry is in the first, and an instruction of the second changes."""
    text = "loop: addi r3,r3,1; addi r4,r4,1; addi r5,r5,1; bc 16,0,loop; sc 1"
    case = Case(text, CODE + 0xFF8, KERNEL, {"CTR": 1000}, 0, "nop")
    runs = [Run(engine, case) for engine in (ConcreteEngine, NativeEngine)]
    assert put_in(runs[1], [0]) == 1
    for changed in (8, 4, 8):
        for run in runs:
            run.guest.advance(run.thread, 301)
        assert runs[0].seen() == runs[1].seen(), "seed: none"
        for run in runs:
            run.change(changed)
            run.guest.advance(run.thread, 302)
        assert runs[0].seen() == runs[1].seen(), "seed: none"
        assert put_in(runs[1], [0]) == 1


def test_code_that_changes_in_another_page() -> None:
    _compare_code_that_changes()


def test_a_region_of_code_that_has_changed_since_is_not_put_in() -> None:
    text = "loop: addi r3,r3,1; addi r4,r4,1; addi r5,r5,1; bc 16,0,loop; sc 1"
    run = Run(NativeEngine, Case(text, CODE + 0xFF8, KERNEL, {"CTR": 1000}, 0, "nop"))
    assert isinstance(run.guest.engine, NativeEngine)
    assert isinstance(run.thread, NativeThread)
    pages = run.guest.engine.pages_of(run.thread)
    snapshots = {n: pages.snapshot((CODE >> PAGE_SHIFT) + n) for n in range(2)}
    contents = {n: snapshot.content for n, snapshot in snapshots.items()}
    region = placing.load(compile_region(WantedRegion(pages.library.mode, contents, 0xFF8)))
    assert set(region.region.pages) == {0, 1}
    run.change(8)
    assert not placing.put_in(pages, snapshots, region)


def test_a_page_that_changes_before_a_fetch_is_led_to_it() -> None:
    """A region goes on in its second page, which changes without `icbi` before anything is fetched there."""
    text = "loop: addi r3,r3,1; addi r4,r4,1; addi r5,r5,1; bc 16,0,loop; sc 1"
    case = Case(text, CODE + 0xFF8, MODES["64le translated"], {"CTR": 100}, 0, "nop")
    runs = [Run(engine, case) for engine in (ConcreteEngine, NativeEngine)]
    assert put_in(runs[1], [0]) == 1
    for run in runs:
        run.guest.place(case.at + 8, "addi r5,r5,2")
        run.guest.until_called(run.thread)
    assert runs[0].seen() == runs[1].seen()


def test_icbi_of_code_that_a_region_alone_has_executed() -> None:
    """The block was never decoded: the region goes on in it."""
    text = f"begin: {'addi r3,r3,1; ' * 40} b tail; {'nop; ' * 40}"
    text += "tail: sc 1; stw r20,0(r21); sync 0; icbi 0,r21; isync; b begin"
    changed = int.from_bytes(assemble("addi r3,r3,100", 0, False), "big")
    case = Case(text, CODE, MODES["64be"], {"r20": changed, "r21": CODE + 4 * 36}, 0, "nop")
    runs = [Run(engine, case) for engine in (ConcreteEngine, NativeEngine)]
    assert put_in(runs[1], [0]) == 1
    for run in runs:
        run.guest.until_called(run.thread)
        assert run.thread.gpr[3] == 40
        run.guest.until_called(run.thread)
        assert run.thread.gpr[3] == 40 + 39 + 100
    assert isinstance(runs[1].thread, NativeThread)
    assert runs[1].thread.done_in_regions > 40


def test_what_is_decoded_is_marked_until_it_is_forgotten() -> None:
    """Without its mark icbi of a block does nothing."""
    run = Run(NativeEngine, Case("nop; sc 1", CODE, MODES["64be"], {}, 0, "nop"))
    engine, thread = run.guest.engine, run.thread
    assert isinstance(engine, NativeEngine)
    assert isinstance(thread, NativeThread)
    pages, block = engine.pages_of(thread), CODE // CACHE_BLOCK
    assert not engine._code_blocks[block]
    assert pages.add(CODE >> PAGE_SHIFT)
    assert pages.decode(CODE)
    assert engine._code_blocks[block]
    engine.forget(CODE)
    assert not engine._code_blocks[block]


def test_a_load_beside_a_store_is_looked_up_as_a_load() -> None:
    """Stores to a page may be free while loads from it are watched; AMR can forbid loads alone too."""
    text = "loop: std r5,16(r8); isync; ld r3,0(r8); std r3,8(r8); bc 16,0,loop; sc 1"
    case = Case(text, CODE, KERNEL, {"CTR": 100, "r8": DATA}, 0, "nop")
    runs = [Run(engine, case) for engine in (ConcreteEngine, NativeEngine)]
    assert put_in(runs[1], [8]) == 1
    for run in runs:
        run.guest.engine.run(run.thread, 50)
        assert run.thread.CIA == CODE
        run.guest.engine.watch([Watchpoint(DATA, 8, loads=True, stores=False)])
        stop = run.guest.engine.run(run.thread, 1000)
        assert (stop.reason, run.thread.CIA) == (Reason.WATCHPOINT, CODE + 8)
    assert runs[0].seen() == runs[1].seen()


def test_amr_can_forbid_loads_beside_stores() -> None:
    """Linux's copies to user space do so. Interrupts skip the loads."""
    text = "loop: std r5,16(r8); isync; ld r3,0(r8); std r3,8(r8); bc 16,0,loop; sc 1"
    values = {"CTR": 100, "r8": DATA, "AMR": 1 << 62}
    case = Case(text, CODE, MODES["64be translated"], values, 0, "nop")
    runs = [Run(engine, case) for engine in (ConcreteEngine, NativeEngine)]
    for run in runs:
        leaf = run.tables.map(DATA, DATA, 12, ALL)
        run.guest.memory.store(leaf, 8, run.guest.memory.load(leaf, 8, False) & ~PRIVILEGED, False)
    assert put_in(runs[1], [8]) == 1
    for run in runs:
        run.guest.until_called(run.thread)
        assert run.thread.gpr[31] == 100
    assert runs[0].seen() == runs[1].seen()


def test_tlbie_reaches_pages_that_are_looked_up_for_loads_and_stores() -> None:
    text = "loop: ld r3,0(r8); addi r3,r3,1; std r3,0(r8); sc 1; tlbie r24,r25,0,1,1; tlbsync; b loop"
    values = {"r8": DATA, "r24": DATA, "r25": PID << 32}
    case = Case(text, CODE, MODES["64le translated"], values, 0, "nop")
    runs = [Run(engine, case) for engine in (ConcreteEngine, NativeEngine)]
    assert put_in(runs[1], [4]) == 1
    for run in runs:
        leaf = run.tables.map(DATA, DATA, 12, ALL)
        entry = run.guest.memory.load(leaf, 8, False)
        for turn in range(6):
            run.guest.until_called(run.thread)
            run.guest.memory.store(leaf, 8, entry ^ (0x1000 if turn % 2 == 0 else 0), False)
        assert run.guest.memory.load(DATA ^ 0x1000, 8, True) == run.thread.gpr[3]
    assert runs[0].seen() == runs[1].seen()


@pytest.mark.parametrize("pages", [2, 3])
def test_pages_that_the_tlb_has_side_by_side(pages: int) -> None:
    """Two pages of one place in the TLB are not in each other's way; three are, and nothing is wrong."""
    text = "loop: ld r3,0(r8); std r3,8(r9); ld r4,0(r9); std r4,16(r10); ld r5,24(r10); std r5,0(r8);"
    # With a call the loop is not tight: there each access remembers its own page.
    text += "bl leaf; bc 16,0,loop; sc 1; tlbie r24,r25,0,1,1; tlbsync; mtctr r26; b loop; leaf: bclr 20,0,0"
    others = [DATA + (number % pages << 22) for number in range(3)]
    values = {"CTR": 300, "r8": others[0], "r9": others[1], "r10": others[2], "r26": 50}
    values |= {"r24": others[1], "r25": PID << 32}
    case = Case(text, CODE, MODES["64le translated"], values, 0, "nop")
    runs = [Run(engine, case) for engine in (ConcreteEngine, NativeEngine)]
    assert put_in(runs[1], [0]) == 1
    for run in runs:
        leaves = [run.tables.map(DATA + (n << 22), DATA + 0x1000 * (n - 1), 12, ALL) for n in (1, 2)]
        run.guest.until_called(run.thread)
        entry = run.guest.memory.load(leaves[0], 8, False)
        run.guest.memory.store(leaves[0], 8, entry + 0x1000, False)
        run.guest.until_called(run.thread)
    assert runs[0].seen() == runs[1].seen()
    assert isinstance(runs[1].thread, NativeThread)
    assert runs[1].thread.done_in_regions > 1000
    assert (Tlb.from_address(runs[1].thread.tlb).moves > 300) == (pages > WAYS)


def _compare_a_walk_over_pages() -> None:
    """A tight loop whose accesses come to other pages, and lie in two of them now and then.

    The TLB has all of the pages before. Two of them do not lie beside each other in real memory.
    """
    text = "".join(f"ld r5,{at}(r20); std r5,{at}(r20); " for at in (-0x800, 0x800, 0x1800))
    text += "loop: ld r3,0(r8); add r4,r4,r3; std r4,0(r9); addi r8,r8,25; addi r9,r9,-25; bc 16,0,loop; sc 1"
    # Of both, one access begins 4 bytes before DATA + 0x1000.
    values = {
        "r20": DATA,
        "CTR": 0x2F00 // 25 - 1,
        "r8": DATA + 0xFFC - 25 * 327,
        "r9": DATA + 0xFFC + 25 * 153,
    }
    case = Case(text, CODE, MODES["64le translated"], values, 0, "nop")
    runs = [Run(engine, case) for engine in (ConcreteEngine, NativeEngine)]
    assert put_in(runs[1], [24]) == 1
    for run in runs:
        run.guest.until_called(run.thread)
    assert runs[0].seen() == runs[1].seen(), "seed: none"


def test_a_tight_loop_that_walks_over_pages() -> None:
    _compare_a_walk_over_pages()


def _compare_an_overflow_of_long_ago() -> None:
    """Comparisons in a tight loop copy SO, which nothing in the loop sets."""
    text = "loop: addi r3,r3,1; cmp 1,1,r3,r4; mfcr r5; cmp 6,0,r4,r3; bc 16,0,loop; sc 1"
    values = {"CTR": 99, "r3": 0, "r4": 50, "XER": 1 << 31}
    runs = [Run(e, Case(text, CODE, KERNEL, values, 0, "nop")) for e in (ConcreteEngine, NativeEngine)]
    assert put_in(runs[1], [0]) == 1
    for count in (7, 41, 100, 300, 200):
        for run in runs:
            run.guest.advance(run.thread, count)
        assert runs[0].seen() == runs[1].seen(), "seed: none"


def test_an_overflow_of_long_ago_is_copied_in_a_tight_loop() -> None:
    _compare_an_overflow_of_long_ago()


def test_a_tight_loop_is_entered_again_from_the_same_function() -> None:
    """A field of CR that the loop changes has changed behind the loop, and the loop is left at once."""
    text = "li r28,9; outer: li r29,2; inner: nop; addic r29,r29,-1; cmpi 7,0,r29,0; bc 12,29,inner; "
    text += "addi r28,r28,-1; cmpi 7,0,r28,0; bc 12,29,outer; sc 1"
    compared = 0
    for count in range(1, 40):
        case = Case(text, CODE, KERNEL, {"r28": 9}, 0, "nop")
        runs = [Run(engine, case) for engine in (ConcreteEngine, NativeEngine)]
        assert put_in(runs[1], [0]) == 1
        for _ in range(3):
            for run in runs:
                run.guest.advance(run.thread, count)
            assert runs[0].seen() == runs[1].seen(), f"after {runs[0].thread.executed} instructions"
            compared += 1
    assert compared == 117


def test_a_page_in_its_second_entry_is_not_taken_for_the_one_behind_it() -> None:
    """An access that ends in the next page, which lies elsewhere in real memory."""
    text = "loop: ld r3,0(r8); ld r4,0(r9); ld r5,0(r10); add r6,r6,r5; bl leaf; bc 16,0,loop; sc 1; "
    text += "leaf: bclr 20,0,0"
    values = {"CTR": 9, "r8": DATA, "r9": DATA + (1 << 22), "r10": DATA + 0xFFC}
    case = Case(text, CODE, MODES["64le translated"], values, 0, "nop")
    runs = [Run(engine, case) for engine in (ConcreteEngine, NativeEngine)]
    assert put_in(runs[1], [0]) == 1
    for run in runs:
        run.tables.map(DATA + (1 << 22), DATA - 0x1000, 12, ALL)
        run.guest.until_called(run.thread)
    assert runs[0].seen() == runs[1].seen()


def _compare_all() -> None:
    _compare_code_that_changes()
    _compare_an_overflow_of_long_ago()
    _compare_a_walk_over_pages()
    compare_many(range(200))
    compare_many(TANGLED, program=tangle)
    compare_many(range(20), program=carries)
    compare_many(range(60), program=comparisons)
    compare_many(range(20), program=strips)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "a register is not stored" else pytest.mark.soak)
        for name in MUTANTS
    ],
)
def test_a_mutant_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    with pytest.raises(AssertionError, match="seed"):
        _compare_all()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_can_be_called_as_what_it_replaces(name: str) -> None:
    """Otherwise nobody would know before the long tests are run."""
    replaced: list[tuple[object, Any]] = []

    class Patch(pytest.MonkeyPatch):
        def setattr(self, owner: Any, attribute: str, value: object) -> None:  # type: ignore[override]
            replaced.append((inspect.getattr_static(owner, attribute), value))

    MUTANTS[name](Patch())
    assert replaced
    for whole, mutant in replaced:
        theirs = inspect.signature(mutant).parameters.values()
        if any(one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in theirs):
            continue
        # A function that takes a static method's place is given the object too.
        static = isinstance(whole, staticmethod)
        assert len(theirs) == static + len(inspect.signature(whole).parameters), whole


class _Noted:
    """Takes the place of the thread that looks for regions."""

    def __init__(self) -> None:
        self.tasks: list[object] = []

    def put(self, tasks: list[object]) -> None:
        self.tasks += tasks


class _Turns:
    """A compile service whose requests' turns come when a test says so."""

    def __init__(self, *arguments: object, **options: object) -> None:
        self.prepares: Queue[Prepare] = Queue()

    def ask_in_turn(self, prepare: Prepare) -> None:
        self.prepares.put(prepare)


def test_regions_on_disk_are_found_by_the_next_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHRONOVISOR_CACHE", str(tmp_path / "code"))
    loop = assemble("loop: addi r3,r3,1; addi r4,r4,-1; cmpi 0,1,r4,0; bc 4,2,loop", 0)
    page = loop.ljust(1 << PAGE_SHIFT, b"\0")
    made = compile_region(WantedRegion((True, False), {0: page}, 0))
    assert made.entries
    name = page_name((True, False), page_digest(page))
    code_cache.keep(name, fingerprint(), encode_page([made]))
    worker = workers.Worker()
    assert [one.region for one in worker._regions(name)] == [made]
    assert worker._regions(page_name((True, True), page_digest(page))) == []


def test_the_hottest_page_is_compiled_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And not the one that was hot first, or was hot long ago."""
    monkeypatch.setenv("CHRONOVISOR_CACHE", str(tmp_path))
    monkeypatch.setattr(workers, "CompileService", _Turns)
    worker = workers.Worker()
    monkeypatch.setattr(tier, "worker", lambda: worker)
    run = Run(NativeEngine, Case("loop: b loop", CODE, KERNEL, {}, 0, "nop"))
    assert isinstance(run.guest.engine, NativeEngine)
    assert isinstance(run.thread, NativeThread)
    pages, made = run.guest.engine.pages_of(run.thread), tier.RegionTier()
    turns: Queue[Prepare] = worker._service.prepares  # type: ignore[attr-defined]
    run.thread.samples_taken = run.thread.sample_count = 0

    def sample(page: int, times: int) -> None:
        for _ in range(times):
            one = run.thread.samples[run.thread.sample_count % 256]
            # What is hot tells the page.
            one.entry, one.base, one.offset = pages.address + 8 * page, page << PAGE_SHIFT, 4 * page
            run.thread.sample_count += 1
            made.look(run.thread, {pages.address: pages})

    for page in (1, 2, 3):
        run.guest.memory.write(page << PAGE_SHIFT, bytes([page]) * 8)
        sample(page, 1)
    prepares = []
    for page, times in ((1, 40), (2, 3 * hot_pages.HALF_LIFE), (3, 9)):
        # The first sample has the disk looked at, which is done before the page counts as hot.
        while any(heat.waits for entry, heat in made._heats.items() if entry == pages.address + 8 * page):
            time.sleep(0.001)
        sample(page, times)
        prepares.append(turns.get(timeout=60))
    asked = [prepare() for prepare in prepares]
    assert [one and one[0]["hot"] for one in asked] == [8, 12, 4]


def test_a_region_begins_where_handlers_come_to_code_that_regions_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noted = _Noted()
    monkeypatch.setattr(tier, "worker", lambda: noted)
    text = "loop: addi r3,r3,1; addi r4,r4,1; xor r5,r5,r4; bc 16,0,loop; sc 1"
    run = Run(NativeEngine, Case(text, CODE, KERNEL, {"CTR": 9}, 0, "nop"))
    assert put_in(run, [0]) == 1
    assert isinstance(run.guest.engine, NativeEngine)
    assert isinstance(run.thread, NativeThread)
    pages, made = run.guest.engine.pages_of(run.thread), tier.RegionTier()
    page = CODE >> PAGE_SHIFT
    heat = made._heats[pages.address + 8 * page] = hot_pages.Heat(
        pages.version(page), pages.lines.notes[page], asked=True, covered={0, 4, 8, 12}
    )
    run.thread.samples_taken = run.thread.sample_count = 0

    def sample(handlers_from: int) -> None:
        one = run.thread.samples[run.thread.sample_count % 256]
        one.entry, one.base, one.offset = pages.address + 8 * page, CODE, 12
        one.handlers_from = handlers_from
        run.thread.sample_count += 1
        made.look(run.thread, {pages.address: pages})

    first = pages.table[page]
    for _ in range(tier.MISSED):
        sample(first)  # a region begins there
        sample(pages.table[page] - RECORD_SIZE)  # in another page
    for _ in range(2 * tier.MISSED):
        sample(first + RECORD_SIZE)
        made.counts.samples += 2 * tier.MISSED_WITHIN // tier.MISSED  # now and then
    assert not noted.tasks
    before = heat.warmth(made.counts.samples)
    for number in range(tier.MISSED):
        sample(first + (1 + number % 2) * RECORD_SIZE)
    (task,) = noted.tasks
    assert isinstance(task, hot_pages.Task)
    assert (task.page, task.starts) == (page, (4, 8))
    # The more samples miss a region, the sooner it is compiled; those that come meanwhile are its starts too.
    assert task.warmth > before + tier.MISSED / 2
    before = task.warmth
    sample(first + RECORD_SIZE)
    assert task.warmth > before
    sample(first + 3 * RECORD_SIZE)
    assert heat.take_missed() == (12,)
    assert len(noted.tasks) == 1
    heat.waits = False
    for _ in range(2 * tier.MISSED):
        sample(first + RECORD_SIZE)  # it was asked for once
    assert len(noted.tasks) == 1


def _sampled(text: str, count: int, hots: list[int], **values: int) -> tuple[int, set[int]]:
    """How many samples a loop leaves, and the offsets of what handlers executed, as the latest ones tell."""
    run = Run(NativeEngine, Case(text, CODE, KERNEL, values, 0, "nop"))
    assert isinstance(run.guest.engine, NativeEngine)
    assert isinstance(run.thread, NativeThread)
    pages, page = run.guest.engine.pages_of(run.thread), CODE >> PAGE_SHIFT
    assert put_in(run, hots) == len(hots)
    while run.thread.executed < count:
        # A call of the hypervisor has no answer.
        run.guest.advance(run.thread, count - run.thread.executed)
    samples = [run.thread.samples[n] for n in range(min(run.thread.sample_count, SAMPLES))]
    assert all(one.entry == pages.address + 8 * page and one.base == CODE for one in samples)
    return run.thread.sample_count, {one.offset for one in samples}


def test_samples_tell_what_handlers_execute() -> None:
    """As often as they execute it, although regions end nearly all pieces."""
    count = 100 * INSTRUCTIONS_PER_SAMPLE
    taken, offsets = _sampled("loop: addi r3,r3,1; addi r4,r4,1; b loop", count, [])
    assert 90 < taken <= 100
    assert offsets <= {0, 4, 8}
    assert _sampled("loop: addi r3,r3,1; addi r4,r4,1; b loop", count, [0]) == (0, set())
    # One instruction of ten is for handlers alone.
    # A region comes last that only another one comes to: it tells nothing of handlers.
    text = "loop: isync; " + "addi r3,r3,1; xor r4,r4,r3; " * 2 + "bcctr 20,0,0; nop; "
    text += "last: addi r3,r3,1; xor r4,r4,r3; nop; b loop"
    taken, offsets = _sampled(text, count, [4, 28], CTR=CODE + 28)
    assert 5 < taken < 15
    assert offsets == {0}


def test_samples_tell_of_a_loop_that_repeats_exactly() -> None:
    """Pieces of one length would all end at the same of its instructions: each time in the region."""
    due, begins = 200, 16
    for length in (4, 6, 9, 11, 13):
        text = "loop: isync; nop; bcctr 20,0,0; nop; " + "addi r3,r3,1; " * (length - 1) + "b loop"
        hots = [begins, begins]
        taken, offsets = _sampled(text, due * INSTRUCTIONS_PER_SAMPLE, hots, CTR=CODE + begins)
        of_handlers = due * 3 / (3 + length)
        # The first one is due at once.
        assert of_handlers / 2 < taken <= of_handlers + 1
        assert offsets <= {4, 8}


def test_samples_tell_of_code_that_calls_the_hypervisor_often() -> None:
    """What is executed between two calls is less than a piece, and the same each time."""
    text = (
        "loop: li r5,300; mtctr r5; one: addi r3,r3,1; bdnz one; mtctr r5; two: nop; bdnz two; sc 1; b loop"
    )
    taken, offsets = _sampled(text, 100 * INSTRUCTIONS_PER_SAMPLE, [])
    assert 20 < taken <= 100
    assert {8, 12} & offsets
    assert {20, 24} & offsets


def test_samples_of_several_threads_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each vCPU's thread hands in its own, whenever it likes."""
    noted = _Noted()
    monkeypatch.setattr(tier, "worker", lambda: noted)
    run = Run(NativeEngine, Case("loop: b loop", CODE, KERNEL, {}, 0, "nop"))
    assert isinstance(run.guest.engine, NativeEngine)
    made, page = tier.RegionTier(), CODE >> PAGE_SHIFT
    threads = [run.thread, run.guest.thread()]

    def hand_in(thread: NativeThread) -> None:
        pages = run.guest.engine.pages_of(thread)  # type: ignore[attr-defined]
        heat = made._heat(pages, page)
        thread.samples_taken = thread.sample_count = 0
        for number in range(6000):
            one = thread.samples[number % 256]
            one.entry, one.base, one.offset = pages.address + 8 * page, CODE, number * 36 % 4096
            thread.sample_count += 1
            made.look(thread, {pages.address: pages})
            heat.asked, heat.waits = True, False

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(threads)) as pool:
            list(pool.map(hand_in, threads))
    finally:
        sys.setswitchinterval(before)
    assert made.counts.samples == 12000


def test_a_guest_that_makes_endless_new_code_gets_no_more_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page that gets hot is looked at, up to a bound."""
    noted = _Noted()
    monkeypatch.setattr(tier, "worker", lambda: noted)
    monkeypatch.setattr(tier, "MOST_LOOKS", 3)
    run = Run(NativeEngine, Case("loop: b loop", CODE, KERNEL, {}, 0, "nop"))
    assert isinstance(run.guest.engine, NativeEngine)
    assert isinstance(run.thread, NativeThread)
    pages, made = run.guest.engine.pages_of(run.thread), tier.RegionTier()
    run.thread.sample_count = 0
    for page in range(20):
        for number in range(16):
            sample = run.thread.samples[(page * 16 + number) % 256]
            sample.entry, sample.base, sample.offset = pages.address + 8 * page, page << PAGE_SHIFT, 0
        run.thread.sample_count += 16
        made.look(run.thread, {pages.address: pages})
    assert len(noted.tasks) == 3


def test_a_guest_that_makes_endless_new_code_gets_no_more_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code goes through more pages than may have records, with regions in some of them."""
    monkeypatch.setattr(decoded, "MOST_PAGES", 8)
    text = "loop: addi r3,r3,1; addi r4,r4,-1; cmpi 0,1,r4,0; bc 4,2,loop; li r4,3; b .+0xfec"
    runs = []
    for engine in (ConcreteEngine, NativeEngine):
        guest = Guest(engine, "nop")
        for page in range(40):
            guest.place(CODE + (page << PAGE_SHIFT), text if page < 39 else f"b .-{39 << PAGE_SHIFT:#x}")
        runs.append((guest, guest.thread(CODE, r4=3)))
    pages = runs[1][0].engine.pages_of(runs[1][1])  # type: ignore[attr-defined]
    for step, count in enumerate([100] * 30 + [7] * 30):
        if step % 6 == 0:
            page = runs[1][1].CIA >> PAGE_SHIFT
            snapshots = {n: pages.snapshot(page + n) for n in range(2)}
            contents = {n: snapshot.content for n, snapshot in snapshots.items()}
            assert placing.put_in(
                pages, snapshots, placing.load(compile_region(WantedRegion((True, False), contents, 0)))
            )
        for guest, thread in runs:
            guest.advance(thread, count)
        assert registers(runs[0][1]) == registers(runs[1][1])
        # Regions make the records of their pages beside.
        assert len(pages._records) <= 8 + 2
    assert runs[1][1].done_in_regions  # type: ignore[attr-defined]
