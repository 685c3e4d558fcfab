"""The native decoder makes the records that Python computes from the same declarations."""

from __future__ import annotations

import ctypes
import mmap
import threading
from functools import cache
from random import Random

import pytest
from handlers import ensure

from chronovisor.engine.native.block_decoder import BLOCK_INSTRUCTIONS, LOW_BITS
from chronovisor.engine.native.decode_table import significant
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.layout import (
    PAGE_SHIFT,
    RECORD_HANDLER,
    RECORD_OFFSET,
    RECORD_SIZE,
    RECORD_WIDE,
)
from chronovisor.engine.native.library import HandlerLibrary, library
from chronovisor.engine.native.page_records import Records
from chronovisor.engine.native.pages import DecodedPages
from chronovisor.engine.native.pairs import Key, Pair, pairs, target
from chronovisor.engine.state import CACHE_BLOCK
from chronovisor.isa.decode import decode
from chronovisor.isa.forms import FIELDS, Field, Kind
from chronovisor.isa.instruction import INSTRUCTIONS, RESERVED, UNIMPLEMENTED, Instruction
from chronovisor.memory.guest_memory import GuestMemory

from . import decoded_in_python
from . import drawn as cases
from .native_guest import CODE, Guest

SIZE = 1 << 20
#: Fields of branches, of which short distances and distances to the page's ends matter most.
DISTANCES = ("BD", "LI")
MODES = tuple((sixty_four, little) for sixty_four in (True, False) for little in (True, False))


@cache
def drawn_cases() -> list[cases.Drawn]:
    """Of each instruction some, in any mode: the words whose handlers test_native_agrees needs, too."""
    return cases.drawn(7, 1_500)


def other_operands(random: Random, one: Instruction, word: int, offset: int) -> int:
    """A word of the same instruction and static fields, for an offset in its page."""
    for field in one.fields:
        if field.name in one.statics or field.kind is Kind.STATIC:
            continue
        number = random.getrandbits(field.width) << field.shift
        if field.name in DISTANCES and random.getrandbits(2):
            wanted = random.choice((0, 4, (1 << PAGE_SHIFT) - 4, 1 << PAGE_SHIFT, -4)) - offset
            number = wanted & (((1 << field.width) - 1) << field.shift)
        if field.width == 5 and random.getrandbits(1):
            number = random.randrange(3)
        if field.kind is Kind.SIGNED and number >> (field.width + field.shift - 1):
            number -= 1 << (field.width + field.shift)
        word = word & ~bits_of(field) | field.encode(number)
    return word


def drawn(random: Random, key: Key, offset: int) -> int:
    one, statics = key
    word = one.encode(**dict(zip(one.statics, statics, strict=True)))
    return other_operands(random, one, word, offset)


def bits_of(field: Field) -> int:
    return sum(((1 << (last - first + 1)) - 1) << (31 - last) for first, last in field.pieces)


def paired(random: Random, pair: Pair, offset: int) -> tuple[int, int]:
    """The words of two instructions that often name the same register."""
    first, second = drawn(random, pair.first, offset), drawn(random, pair.second, offset + 4)
    sets = target(pair.first[0].program(pair.first[1]))
    if pair.link is not None and sets is not None and random.getrandbits(1):
        link = FIELDS[pair.link]
        number = FIELDS[sets].decode(first)
        second = second & ~link.encode(31) | link.encode(number)
    return first, second


