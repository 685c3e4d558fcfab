"""Radix translation: the program of the meaning against a walk that was written independently of it."""

from __future__ import annotations

import ctypes
import random
import threading
import time
from collections import Counter

import pytest
import z3

from chronovisor.engine.concrete import ConcreteEngine
from chronovisor.engine.endings import GuestInterrupt
from chronovisor.engine.native.emitter import FAULTED, NOT_TRANSLATED
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.layout import mode_number
from chronovisor.engine.native.library import runtime
from chronovisor.engine.state import Thread
from chronovisor.engine.symbolic.evaluator import Evaluation
from chronovisor.engine.symbolic.state import Addresses, SymbolicState
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.isa.interrupts import INTERRUPTS
from chronovisor.isa.radix import Access, translation

from .guest import CODE, Guest
from .page_tables import KERNEL, PID, Fault, PageTables, expected

SF, ME, PR, DR, IR, LE = (int(b) for b in (MSR.SF, MSR.ME, MSR.PR, MSR.DR, MSR.IR, MSR.LE))
TRANSLATED = SF | ME | DR
SIZES = (12, 16, 21, 30)
EAA = tuple(range(16))
TABLES_END = 0x8_0000
"""No table of these tests lies beyond."""


def _translate(thread: Thread, ea: int, access: Access) -> int | Fault:
    """What the concrete evaluator makes of an access."""
    try:
        if access is Access.FETCH:
            thread.CIA = ea
            return thread.fetch_address()
        return thread.address(ea, access is Access.STORE)
    except GuestInterrupt as raised:
        if raised.name.startswith("DATA"):
            assert ea == thread.DAR
            return Fault(raised.name, thread.DSISR if raised.name == "DATA_STORAGE" else 0)
        return Fault(raised.name, raised.cause)


def _guest(
    draw: random.Random, pages: int = 24, broken: int = 4, real_bits: int = 44
) -> tuple[Guest, PageTables]:
    """A guest with some pages of every size, mapped with random authorities, and some broken entries."""
    guest = Guest("nop", LPCR=int(LPCR.HR | LPCR.UPRT | LPCR.GTSE))
    tables = PageTables(guest.memory)
    for _ in range(pages):
        size = draw.choice(SIZES)
        ea = draw.choice([0, KERNEL]) | (draw.getrandbits(35) >> size << size)
        flags = draw.choice(EAA) | draw.choice([0, 0, 0x10, 0x20, 0x30]) | draw.choice([0, 0x100, 0x180])
        tables.map(ea, draw.getrandbits(real_bits) >> size << size, size, flags)
    for place in draw.sample(tables.entries, broken):
        tables.spoil(place, draw)
    guest.set({"PATE1": tables.process_table, "PIDR": PID})
    return guest, tables


def _accesses(draw: random.Random, tables: PageTables, count: int) -> list[tuple[int, Access]]:
    found = []
    for _ in range(count):
        ea = draw.choice(tables.pages) + draw.getrandbits(12)
        if draw.random() < 0.1:
            ea ^= 1 << draw.randrange(64)
        found.append((ea, draw.choice(list(Access))))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_the_walk_is_that_of_the_book(seed: int) -> None:
    """Every answer, fault and updated entry is what the independent walk says, in all states of the keys."""
    draw = random.Random(seed)
    guest, tables = _guest(draw)
    seen: Counter[str] = Counter()
    for ea, access in _accesses(draw, tables, 400):
        problem = draw.random() < 0.5
        keys = {"AMR": draw.getrandbits(2) << 62, "IAMR": draw.getrandbits(2) << 62}
        guest.set(keys)
        guest.state.set_msr(TRANSLATED | IR | (PR if problem else 0))
        before = guest.memory.read(0, TABLES_END)
        answer, entry = expected(before, tables.process_table, PID, ea, access, problem, **keys)
        assert _translate(guest.state, ea, access) == answer, (hex(ea), access, problem)
        after = bytearray(before)
        if entry is not None:
            after[entry[0] : entry[0] + 8] = entry[1].to_bytes(8, "big")
        assert guest.memory.read(0, TABLES_END) == after
        seen[f"{answer.name} {answer.cause & ~(1 << 25):#x}" if isinstance(answer, Fault) else "real"] += 1
    assert seen["real"] > 30
    assert seen["DATA_STORAGE 0x8000000"] > 10
    assert max(tables.entries) < TABLES_END


