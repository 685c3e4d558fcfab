"""Two instructions done by one handler do what the two do one by one, wherever the budget ends."""

from __future__ import annotations

from random import Random

import pytest

from chronovisor.engine.native.layout import RECORD_SIZE
from chronovisor.engine.native.library import library
from chronovisor.engine.native.pairs import Pair, pairs, sources, target
from chronovisor.engine.state import Thread
from chronovisor.isa.bits import MSR
from chronovisor.isa.forms import FIELDS, Kind
from chronovisor.isa.instruction import Instruction

from .native_guest import CODE, ENGINES, KERNEL, Guest, registers

LE, SF = int(MSR.LE), int(MSR.SF)
MODES = (KERNEL, KERNEL | LE, KERNEL & ~SF)
DATA = 0x40000
#: Few, so that a pair's operands often name one register; 0 stands for no register here and there.
REGISTERS = (0, 3, 4, 5)


def _encode(random: Random, one: Instruction, statics: tuple[int, ...]) -> dict[str, int]:
    numbers = dict(zip(one.statics, statics, strict=True))
    for name in one.operands:
        field = FIELDS[name]
        if field.kind is Kind.GPR:
            numbers[name] = random.choice(REGISTERS)
        elif name == "BD":
            numbers[name] = random.choice((-4, 4, 8, 12))
        elif name in ("D", "DS"):
            numbers[name] = random.randrange(-64, 64) * 4
        elif field.kind is Kind.SIGNED:
            numbers[name] = random.randrange(-(1 << (field.width - 1)), 1 << (field.width - 1))
        else:
            numbers[name] = random.getrandbits(field.width)
    return numbers


def _words(random: Random, pair: Pair) -> tuple[int, int]:
    (one, ones), (two, twos) = pair.first, pair.second
    first, second = _encode(random, one, ones), _encode(random, two, twos)
    sets = target(one.program(ones))
    if pair.link is not None and sets is not None and random.getrandbits(1):
        second[pair.link] = first[sets]
    return one.encode(**first), two.encode(**second)


class Both:
    """Both engines with the same memory."""

    def __init__(self, mode: int) -> None:
        self.mode = mode
        self.guests = [Guest(engine, "nop", mode) for engine in ENGINES]
        noise = Random(3).randbytes(0x2000)
        for guest in self.guests:
            guest.memory.write(DATA - 0x1000, noise)

    def found(self, random: Random, words: tuple[int, int], budget: int) -> list[object]:
        values = [random.choice((DATA + random.getrandbits(8), random.getrandbits(64))) for _ in range(32)]
        special = {name: random.getrandbits(32) for name in ("CR", "XER", "CTR")}
        special["CTR"] = random.choice((0, 1, 2, special["CTR"]))
        answers: list[object] = []
        for guest in self.guests:
            for place, word in zip((CODE + 8, CODE + 12), words, strict=True):
                guest.memory.store(place, 4, word, bool(self.mode & LE))
            guest.engine.forget(CODE)
            thread: Thread = guest.thread(CODE + 8, **special)
            thread.gpr[:32] = values
            guest.advance(thread, budget)
            dirty = guest.memory.dirty.take()
            answers.append(
                (registers(thread), [(page, guest.memory.read(page << 12, 4096)) for page in dirty])
            )
        return answers


@pytest.mark.parametrize("mode", MODES)
def test_a_pair_does_what_its_two_do(mode: int) -> None:
    random, both = Random(mode & 0xFF), Both(mode)
    for pair in pairs():
        for budget in (1, 2):
            words = _words(random, pair)
            concrete, native = both.found(random, words, budget)
            assert native == concrete, f"{pair}: {[hex(w) for w in words]}"


def test_pairs_are_found() -> None:
    guest = Guest(ENGINES[1], "xor r3,r4,r5; add r6,r7,r3; cmpi 0,1,r3,0; bc 12,2,. + 8")
    guest.advance(guest.thread(), 4)
    (pages,) = guest.engine._pages.values()  # type: ignore[attr-defined]
    records = pages._records[CODE >> 12]
    together = {handler for _, handler in library((True, False)).pairs}
    assert [records[n * RECORD_SIZE // 8] in together for n in range(4)] == [True, True, True, False]


def test_what_a_pair_reads_and_sets_comes_from_its_meanings() -> None:
    for pair in pairs():
        if pair.link is not None:
            assert pair.link in sources(pair.second[0].program(pair.second[1]))
            assert target(pair.first[0].program(pair.first[1])) in ("RT", "RA")
