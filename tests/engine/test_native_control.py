"""Interrupts, contexts and invalidations in native code: against the concrete evaluator, between threads."""

from __future__ import annotations

import threading
import time
from random import Random

import pytest

from chronovisor.engine.concrete import ConcreteEngine, Stop
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.layout import CONTEXTS, PAGE_SHIFT, TLB_ENTRIES, TLB_INVALID, Tlb
from chronovisor.engine.native.state import NativeThread
from chronovisor.engine.state import Thread
from chronovisor.isa.bits import FSCR, LPCR, MSR
from chronovisor.timebase.clock import RealTime

from .native_guest import CODE, Guest, registers
from .page_tables import KERNEL, PID, PageTables

DATA = 0x9_0000
ALL = 0x187
"""Referenced, changed, readable, writable, executable."""
SF, ME, EE, DR, IR = (int(b) for b in (MSR.SF, MSR.ME, MSR.EE, MSR.DR, MSR.IR))
TRANSLATED = SF | ME | DR | IR
RADIX = int(LPCR.HR | LPCR.UPRT | LPCR.GTSE)

_SKIP = "mfspr r12,SRR0; addi r12,r12,4; mtspr SRR0,r12; rfid"
HANDLERS = {
    0x300: f"mfspr r14,DAR; add r15,r15,r14; {_SKIP}",
    0x400: f"addi r16,r16,1; {_SKIP}",
    0x700: f"addi r13,r13,1; {_SKIP}",
    0xC00: "addi r10,r10,1; rfid",
    0x17000: "addi r11,r11,1; rfscv",
}
LOOP = """
loop:
    sc
    scv 0
    tw 31,r0,r0
    ld r5,0(r20)
    ld r6,0(r21)
    add r7,r7,r6
    std r7,0(r21)
    mtspr 48,r22
    ld r6,0(r21)
    mtspr 48,r23
    tlbiel r24,r25,0,1,1
    ld r6,0(r21)
    tlbie r24,r25,2,1,1
    tlbsync
    ld r6,8(r21)
    mtmsrd r26,1
    addi r27,r27,-1
    cmpi 0,1,r27,0
    bc 4,2,loop
    sc 1
"""
ROUNDS = 300


def _guest(engine: type[ConcreteEngine], text: str) -> tuple[Guest, PageTables]:
    """Code that the kernel's quadrant maps, and one page of data of process PID."""
    guest = Guest(engine, text, TRANSLATED)
    for vector, handler in HANDLERS.items():
        guest.place(vector, handler)
    tables = PageTables(guest.memory)
    tables.map(KERNEL | CODE, CODE, 12, ALL | 8)
    tables.map(0x5000, DATA, 12, ALL & ~8)
    return guest, tables


def _thread(guest: Guest, tables: PageTables, **registers: int) -> Thread:
    thread = guest.thread(KERNEL | CODE, real=True, LPCR=RADIX, PIDR=PID, FSCR=int(FSCR.SCV), **registers)
    thread.set("PATE1", tables.process_table)
    return thread


def _looping(engine: type[ConcreteEngine]) -> tuple[Guest, Thread]:
    guest, tables = _guest(engine, LOOP)
    values = {"r20": 0x7000, "r21": 0x5000, "r22": PID + 1, "r23": PID, "r24": 0x5000, "r25": PID << 32}
    return guest, _thread(guest, tables, r27=ROUNDS, r26=int(MSR.RI), **values)


def test_interrupts_and_changes_of_context_stay_in_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """System calls, traps, faults, processes, invalidations: as the concrete evaluator does, without it."""
    steps = []

    def stepped(self: NativeEngine, state: NativeThread, budget: int) -> Stop:
        steps.append(state.CIA)
        return super(NativeEngine, self).run(state, budget)

    monkeypatch.setattr(NativeEngine, "_run_concrete", stepped)
    found = []
    for engine in (ConcreteEngine, NativeEngine):
        guest, thread = _looping(engine)
        guest.until_called(thread)
        found.append((registers(thread), guest.memory.read(DATA, 16), guest.memory.dirty.take()))
    assert found[0] == found[1]
    assert found[0][0]["r10"] == found[0][0]["r11"] == found[0][0]["r13"] == ROUNDS
    assert found[0][0]["executed"] > 30 * ROUNDS
    assert not steps


