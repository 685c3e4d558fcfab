"""Accesses that lie in two pages: native code does them itself, as the concrete evaluator would."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from chronovisor.engine.concrete import ConcreteEngine, Stop
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.state import NativeThread
from chronovisor.isa.bits import LPCR, MSR

from .native_guest import CODE, Guest, registers
from .page_tables import PID, PageTables

SF, ME, DR, LE, VSX, VEC, FP = (int(b) for b in (MSR.SF, MSR.ME, MSR.DR, MSR.LE, MSR.VSX, MSR.VEC, MSR.FP))
FACILITIES = VSX | VEC | FP
ALL, READ_ONLY = 0x18F & ~8, 0x18C
DATA = 0x9_0000
EFFECTIVE = 0x5000
SIZES = {2: ("lhz", "sth"), 4: ("lwz", "stw"), 8: ("ld", "std"), 16: ("lxvx", "stxvx")}
SECOND_PAGES = {"elsewhere": (DATA, ALL), "read-only": (DATA, READ_ONLY), "absent": (0, 0)}
MODES = {
    "translated": SF | DR,
    "translated, little-endian": SF | DR | LE,
    "translated, 32 bits": DR,
    "real": SF,
    "real, little-endian": SF | LE,
}
CASES = 120


def _guest(engine: type[ConcreteEngine], mode: int, second: str, text: str) -> tuple[Guest, int]:
    """A guest with two pages mapped, and its process table."""
    guest = Guest(engine, text, msr=mode | ME | FACILITIES)
    tables = PageTables(guest.memory)
    real, flags = SECOND_PAGES[second]
    tables.map(EFFECTIVE, DATA + 0x3000, 12, ALL)
    if flags:
        tables.map(EFFECTIVE + 0x1000, real, 12, flags)
    # In real mode the effective address is where the bytes are.
    for place in (DATA, DATA + 0x3000, EFFECTIVE, EFFECTIVE + 0x1000):
        guest.memory.write(place, random.Random(place).randbytes(0x1000))
    return guest, tables.process_table


def _seen(engine: type[ConcreteEngine], mode: int, second: str, text: str, **r: int) -> tuple[object, object]:
    guest, process_table = _guest(engine, mode, second, text)
    thread = guest.thread(**r)
    values = {"LPCR": int(LPCR.HR | LPCR.UPRT), "PATE1": process_table, "PIDR": PID}
    for name, value in values.items():
        thread.set(name, value)
    thread.vsr[9] = int.from_bytes(random.Random(9).randbytes(16), "big")
    guest.memory.dirty.take()
    guest.engine.run(thread, 1)
    return registers(thread), guest.memory.read(0, DATA + 0x4000)


@pytest.mark.parametrize("mode", MODES)
def test_bytes_come_from_and_go_to_both_pages(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slowly: list[int] = []
    run_concrete = NativeEngine._run_concrete

    def counted(engine: NativeEngine, state: NativeThread, budget: int) -> Stop:
        slowly.append(state.CIA)
        return run_concrete(engine, state, budget)

    monkeypatch.setattr(NativeEngine, "_run_concrete", counted)
    draw, done = random.Random(mode), Counter[tuple[str, str]]()
    for _ in range(CASES):
        size = draw.choice(list(SIZES))
        second = draw.choice(list(SECOND_PAGES)) if MODES[mode] & DR else "elsewhere"
        ea = EFFECTIVE + 0x1000 - draw.randrange(1, size)
        name = draw.choice(SIZES[size])
        text = f"{name} vs9,0,r3" if size == 16 else f"{name} r4,0(r3)"
        given = {"r3": ea, "r4": draw.getrandbits(64)}
        concrete, native = (
            _seen(e, MODES[mode], second, text, **given) for e in (ConcreteEngine, NativeEngine)
        )
        assert native == concrete, f"{text} at {ea:#x}, second page {second}"
        done["load" if name.startswith("l") else "store", second] += 1
    assert sum(done.values()) == CASES
    assert len(done) == (2 * len(SECOND_PAGES) if MODES[mode] & DR else 2)
    # An access whose page is looked up in the tables for the first time may fault: natively, too.
    assert not slowly, f"{len(slowly)} of {CASES} were the concrete evaluator's"


def test_the_pages_of_a_store_across_two_are_both_dirty() -> None:
    guest, _ = _guest(NativeEngine, SF, "elsewhere", "std r4,0(r3)")
    thread = guest.thread(r3=EFFECTIVE + 0xFFC, r4=5)
    guest.memory.dirty.take()
    guest.engine.run(thread, 1)
    assert guest.memory.dirty.take() == [EFFECTIVE >> 12, (EFFECTIVE >> 12) + 1]
    assert thread.CIA == CODE + 4
