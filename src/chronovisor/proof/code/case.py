"""One run of machine code, on ints: a counterexample, its replay, and its steps for people."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from chronovisor.engine.concrete import ConcreteEngine
from chronovisor.engine.live_registers import ThreadTime
from chronovisor.engine.state import StoredRegisters, Thread, ThreadState
from chronovisor.isa.bits import LPCR
from chronovisor.isa.decode import decode
from chronovisor.isa.forms import FIELDS
from chronovisor.memory.guest_memory import GuestMemory
from chronovisor.proof.code.image import CodeImage
from chronovisor.proof.code.time_writes import listing
from chronovisor.proof.code.unknown_timing import LOADS, RETURNED, STORES, operations
from chronovisor.timebase.types import LOW_MASK, MASK64

_M32 = (1 << 32) - 1
_WORD = 4
_DOUBLEWORD: Final = 8
_TIMES: Final = frozenset({"read_live", "write_live"})
MOST_STEPS: Final = 4096
"""The most instructions of a case."""


@dataclass(frozen=True, slots=True)
class Happening:
    """What happened around the code before the instruction at `address`: see `unknown_timing.Event`."""

    address: int
    value: int
    changes_memory: bool


@dataclass(frozen=True, slots=True)
class CodeCase:
    """One run: everything on which it depends."""

    start: int
    end: int
    msr: int
    timebase: int
    """The timebase at the beginning of the range; 64 bits."""
    registers: Mapping[str, int]
    """Stored registers, and general ones as r0 to r31, at the beginning. The others do not matter."""
    live: Mapping[str, int]
    """DEC, HDEC, VTB, PURR and SPURR at the beginning."""
    memory: Callable[[int], int]
    """Returns the byte at a real address at the beginning."""
    happenings: tuple[Happening, ...]
    shared: int | None
    """The address of the word that others change."""
    most_steps: int = MOST_STEPS
    """The most instructions that are run."""

    @property
    def returns_to(self) -> int:
        """The address to which a return to the caller goes."""
        return self.registers["LR"] & ~3 & MASK64


@dataclass(frozen=True, slots=True)
class Step:
    """An instruction of a run, as a story shows it."""

    address: int
    place: str
    text: str
    ticks: int
    """The ticks that passed since the step before."""
    note: str
    """Its effect, for people."""


@dataclass(slots=True)
class CodeRun:
    """The outcome of a case."""

    case: CodeCase
    thread: Thread
    live: CaseTime
    steps: list[Step] = field(default_factory=list)
    reached: bool = False
    """Whether it reached the end of the range, or returned to the caller."""

    @property
    def timebase(self) -> int:
        """The timebase at the end."""
        return self.live.timebase


class CaseTime:
    """The live registers of one case. Time advances only as the case says."""

    def __init__(self, case: CodeCase) -> None:
        self.start = case.timebase
        self.elapsed = 0
        self.adjust = 0
        self.halves_written = False
        self.others = dict(case.live)
        self.thread: Thread | None = None

    @property
    def timebase(self) -> int:
        """The timebase now."""
        return (self.start + self.elapsed + self.adjust) & MASK64

    def read(self, name: str) -> int:
        """The register's value now."""
        if name == "TB":
            return self.timebase
        if name == "TBU":
            return self.timebase >> 32
        if name in ("DEC", "HDEC"):
            return self._decrementer(name)
        return (self.others[name] + self.elapsed) & MASK64

    def write(self, name: str, value: int) -> None:
        """Set the register."""
        was = self.timebase
        if name == "TBU40":
            self._set_timebase((value & ~LOW_MASK) | (was & LOW_MASK))
        elif name == "TBU":
            self.halves_written = True
            self._set_timebase((value << 32) | (was & _M32))
        elif name == "TBL":
            self.halves_written = True
            self._set_timebase((was & ~_M32) | value)
        elif name in ("DEC", "HDEC"):
            self.others[name] = (_signed(value, self._width(name)) + self.elapsed) & MASK64
        else:
            self.others[name] = (value - self.elapsed) & MASK64

    def _set_timebase(self, value: int) -> None:
        self.adjust = (self.adjust + value - self.timebase) & MASK64

    def _width(self, name: str) -> int:
        assert self.thread is not None
        return 56 if name == "HDEC" or self.thread.LPCR & LPCR.LD else 32

    def _decrementer(self, name: str) -> int:
        width = self._width(name)
        value = _signed((self.others[name] - self.elapsed) & MASK64, width)
        return value & (_M32 if width == 32 else MASK64)

    def random(self) -> int:
        """64 random bits; no claim is about what they are."""
        return secrets.randbits(64)

    def lend(self, time: ThreadTime) -> None:
        """Let native code read time for one instruction."""
        time.tb_adjust = self.adjust
        time.virtual_ticks = (self.start + self.elapsed) & MASK64
        time.ticks_per_instruction = 1
        time.dec_deadline = time.virtual_ticks + _signed(self._decrementer("DEC"), self._width("DEC"))
        time.dec_written = 0
        time.pending = 0

    def take_back(self, time: ThreadTime) -> None:
        """Take over what native code did to DEC."""
        if time.dec_written:
            self.others["DEC"] = (time.dec_deadline - self.start) & MASK64


def _signed(value: int, width: int) -> int:
    half = 1 << (width - 1)
    return (value + half) % (2 * half) - half