@pytest.mark.parametrize("access", list(Access))
def test_the_provers_walk_is_the_same(access: Access) -> None:
    """The same program over terms, on memory that is known: no second meaning of translation."""
    draw = random.Random(access.value)
    guest, tables = _guest(draw, pages=4, broken=1)
    seen: Counter[str] = Counter()
    for ea, _ in _accesses(draw, tables, 30):
        guest.state.set_msr(TRANSLATED | IR)
        known = {name: guest[name] for name in ("MSR", "LPCR", "PATE1", "PIDR", "AMR", "IAMR")}
        before = _Known(guest.memory.read(0, TABLES_END))
        state = SymbolicState.unknown(known=known, addresses=before, radix=True)
        walk = Evaluation(state, _NoTime(), {"ea": ea}, True, False)
        walk.run(translation(access).body, z3.BoolVal(True))
        answer = _translate(guest.state, ea, access)
        raised = [r for r in walk.outcome.raised if not z3.is_false(z3.simplify(r.condition))]
        if isinstance(answer, Fault):
            assert [r.name for r in raised] == [answer.name]
        else:
            assert not raised
            assert z3.simplify(walk.real_address).as_long() == answer
        seen[answer.name if isinstance(answer, Fault) else "real"] += 1
    assert seen["real"] > 3
    assert seen.total() - seen["real"] > 3


class _Known(Addresses):
    """Memory that is known: zeros beyond the tables."""

    def __init__(self, memory: bytes) -> None:
        self._memory = memory

    def initial(self, memory: z3.ArrayRef, address: z3.BitVecRef) -> z3.BitVecRef:
        place = z3.simplify(address).as_long()
        return z3.BitVecVal(self._memory[place] if place < len(self._memory) else 0, 8)


class _NoTime:
    """A thread's live registers if nobody reads them."""

    def passes(self, state: SymbolicState) -> None: ...

    def read(self, name: str, state: SymbolicState) -> z3.BitVecRef:
        raise AssertionError(name)

    def write(self, name: str, value: z3.BitVecRef, when: z3.BoolRef, state: SymbolicState) -> None:
        raise AssertionError(name)


@pytest.mark.parametrize("seed", range(4))
def test_the_native_walk_is_the_same(seed: int) -> None:
    """Compiled, the program finds the same addresses, sets the same bits and enters the same interrupts."""
    draw = random.Random(100 + seed)
    guest, tables = _guest(draw, real_bits=20)
    engine = NativeEngine(guest.memory)
    thread = engine.thread(guest.clock)
    for name in ("LPCR", "PATE1", "PIDR"):
        thread.set(name, guest[name])
    kind = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)
    native = {
        Access.LOAD: kind(runtime().translate_load_address),
        Access.STORE: kind(runtime().translate_store_address),
        Access.FETCH: kind(runtime().translate_fetch_address),
    }
    seen: Counter[int] = Counter()
    for ea, access in _accesses(draw, tables, 600):
        problem = draw.random() < 0.5
        keys = {"AMR": draw.getrandbits(2) << 62, "IAMR": draw.getrandbits(2) << 62}
        msr = TRANSLATED | IR | (PR if problem else 0)
        for name, value in {**keys, "DAR": 0, "DSISR": 0, "CIA": ea & -4}.items():
            thread.set(name, value)
        thread.set_msr(msr)
        # The table of decoded pages, which no instruction of this test uses.
        thread.guest.modes[mode_number((True, False))].table = 1
        assert runtime().adopt(thread.at)
        # Fetches lead to the tables' own pages, too, which change: no code is in them.
        ctypes.memset(engine.page_contents, 0, ctypes.sizeof(engine.page_contents))
        before = guest.memory.read(0, TABLES_END)
        answer, entry = expected(before, tables.process_table, PID, ea, access, problem, **keys)
        found = native[access](ctypes.addressof(thread), ea)
        after = bytearray(before)
        if isinstance(answer, Fault):
            assert found == FAULTED, hex(ea)
            vector = INTERRUPTS[answer.name].vector
            assert (vector, ea & -4) == (thread.CIA, thread.SRR0)
            data = access is not Access.FETCH
            assert msr | (0 if data else answer.cause) == thread.SRR1
            assert ((ea, answer.cause) if data else (0, 0)) == (thread.DAR, thread.DSISR)
        elif answer >= guest.memory.size:
            assert found == NOT_TRANSLATED, hex(ea)
        else:
            assert found == answer, hex(ea)
        seen[found if found > guest.memory.size else 0] += 1
        if not isinstance(answer, Fault) and entry is not None:
            after[entry[0] : entry[0] + 8] = entry[1].to_bytes(8, "big")
        assert guest.memory.read(0, TABLES_END) == after
    assert seen[0] > 10
    assert seen[FAULTED] > 100