@pytest.mark.parametrize("seed", range(4))
def test_a_budget_may_end_anywhere(seed: int) -> None:
    """Cut into runs of a few instructions, the guest is the same after each."""
    draw = Random(seed)
    (concrete, one), (native, other) = _looping(ConcreteEngine), _looping(NativeEngine)
    compared = 0
    while compared < 150:
        count = draw.randrange(1, 12)
        concrete.advance(one, count)
        native.advance(other, count)
        assert registers(one) == registers(other)
        compared += 1


def test_more_processes_than_contexts() -> None:
    """Contexts are used anew for other processes, whose pages they do not keep."""
    guest, tables = _guest(NativeEngine, "loop: mtspr 48,r3; ld r4,0(r5); sc 1; b loop")
    count = 3 * CONTEXTS
    # All share one root; process n's page is what the table says while n runs.
    for process in range(1, count):
        entry = guest.memory.read(tables.process_table + 16 * PID, 16)
        guest.memory.write(tables.process_table + 16 * process, entry)
    place = tables.map(0x6000, DATA, 12, ALL & ~8)
    leaf = guest.memory.load(place, 8, False) - DATA
    thread = _thread(guest, tables, r5=0x6000)
    seen = 0
    for turn in range(2):
        for process in range(1, count):
            real = DATA + 0x1000 * (process % 8)
            guest.memory.store(real, 8, process % 8, False)
            if not turn:
                guest.memory.store(place, 8, leaf + real, False)
            thread.gpr[3] = process
            guest.until_called(thread)
            # In the second turn a context that was kept may still have its page of the first.
            seen += thread.gpr[4] == process % 8
    assert seen > count
    guest.engine.forget_translations()
    for process in (1, 2, count - 1):
        thread.gpr[3] = process
        guest.until_called(thread)
        assert thread.gpr[4] == (count - 1) % 8


def test_two_threads_that_invalidate_each_others_translations_both_go_on() -> None:
    """Each waits for the other at its tlbsync, again and again."""
    guest, tables = _guest(
        NativeEngine, "loop: ld r6,0(r21); tlbie r24,r25,0,1,1; tlbsync; bc 16,0,loop; sc 1"
    )
    threads = [
        _thread(guest, tables, CTR=200_000, r21=0x5000, r24=0x5000 + (ric << 10), r25=PID << 32)
        for ric in range(2)
    ]
    runs = [threading.Thread(target=guest.until_called, args=(thread,)) for thread in threads]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
        assert not run.is_alive()
    assert [thread.get("CTR") for thread in threads] == [0, 0]


def test_an_invalidation_while_entries_are_moved_empties_the_tlb() -> None:
    """The entry that another thread looks for may be on its way from one place to another."""
    guest, tables = _guest(NativeEngine, "ld r4,0(r21); sc 1; tlbie r24,r25,0,1,1; tlbsync; sc 1")
    tables.map(0x6000, DATA, 12, ALL & ~8)
    threads = [_thread(guest, tables, r21=0x6000, r24=0x6000, r25=PID << 32) for _ in range(2)]
    for thread in threads:
        guest.until_called(thread)
    moving, flusher = threads
    assert isinstance(moving, NativeThread)
    before = moving.flushes_asked
    Tlb.from_address(moving.tlb).moves += 1
    guest.until_called(flusher)
    assert moving.flushes_asked == before + 1