class CaseMemory(GuestMemory):
    """All memory that a case can reach. It keeps only the bytes that were touched."""

    __slots__ = ("byte", "first", "touched")

    def __init__(self, byte: Callable[[int], int]) -> None:
        self.first: dict[int, int] = {}
        """The bytes touched, with their values at the beginning."""
        self.touched: dict[int, int] = {}
        self.byte = byte
        self.size = 1 << 64

    def _at(self, addr: int) -> int:
        if addr not in self.touched:
            self.first[addr] = self.touched[addr] = self.byte(addr)
        return self.touched[addr]

    def load(self, addr: int, size: int, little: bool) -> int:
        """The number at an address."""
        data = bytes(self._at(addr + n) for n in range(size))
        return int.from_bytes(data, "little" if little else "big")

    def store(self, addr: int, size: int, value: int, little: bool) -> None:
        """Store a number."""
        value &= (1 << (8 * size)) - 1
        self.write(addr, value.to_bytes(size, "little" if little else "big"))

    def write(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        """Write bytes."""
        for n, byte in enumerate(bytes(data)):
            self._at(addr + n)
            self.touched[addr + n] = byte


class _Code(GuestMemory):
    """The code of an image, for the engine to fetch."""

    __slots__ = ("image",)

    def __init__(self, image: CodeImage) -> None:
        self.image = image
        self.on_clear = []

    def load(self, addr: int, size: int, little: bool) -> int:
        """The instruction word at an address; an illegal instruction if there is no code."""
        return self.image.word(addr) or 0


def run_case(
    case: CodeCase,
    image: CodeImage,
    thread_for: Callable[[CaseTime], tuple[ConcreteEngine, Thread]] | None = None,
) -> CodeRun:
    """Run a case, by the concrete evaluator unless `thread_for` gives an engine and a thread of its own in
    whose memory code and case are.
    """
    live = CaseTime(case)
    if thread_for is None:
        engine = ConcreteEngine(_Code(image))
        thread: Thread = ThreadState(CaseMemory(case.memory), live, engine)
    else:
        engine, thread = thread_for(live)
    live.thread = thread
    for name, value in case.registers.items():
        if name in StoredRegisters.__slots__:
            thread.set(name, value)
        else:
            thread.gpr[int(name.removeprefix("r"))] = value
    thread.set_msr(case.msr)
    if thread_for is None:
        # The code's addresses are not cut to real addresses.
        thread.ea_mask = MASK64
    thread.CIA = case.start
    run = CodeRun(case, thread, live)
    waiting = list(case.happenings)
    told = 0
    returned = False
    for _ in range(case.most_steps + 1):
        address = thread.CIA
        word = image.word(address)
        changed = ""
        if waiting and waiting[0].address in (address, RETURNED if returned else address):
            happening = waiting.pop(0)
            if happening.changes_memory:
                changed = _change(case, thread, happening.value, image.little)
            else:
                live.elapsed = happening.value
        run.reached = returned or address == case.end
        if run.reached or word is None or len(run.steps) == case.most_steps:
            break
        note = _before(thread, word)
        before, written = live.timebase, _time_written(word)
        engine.run(thread, 1)
        notes = [changed, note(thread)]
        if written and live.timebase != before:
            notes.append(f"the timebase goes from {before:#x} to {live.timebase:#x}")
        elif written:
            notes.append(f"the timebase stays {before:#x}")
        (line,) = listing(image, [address])
        text = "; ".join(each for each in notes if each)
        run.steps.append(Step(address, image.place(address), line.text, live.elapsed - told, text))
        told = live.elapsed
        returned = _is_return(word) and thread.CIA == case.returns_to != address + _WORD
    return run


def _is_return(word: int) -> bool:
    found = decode(word)
    return found is not None and found.mnemonic == "bclr"


def _change(case: CodeCase, thread: Thread, value: int, little: bool) -> str:
    assert case.shared is not None
    if thread.memory.load(case.shared, _DOUBLEWORD, little) == value:
        return ""
    thread.memory.store(case.shared, _DOUBLEWORD, value, little)
    return f"before it another thread sets the word at {case.shared:#x} to {value:#x}"


def _time_written(word: int) -> bool:
    found = decode(word)
    return (
        found is not None and found.mnemonic == "mtspr" and FIELDS["SPR"].decode(word) in _timebase_numbers()
    )


def _timebase_numbers() -> set[int]:
    from chronovisor.isa.registers import SPR_WRITE

    return {number for number, register in SPR_WRITE.items() if register.name in ("TBU40", "TBU", "TBL")}


def _before(thread: Thread, word: int) -> Callable[[Thread], str]:
    """Return a function that describes an instruction's effect once it is done."""
    found = decode(word)
    if found is None:
        return lambda after: "is no instruction"
    done = operations(found, word)
    if done & LOADS or "read_live" in done:
        names = {each.name for each in found.fields}
        if "RT" in names:
            target = FIELDS["RT"].decode(word)
            return lambda after: f"r{target} is {after.gpr[target]:#x}"
    if done & STORES and "RS" in {each.name for each in found.fields}:
        stored = thread.gpr[FIELDS["RS"].decode(word)]
        return lambda after: f"stores {stored:#x}"
    if found.mnemonic in ("bc", "b"):
        behind = thread.CIA + _WORD
        return lambda after: "not taken" if behind == after.CIA else "taken"
    return lambda after: ""


def as_json(case: CodeCase, run: CodeRun) -> dict[str, Any]:
    """Return a case and its steps for JSON."""
    memory = run.thread.memory
    first = memory.first if isinstance(memory, CaseMemory) else {}
    return {
        "timebase": case.timebase,
        "registers": dict(case.registers),
        "memory": {f"{address:#x}": byte for address, byte in sorted(first.items())},
        "steps": [
            {
                "address": step.address,
                "place": step.place,
                "text": step.text,
                "ticks": step.ticks,
                "note": step.note,
            }
            for step in run.steps
        ],
        "timebase_at_the_end": run.timebase,
    }