ENGINES = [ConcreteEngine, NativeEngine]
Engine = type[ConcreteEngine]


def _running(engine: Engine, text: str, msr: int = TRANSLATED, **registers: int) -> tuple[Guest, PageTables]:
    """Code at CODE in real memory, whose data accesses are translated."""
    guest = Guest(text, engine=engine, LPCR=int(LPCR.HR | LPCR.UPRT | LPCR.GTSE), **registers)
    tables = PageTables(guest.memory)
    guest.set({"PATE1": tables.process_table, "PIDR": PID})
    guest.state.set_msr(msr)
    return guest, tables


DATA = 0x9_0000
ALL = 0x18F & ~8
"""Referenced, changed, readable, writable, executable."""


@pytest.mark.parametrize("little", [False, True])
@pytest.mark.parametrize("offset", range(0xFF9, 0x1000))
@pytest.mark.parametrize("engine", ENGINES)
def test_an_access_across_two_pages(engine: Engine, little: bool, offset: int) -> None:
    """Bytes go where each page leads, in either byte order."""
    msr = TRANSLATED | (LE if little else 0)
    guest, tables = _running(engine, "", msr)
    guest.little = little
    guest.place(CODE, "ld r4,0(r3); addi r4,r4,1; std r4,0(r3)")
    first, second = DATA + 0x3000, DATA + 0x1000
    tables.map(0x5000, first, 12, ALL)
    tables.map(0x6000, second, 12, ALL)
    guest.set({"r3": 0x5000 + offset})
    before = bytes(range(0x10, 0x18))
    split = 0x1000 - offset
    guest.memory.write(first + offset, before[:split])
    guest.memory.write(second, before[split:])
    guest.step(3)
    order = "little" if little else "big"
    after = (int.from_bytes(before, order) + 1).to_bytes(8, order)
    assert guest.memory.read(first + offset, split) + guest.memory.read(second, 8 - split) == after


@pytest.mark.parametrize("engine", ENGINES)
def test_a_store_that_faults_in_its_second_page_stores_nothing(engine: Engine) -> None:
    guest, tables = _running(engine, "std r4,0(r3)", r3=0x5FFC, r4=(1 << 64) - 1)
    tables.map(0x5000, DATA, 12, ALL)
    guest.step()
    assert (guest["CIA"], guest["DAR"], guest["DSISR"]) == (0x300, 0x6000, 0x4200_0000)
    assert guest.memory.read(DATA + 0xFFC, 4) == bytes(4)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_invalidation_is_seen_by_every_thread(engine: Engine) -> None:
    """A page that was used goes elsewhere: until tlbie the old place may be used, after it the new one."""
    guest, tables = _running(engine, "tlbie r5,r5,0,1,1", msr=SF | ME)
    other = guest.engine.thread(guest.clock)
    for name in ("PATE1", "PIDR", "LPCR"):
        other.set(name, guest[name])
    other.set_msr(TRANSLATED)
    entry = tables.map(0x5000, DATA, 12, ALL)
    assert other.address(0x5008, False) == DATA + 8
    guest.memory.store(entry, 8, guest.memory.load(entry, 8, False) + 0x1000, False)
    guest.step()
    assert other.address(0x5008, False) == DATA + 0x1008