@pytest.mark.parametrize("also", ["", "ld r5,0(r22); "], ids=["alone", "beside another"])
def test_an_invalidation_of_one_page_reaches_the_other_thread(also: str) -> None:
    """A thread stores on and on; once tlbsync is done nothing arrives at the old place any more.

    It may also load from a page that has the same place in the TLB.
    """
    guest, tables = _guest(NativeEngine, "loop: tlbie r24,r25,0,1,1; tlbsync; sc 1; b loop")
    guest.place(CODE + 0x100, f"store: addi r4,r4,1; std r4,0(r21); {also}b store")
    tables.map(0x6000 + (TLB_ENTRIES << 12), DATA + 0x2000, 12, ALL & ~8)
    places = DATA, DATA + 0x1000
    place = tables.map(0x6000, places[0], 12, ALL & ~8)
    leaf = guest.memory.load(place, 8, False) - places[0]
    busy = _thread(guest, tables, r21=0x6000, r22=0x6000 + (TLB_ENTRIES << 12))
    busy.CIA += 0x100
    flusher = _thread(guest, tables, r24=0x6000, r25=PID << 32)
    stop: list[bool] = []

    def run() -> None:
        while not stop:
            guest.engine.run(busy, 1 << 20)

    runner = threading.Thread(target=run)
    runner.start()
    last, moved = 0, 0
    limit = time.monotonic() + 60
    try:
        for turn in range(1, 300):
            old, new = places[(turn - 1) % 2], places[turn % 2]
            # The other thread may have to wait for a processor: without its stores nothing is tested.
            while guest.memory.load(old, 8, False) <= last and time.monotonic() < limit:
                pass
            guest.memory.store(place, 8, leaf + new, False)
            guest.until_called(flusher)
            moved += guest.memory.load(old, 8, False) > last
            last = guest.memory.load(old, 8, False)
            for _ in range(50):
                assert guest.memory.load(old, 8, False) == last
    finally:
        stop.append(True)
        busy.exit_request = 1
        runner.join()
    assert moved == 299


class _Expired:
    """Live registers of the machine's own clock whose decrementer has expired a moment ago."""

    def __init__(self) -> None:
        self.deadline = RealTime().ticks() - 1

    def lend(self, time: NativeThread) -> None:
        time.tb_adjust, time.dec_deadline, time.dec_written = 0, self.deadline, 0
        time.virtual_ticks = time.ticks_per_instruction = time.pending = 0

    def take_back(self, time: NativeThread) -> None:
        self.deadline = time.dec_deadline


class _Raised(_Expired):
    """Live registers of the machine's own clock with the external interrupt's line raised."""

    def lend(self, time: NativeThread) -> None:
        time.tb_adjust = time.dec_written = time.virtual_ticks = time.ticks_per_instruction = 0
        time.dec_deadline, time.pending = 1 << 60, 1


@pytest.mark.parametrize("opened", ["before", "by the guest"])
def test_the_external_interrupt_is_entered_in_native_code(opened: str) -> None:
    """As long as its line is raised: its handler has EE off."""
    enable = "" if opened == "before" else "mtmsrd r26,1;"
    text = f"{enable} loop: addi r3,r3,1; b loop"
    guest = Guest(NativeEngine, text, SF | ME | (EE if opened == "before" else 0))
    guest.place(0x500, "addi r4,r4,1; stay: addi r5,r5,1; b stay")
    thread = guest.thread(real=True, r26=EE, LPCR=0)
    thread.live = _Raised()  # type: ignore[assignment]
    guest.engine.run(thread, 40_000)
    assert (thread.gpr[4], thread.entered_natively("EXTERNAL")) == (1, 1)
    assert thread.gpr[5] > 5000
    assert thread.MSR == SF | ME
    assert thread.executed == 40_000


@pytest.mark.parametrize("opened", ["before", "by the guest"])
def test_the_decrementers_interrupt_is_entered_in_native_code(opened: str) -> None:
    """Once, though the guest has EE on again behind it: its handler has set DEC."""
    enable = "" if opened == "before" else "mtmsrd r26,1;"
    text = f"{enable} loop: addi r3,r3,1; b loop"
    guest = Guest(NativeEngine, text, SF | ME | (EE if opened == "before" else 0))
    guest.place(0x900, "addi r4,r4,1; mtspr 22,r5; rfid")
    # A large one: however long the machine stops the test, it has not expired again.
    thread = guest.thread(real=True, r5=1 << 54, r26=EE, LPCR=int(LPCR.LD))
    thread.live = _Expired()  # type: ignore[assignment]
    guest.engine.run(thread, 20_000)
    assert thread.gpr[4] == 1
    assert thread.gpr[3] > 9000
    assert thread.MSR == SF | ME | EE
    assert thread.executed == 20_000