class Decoder:
    """Memory of which every block is decoded natively and in Python."""

    def __init__(self, mode: tuple[bool, bool]) -> None:
        self.mode = mode
        self.memory = GuestMemory(SIZE)
        self.pages = DecodedPages(
            self.memory, mode, mmap.mmap(-1, SIZE // CACHE_BLOCK), (ctypes.c_uint64 * (SIZE >> 12))()
        )
        self.words: list[int] = []

    def add(self, *words: int) -> None:
        self.words += words

    @property
    def offset(self) -> int:
        """The offset in its page of the next word."""
        return 4 * len(self.words) & ((1 << PAGE_SHIFT) - 1)

    def check(self) -> tuple[int, int]:
        """How many records were compared, and how many of them begin pairs."""
        self.words += [0] * (-len(self.words) % BLOCK_INSTRUCTIONS)
        order = "little" if self.mode[1] else "big"
        assert 4 * len(self.words) <= SIZE
        self.memory.write(0, b"".join(word.to_bytes(4, order) for word in self.words))  # type: ignore[arg-type]
        count = 0
        for begin in range(0, len(self.words), BLOCK_INSTRUCTIONS):
            words, address = self.words[begin : begin + BLOCK_INSTRUCTIONS], 4 * begin
            self.pages.add(address >> PAGE_SHIFT)
            self.pages.decode(address)
            inside = address & ((1 << PAGE_SHIFT) - 1)
            expected, found = decoded_in_python.block(words, inside, self.mode)
            assert self.records(address) == expected, [hex(word) for word in words]
            count += found
        return len(self.words), count

    def records(self, address: int) -> list[tuple[int, bytes]]:
        page = self.pages.table[address >> PAGE_SHIFT]
        first = (address & ((1 << PAGE_SHIFT) - 1)) // 4
        places = [page + (first + n) * RECORD_SIZE for n in range(BLOCK_INSTRUCTIONS)]
        return [
            (
                ctypes.c_uint64.from_address(at + RECORD_HANDLER).value,
                ctypes.string_at(at + RECORD_WIDE, RECORD_OFFSET - RECORD_WIDE),
            )
            for at in places
        ]


@pytest.fixture(autouse=True)
def no_more_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the handlers that are loaded: others would come between the native decoder and Python."""
    ensure((case.word, case.mode) for case in drawn_cases())
    monkeypatch.setattr(HandlerLibrary, "want", lambda self, key: False)
    for mode in MODES:
        monkeypatch.setattr(library(mode), "table", library(mode)._new_table())


def test_every_instruction() -> None:
    random, compared = Random(1), 0
    for mode in MODES:
        decoder = Decoder(mode)
        for case in drawn_cases():
            if case.mode == mode:
                for _ in range(8):
                    decoder.add(other_operands(random, case.instruction, case.word, decoder.offset))
        compared += decoder.check()[0]
    assert compared >= 8 * len(drawn_cases())


@pytest.mark.parametrize("mode", MODES)
def test_every_pair(mode: tuple[bool, bool]) -> None:
    random, decoder = Random(2), Decoder(mode)
    for pair in pairs():
        for _ in range(4):
            decoder.add(*paired(random, pair, decoder.offset))
    compared, together = decoder.check()
    assert compared >= 8 * len(pairs())
    assert together > 3 * len(pairs())


@pytest.mark.parametrize("mode", MODES)
def test_any_words(mode: tuple[bool, bool]) -> None:
    random, decoder = Random(3), Decoder(mode)
    opcodes = [*range(64), *[31, 19, 4, 30, 60, 63] * 10]
    for _ in range(20_000):
        decoder.add(random.choice(opcodes) << 26 | random.getrandbits(26))
    assert decoder.check()[0] == 20_000


def _handler(word: int) -> tuple[Instruction | None, tuple[int, ...]]:
    found = decode(word)
    return found, () if found is None else found.meaning_statics(word)


def test_other_than_significant_bits_make_no_difference() -> None:
    """Words of each declared instruction, often with one wrong bit: they may be other instructions."""
    random, rows, count = Random(4), significant(), 0
    for one in (*INSTRUCTIONS, *UNIMPLEMENTED, *RESERVED):
        for _ in range(20):
            word = one.match | (random.getrandbits(32) & ~one.mask)
            word ^= random.getrandbits(1) << random.randrange(26)
            bits = rows[word >> 26 << LOW_BITS | (word & ((1 << LOW_BITS) - 1))]
            other = (word & bits) | (random.getrandbits(32) & ~bits)
            assert rows[other >> 26 << LOW_BITS | (other & ((1 << LOW_BITS) - 1))] == bits
            assert _handler(word) == _handler(other), (hex(word), hex(other))
            count += word != other
    assert count > 10 * len(INSTRUCTIONS)


def test_words_that_are_known_are_decoded_without_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second guest comes to the same words; then to one that is new."""
    asked: list[int] = []
    decode_in_python = DecodedPages.decode

    def counted(pages: DecodedPages, address: int) -> bool:
        asked.append(address)
        return decode_in_python(pages, address)

    text = "; ".join(["addi r3,r3,1", "xor r4,r4,r3", "mulld r5,r4,r3"] * 60) + "; sc 1"
    first = Guest(NativeEngine, text)
    first.until_called(first.thread())
    monkeypatch.setattr(DecodedPages, "decode", counted)
    second = Guest(NativeEngine, text)
    thread = second.thread()
    second.until_called(thread)
    assert thread.gpr[3] == 60
    assert not asked
    assert second.engine._code_blocks[CODE // CACHE_BLOCK] == 1  # type: ignore[attr-defined]


def test_code_that_another_thread_decodes_is_decoded_once() -> None:
    """Two threads come to the same new code at the same time, time and again."""
    text = "; ".join(f"addi r3,r3,{n}" for n in range(200)) + "; sc 1"
    for _ in range(50):
        guest = Guest(NativeEngine, text)
        threads = [guest.thread(real=True) for _ in range(2)]
        runners = [threading.Thread(target=guest.until_called, args=(thread,)) for thread in threads]
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join(60)
            assert not runner.is_alive()
        assert [thread.gpr[3] for thread in threads] == [sum(range(200))] * 2


def test_a_page_with_a_breakpoint_is_decoded_anew_once_when_handlers_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = GuestMemory(1 << 16)
    pages = DecodedPages(
        memory,
        (True, True),
        mmap.mmap(-1, memory.size // CACHE_BLOCK),
        (ctypes.c_uint64 * (memory.size >> 12))(),
    )
    # As long as pairs are to come, every page that is decoded may change.
    monkeypatch.setattr(pages.library, "has_pairs", False)
    assert pages.leave_at([0x1008]) == []
    assert pages.add(1)
    old: list[Records] = []
    refreshing = threading.Thread(target=lambda: old.extend(pages.refresh()), daemon=True)
    refreshing.start()
    refreshing.join(60)
    assert not refreshing.is_alive(), "it never comes to an end"
    assert len(old) == 1
    monkeypatch.setattr(pages.library, "has_pairs", True)
    assert len(pages.refresh()) == 1
    assert pages.refresh() == []