@pytest.mark.parametrize("engine", ENGINES)
def test_processes_do_not_see_each_others_pages(engine: Engine) -> None:
    guest, tables = _running(engine, "mtspr 48,r3; ld r4,0(r5)", r3=PID + 1, r5=0x5000)
    tables.map(0x5000, DATA, 12, ALL)
    assert guest.state.address(0x5000, False) == DATA
    guest.step(2)
    assert guest["CIA"] == 0x300


@pytest.mark.parametrize("engine", ENGINES)
def test_code_that_moves_is_fetched_by_its_real_address(engine: Engine) -> None:
    """Two effective pages of one real page run the same code; icbi through either has it fetched anew."""
    guest, tables = _running(engine, "addi r3,r3,1", msr=TRANSLATED | IR)
    tables.map(0x7000, CODE, 12, ALL)
    tables.map(0x8000, CODE, 12, ALL)
    for start in (0x7000, 0x8000):
        guest.state.CIA = start
        guest.step()
    assert guest["r3"] == 2
    guest.place(CODE, "addi r3,r3,16; icbi 0,r6")
    guest.set({"r6": 0x8000})
    guest.state.CIA = 0x7004
    guest.step()
    for start in (0x7000, 0x8000):
        guest.state.CIA = start
        guest.step()
    assert guest["r3"] == 34