@pytest.mark.parametrize("leaves", ["inside", "pieces"])
def test_a_tlbsync_waits_for_threads_in_native_code(leaves: str) -> None:
    """It ends once the other thread is out of native code, or has begun another piece of its run."""
    guest, tables = _guest(NativeEngine, "tlbie r24,r25,0,1,1; tlbsync; sc 1")
    other = _thread(guest, tables)
    assert isinstance(other, NativeThread)
    other.inside = 1
    flusher = _thread(guest, tables, r24=0x5000, r25=PID << 32)
    waiting = threading.Thread(target=guest.until_called, args=(flusher,))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    if leaves == "inside":
        other.inside = 0
    else:
        other.pieces += 1
    waiting.join(60)
    assert not waiting.is_alive()


@pytest.mark.parametrize("selects", [0x5000, 0x5000 + (1 << 10), 0x5000 + (3 << 10), 0x5000 + (2 << 5)])
@pytest.mark.parametrize("whose", ["tlbie", "tlbiel"])
def test_what_an_invalidation_forgets(selects: int, whose: str) -> None:
    """One page, a process, everything, a page of 1 GiB: of this thread or of both."""
    guest, tables = _guest(NativeEngine, f"ld r4,0(r21); sc 1; {whose} r24,r25,0,1,1; tlbsync; sc 1")
    place = tables.map(0x6000, DATA, 12, ALL & ~8)
    leaf = guest.memory.load(place, 8, False) - DATA
    threads = [_thread(guest, tables, r21=0x6000, r24=selects + 0x1000, r25=PID << 32) for _ in range(2)]
    for number in range(2):
        guest.memory.store(DATA + 0x1000 * number, 8, number, False)
    for thread in threads:
        guest.until_called(thread)
        assert thread.gpr[4] == 0
    guest.memory.store(place, 8, leaf + DATA + 0x1000, False)
    guest.until_called(threads[0])
    for thread, sees in zip(threads, (1, int(whose == "tlbie")), strict=True):
        thread.CIA = KERNEL | CODE
        guest.until_called(thread)
        assert thread.gpr[4] == sees


def test_a_flush_empties_whatever_was_filled() -> None:
    """Only groups with filled entries are emptied; the entries are anywhere in the TLB, of all its uses."""
    text = "std r4,0(r21); ld r4,0(r21); sc 1; tlbie r24,r25,0,1,1; tlbsync; sc 1"
    guest, tables = _guest(NativeEngine, text)
    thread = _thread(guest, tables, r24=3 << 10, r25=PID << 32)
    assert isinstance(thread, NativeThread)
    draw = Random(4)
    for _ in range(5):
        pages = sorted(draw.sample(range(0x1000, 0x3000), 150))
        for page in pages:
            tables.map(page << PAGE_SHIFT, DATA, 12, ALL & ~8)
            tables.map(KERNEL | page << PAGE_SHIFT, CODE, 12, ALL | 8)
            thread.gpr[21], thread.CIA = page << PAGE_SHIFT, KERNEL | page << PAGE_SHIFT
            guest.until_called(thread)
        found = _tags(Tlb.from_address(thread.tlb))
        assert len(found & set(pages)) > 120
        assert len(found & {KERNEL >> PAGE_SHIFT | page for page in pages}) > 120
        thread.CIA = KERNEL | CODE + 12
        guest.until_called(thread)
        # The flusher's own code was fetched since.
        assert _tags(Tlb.from_address(thread.tlb)) == {(KERNEL | CODE) >> PAGE_SHIFT}


def _tags(tlb: Tlb) -> set[int]:
    """The pages that a TLB has, for any use."""
    found = {entry.fetch for entry in tlb.of_code}
    for ways in tlb.of_data:
        for entry in ways:
            found |= {entry.load, entry.store, entry.both}
    return found - {TLB_INVALID}