@pytest.mark.parametrize("engine", ENGINES)
def test_a_conditional_store_that_faults_leaves_the_reservation(engine: Engine) -> None:
    guest, tables = _running(engine, "stdcx. r4,0,r3", r3=0x6000)
    tables.map(0x5000, DATA, 12, ALL)
    guest.state.reservation = (DATA, 8, 0)
    guest.step()
    assert (guest["CIA"], guest["DAR"]) == (0x300, 0x6000)
    assert guest.state.reservation == (DATA, 8, 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_block_that_cannot_be_zeroed_is_named_by_its_address(engine: Engine) -> None:
    guest, _ = _running(engine, "dcbz 0,r3", r3=0x6043)
    guest.step()
    assert (guest["CIA"], guest["DAR"]) == (0x300, 0x6000)


@pytest.mark.parametrize("engine", ENGINES)
def test_translation_that_ends_while_tracing_begins(engine: Engine) -> None:
    """Native code executes the rfid, the concrete evaluator what is traced behind it."""
    guest, tables = _running(engine, "addi r4,r4,1; rfid; ld r5,0(r3)", msr=TRANSLATED | IR, r3=DATA)
    tables.map(CODE, CODE, 12, ALL)
    guest.set({"SRR0": CODE + 8, "SRR1": SF | ME | int(MSR.SE)})
    guest.memory.store(DATA, 8, 0x77, False)
    guest.run(3)
    guest.step()
    assert (guest["CIA"], guest["SRR0"], guest["r5"]) == (0xD00, CODE + 12, 0x77)


@pytest.mark.parametrize("now", [0, DATA], ids=["is not mapped", "is elsewhere"])
def test_a_page_that_only_the_concrete_evaluator_still_has_is_executed(now: int) -> None:
    """Its entry was changed, but not invalidated; a TLB that never had it is used. The run goes on."""
    guest, tables = _running(NativeEngine, "addi r3,r3,1; addi r3,r3,1; b . - 8", msr=TRANSLATED | IR)
    guest.place(DATA, "addi r3,r3,1; addi r3,r3,1; b . - 8")
    entry = tables.map(0x7000, CODE, 12, ALL)
    guest.state.CIA = 0x7000
    assert guest.state.fetch_address() == CODE
    guest.step(2)
    there = guest.memory.load(entry, 8, False)
    guest.memory.store(entry, 8, there - CODE + now if now else 0, False)
    guest.state.set_msr((TRANSLATED | IR) & ~SF)
    ran = threading.Thread(target=guest.step, args=(8,), daemon=True)
    ran.start()
    ran.join(60)
    assert not ran.is_alive()
    assert guest.state.executed == 10


def test_no_store_reaches_a_page_after_its_translation_was_invalidated() -> None:
    """A thread stores without a pause; each time its page goes elsewhere, the old place stays as it is."""
    guest, tables = _running(NativeEngine, "loop: addi r4,r4,1; std r4,0(r3); b loop", r3=0x5000)
    places = DATA, DATA + 0x1000
    entry = tables.map(0x5000, places[0], 12, ALL)
    stored = guest.memory.load(entry, 8, False) - places[0]
    running = threading.Event()

    def run() -> None:
        running.set()
        while not stop:
            guest.engine.run(guest.state, 1 << 20)

    stop: list[bool] = []
    thread = threading.Thread(target=run)
    thread.start()
    compared = moved = 0
    limit = time.monotonic() + 60
    try:
        running.wait()
        for turn in range(1, 400):
            old, new = places[(turn - 1) % 2], places[turn % 2]
            guest.memory.store(entry, 8, stored + new, False)
            guest.engine.forget_translations()
            last = guest.memory.load(old, 8, False)
            # The thread may have to wait for a processor: without its stores nothing is tested.
            while guest.memory.load(new, 8, False) <= last and time.monotonic() < limit:
                pass
            assert guest.memory.load(old, 8, False) == last
            moved += guest.memory.load(new, 8, False) > last
            compared += 1
    finally:
        stop.append(True)
        guest.state.exit_request = 1
        thread.join()
    assert guest["CIA"] in range(CODE, CODE + 12)
    assert compared == 399
    assert moved > 10


@pytest.mark.parametrize("leaves", ["inside", "pieces"])
def test_an_invalidation_waits_for_threads_in_native_code(leaves: str) -> None:
    """It ends once the thread is out of native code, or has begun a piece that sees the TLB as it is now."""
    guest, _ = _running(NativeEngine, "nop")
    guest.state.inside = 1
    waiting = threading.Thread(target=guest.engine.forget_translations)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    if leaves == "inside":
        guest.state.inside = 0
    else:
        guest.state.pieces += 1
    waiting.join(60)
    assert not waiting.is_alive()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_key_opens_and_closes_user_pages_to_the_kernel(engine: Engine) -> None:
    """AMR's key 0 changes between two accesses to one page; natively each key has its own TLB."""
    guest, tables = _running(engine, "mtspr 29,r6; ld r7,0(r3); mtspr 29,r8; ld r9,0(r3)", r3=0x5000)
    tables.map(0x5000, DATA, 12, ALL)
    guest.set({"AMOR": (1 << 64) - 1, "r6": 0, "r8": 3 << 62})
    for _ in range(3):
        guest.memory.store(DATA, 8, 0x77, False)
        guest.set({"CIA": CODE, "r7": 0})
        guest.state.set_msr(TRANSLATED)
        guest.step(4)
        assert guest["r7"] == 0x77
        assert (guest["CIA"], guest["SRR0"]) == (0x300, CODE + 12)
        assert guest["DSISR"] == 0x800_0000


def test_an_invalidation_reaches_the_tlbs_of_all_keys() -> None:
    guest, tables = _running(NativeEngine, "mtspr 29,r6; ld r7,0(r3)", r3=0x5000)
    entry = tables.map(0x5000, DATA, 12, ALL)
    guest.set({"AMOR": (1 << 64) - 1})
    guest.memory.store(DATA, 8, 1, False)
    guest.memory.store(DATA + 0x1000, 8, 2, False)
    for key in (0, 2, 0, 2):
        guest.set({"CIA": CODE, "r6": key << 62})
        guest.step(2)
        assert guest["r7"] == 1
    guest.memory.store(entry, 8, guest.memory.load(entry, 8, False) + 0x1000, False)
    guest.engine.forget_translations()
    for key in (0, 2):
        guest.set({"CIA": CODE, "r6": key << 62})
        guest.step(2)
        assert guest["r7"] == 2
