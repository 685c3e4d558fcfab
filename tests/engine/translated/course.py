"""One start of a world on both engines: the same states at the same instructions, and the same memory."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from random import Random
from typing import Generic, TypeVar

from handlers import ensure

from chronovisor.engine.concrete import ConcreteEngine, Reason
from chronovisor.engine.native.emitter import FAULTED, NOT_TRANSLATED
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.layout import ThreadContext, mode_number
from chronovisor.engine.native.library import HandlerLibrary, runtime
from chronovisor.engine.native.state import NativeThread
from chronovisor.engine.native.state_layout import KEYS, STORED
from chronovisor.engine.regions import placing
from chronovisor.engine.regions.compile import WantedRegion, compile_region
from chronovisor.engine.state import CACHE_BLOCK, Thread
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.isa.interrupts import INTERRUPTS
from chronovisor.isa.radix import Access
from chronovisor.isa.registers import REGISTERS
from chronovisor.memory.guest_memory import PAGE_SIZE, GuestMemory

from ..lines import instructions_in_lines, put_in_lines
from ..native_guest import Time
from ..page_tables import Fault, expected
from .checked import CheckedEngine, CheckedTranslations, Open, WatchedMemory
from .worlds import CODE, CODE_PAGES, SIZE, Start, World, every_word

_NAMES = tuple(name for name in STORED if name != "NIA")
_STORED = attrgetter(*_NAMES)
_RESETS = {name: REGISTERS[name].reset for name in STORED}
_MODES = tuple((sixty_four, little) for sixty_four in (False, True) for little in (False, True))
_MASK = (1 << 64) - 1
WALKS = 16
"""How many accesses of a world's addresses are compared with the native walk."""


class Difference(AssertionError):
    """Native code did something else."""


@dataclass
class Counts:
    """What was compared."""

    starts: int = 0
    instructions: int = 0
    stops: int = 0
    open: int = 0
    translations: int = 0
    faults: int = 0
    native_walks: int = 0
    regions: int = 0
    lines: int = 0
    interrupts: Counter[str] = field(default_factory=Counter)


def prepare() -> None:
    """Have a handler for each word that programs are made of, and let no other be compiled meanwhile."""
    ensure((word, mode) for word in every_word() for mode in _MODES)
    HandlerLibrary.want = lambda self, key: False  # type: ignore[method-assign]


State = tuple[object, ...]
E = TypeVar("E", bound=ConcreteEngine)


def _state(thread: Thread, time: Time) -> State:
    return (_STORED(thread), tuple(thread.gpr[:32]), thread.reservation, thread.executed, time.deadline)


def _named(state: State) -> dict[str, object]:
    stored, gpr, reservation, executed, deadline = state
    return {
        **dict(zip(_NAMES, stored, strict=True)),  # type: ignore[call-overload]
        **{f"r{n}": value for n, value in enumerate(gpr)},  # type: ignore[arg-type,var-annotated]
        "reservation": reservation,
        "executed": executed,
        "DEC's deadline": deadline,
    }


class _Side(Generic[E]):
    """An engine with its memory and one thread."""

    def __init__(self, engine: E) -> None:
        self.engine = engine
        self.memory = engine.memory
        self.time = Time(real=False)
        self.thread = self.time.thread = engine.thread(self.time)

    def begin(self, start: Start) -> None:
        """Put the thread into the state of a start."""
        thread = self.thread
        for name, value in _RESETS.items():
            setattr(thread, name, value)
        for name, value in start.registers.items():
            setattr(thread, name, value)
        thread.gpr[:32] = start.gpr
        thread.reservation = None
        thread.executed = 0
        self.time.deadline = 1 << 40
        thread.set_msr(start.registers["MSR"] & REGISTERS["MSR"].mask)
        self.engine.forget_translations()

    def advance(self, end: int) -> bool:
        """Execute up to the instruction with this number; True if the guest turned out to be in a loop."""
        is_loop = False
        while self.thread.executed < end:
            stop = self.engine.run(self.thread, end - self.thread.executed)
            is_loop = is_loop or stop.reason is Reason.CRASH_LOOP
        return is_loop

    def restore(self, image: bytes) -> None:
        """Put memory back as it is before a start, and forget what was decoded."""
        for page in self.memory.dirty.take():
            at = page * PAGE_SIZE
            self.memory.view[at : at + PAGE_SIZE] = image[at : at + PAGE_SIZE]
        self.engine.forget_all()


class Course:
    """Both engines over one world."""

    def __init__(
        self,
        world: World,
        memories: tuple[WatchedMemory, GuestMemory],
        regions: Random | None = None,
        lines: bool = False,
    ) -> None:
        """With `regions` native code has a region at a random place of each page of code, with `lines` it has
        lines for all that is decoded.
        """
        self.world, self._lines = world, lines
        self._hots = regions and [regions.randrange(0, PAGE_SIZE, 4) for _ in range(CODE_PAGES)]
        self._loaded: dict[tuple[tuple[bool, bool], int], placing.Loaded] = {}
        for memory in memories:
            # The engines of the world before are done with.
            memory.on_clear.clear()
            memory.dirty.on_take.clear()
            memory.view[:] = world.image
            memory.dirty.take()
        memories[0].reset()
        self.checked = _Side(CheckedEngine(memories[0]))
        self.native = _Side(NativeEngine(memories[1]))

    def run(self, number: int, counts: Counts, limit: int | None = None) -> None:
        """Run one start on both, up to `limit` instructions; Difference if they differ."""
        start = self.world.starts[number]
        ends = self._ends(start, limit)
        stops, open_at = self._checked_stops(start, ends)
        if open_at is not None:
            # Once more, to be stopped before the instruction that the book leaves open.
            counts.open += 1
            self.checked.restore(self.world.image)
            ends = [(end, name) for end, name in ends if end < open_at] + [(open_at, None)]
            stops, again = self._checked_stops(start, ends)
            if again is not None:
                raise Difference("the concrete evaluator does not repeat itself")
        self.native.begin(start)
        counts.regions += self._put_in_regions()
        if self._lines:
            self._decode()
        for (end, name), expected_state in zip(ends, stops, strict=True):
            if self._lines:
                put_in_lines(self.native.engine)
                counts.lines += instructions_in_lines(self.native.engine)
            self.native.advance(end)
            found = _state(self.native.thread, self.native.time)
            if found != expected_state:
                raise Difference(f"at instruction {end}: {_difference(expected_state, found)}")
            self._interrupt(self.native, name)
        self._compare_memory()
        if open_at is not None:
            # What it does is left open, but not that it harms nobody.
            self.native.advance(open_at + 50)
        translations = self.checked.thread.translations
        assert isinstance(translations, CheckedTranslations)
        counts.translations += translations.walks
        counts.faults += translations.faults
        translations.walks = translations.faults = 0
        counts.starts += 1
        counts.stops += len(stops)
        counts.instructions += ends[-1][0] if ends else 0
        counts.interrupts += self.checked.engine.entered
        self.checked.engine.entered.clear()

    def _decode(self) -> None:
        """Decode all code before it is executed."""
        thread = self.native.thread
        assert isinstance(thread, NativeThread)
        pages = self.native.engine.pages_of(thread)
        for number in range(CODE_PAGES):
            pages.add(CODE // PAGE_SIZE + number)
            for offset in range(0, PAGE_SIZE, CACHE_BLOCK):
                pages.decode(CODE + number * PAGE_SIZE + offset)

    def _put_in_regions(self) -> int:
        """Put the regions of this world in; how many have code."""
        if self._hots is None:
            return 0
        thread, made = self.native.thread, 0
        assert isinstance(thread, NativeThread)
        pages = self.native.engine.pages_of(thread)
        for number, hot in enumerate(self._hots):
            home = CODE // PAGE_SIZE + number
            snapshots = {n: pages.snapshot(home + n) for n in range(-number, CODE_PAGES - number)}
            key = (pages.library.mode, number)
            if key not in self._loaded:
                contents = {n: snapshot.content for n, snapshot in snapshots.items()}
                self._loaded[key] = placing.load(compile_region(WantedRegion(key[0], contents, hot)))
            if placing.put_in(pages, snapshots, self._loaded[key]):
                made += bool(self._loaded[key].handlers)
        return made

    @staticmethod
    def _ends(start: Start, limit: int | None) -> list[tuple[int, str | None]]:
        """The instructions to stop at, and the interrupt that then comes."""
        ends, end = [], 0
        for budget, name in zip(start.budgets, start.interrupts, strict=True):
            end += budget
            if limit is not None and end >= limit:
                return [*ends, (limit, None)]
            ends.append((end, name))
        return ends

    def _checked_stops(
        self, start: Start, ends: list[tuple[int, str | None]]
    ) -> tuple[list[State], int | None]:
        """The states at the stops; and where the book leaves open what happens, if it does."""
        self.checked.begin(start)
        stops = []
        for number, (end, name) in enumerate(ends):
            try:
                is_loop = self.checked.advance(min(end, self.checked.thread.executed + 20))
                if not is_loop:
                    is_loop = self.checked.advance(end)
            except Open:
                return stops, self.checked.thread.executed
            stops.append(_state(self.checked.thread, self.checked.time))
            if is_loop:
                # A handler that is not mapped, say: what follows is the same for ever.
                ends[number:] = [(self.checked.thread.executed, None)]
                break
            self._interrupt(self.checked, name)
        return stops, None

    @staticmethod
    def _interrupt(side: _Side[E], name: str | None) -> None:
        if name is not None and side.thread.MSR & MSR.EE:
            side.engine.interrupt(side.thread, name)

    def _compare_memory(self) -> None:
        ours, theirs = self.native.memory, self.checked.memory
        mine, other = ours.dirty.pages, theirs.dirty.pages
        if mine != other:
            pages = [n for n, (a, b) in enumerate(zip(mine, other, strict=True)) if a != b]
            raise Difference(f"other pages are dirty: {pages}")
        at = mine.find(1)
        while at >= 0:
            place = at * PAGE_SIZE
            if ours.data[place : place + PAGE_SIZE] != theirs.data[place : place + PAGE_SIZE]:
                raise Difference(f"other bytes in the page at {place:#x}")
            at = mine.find(1, at + 1)

    def restore(self) -> None:
        """Memory and what was decoded as before the start."""
        self.checked.restore(self.world.image)
        self.native.restore(self.world.image)

    def walk(self, random: Random, counts: Counts) -> None:
        """Compare the native walk with the independent one at addresses of the world, in a random state."""
        start = random.choice(self.world.starts)
        self.native.begin(start)
        thread, memory = self.native.thread, self.native.memory
        assert isinstance(thread, NativeThread)
        msr = int(MSR.SF | MSR.ME | MSR.IR | MSR.DR) | random.choice((0, int(MSR.PR)))
        # The table of decoded pages, which no instruction of this uses.
        thread.guest.modes[mode_number((True, False))].table = 1
        for ea, access in self._accesses(random):
            if not start.registers["LPCR"] & LPCR.HR:
                break
            thread.DAR = thread.DSISR = 0
            thread.CIA = CODE
            thread.set_msr(msr)
            if not (runtime().adopt(thread.at) and _empty_tlbs(thread)):
                raise Difference("native code cannot run")
            # Fetches lead to pages that have changed, too: no code is in them.
            ctypes.memset(thread.guest.page_contents, 0, ctypes.sizeof(thread.guest.page_contents))
            answer, entry = expected(
                memory.data,  # type: ignore[arg-type]
                *(thread.PATE1, thread.PIDR, ea, access, bool(msr & MSR.PR), thread.AMR, thread.IAMR),
            )
            found = _native_walk(access)(thread.at, ea)
            said = f"native {access.value} of {ea:#x}"
            if isinstance(answer, Fault):
                is_fetch = access is Access.FETCH
                cause, dar = (thread.SRR1 ^ msr, ea) if is_fetch else (thread.DSISR, thread.DAR)
                if (found, thread.CIA & 0xFFF, dar, cause) != (
                    *(FAULTED, INTERRUPTS[answer.name].vector, ea, answer.cause),
                ):
                    raise Difference(f"{said}: {found:#x} {thread.CIA:#x} {dar:#x} {cause:#x}, not {answer}")
            elif found != (NOT_TRANSLATED if answer >= SIZE else answer):
                raise Difference(f"{said}: {found:#x}, not {answer:#x}")
            if entry is not None and memory.load(entry[0], 8, False) != entry[1]:
                raise Difference(f"{said}: the entry at {entry[0]:#x} is not {entry[1]:#x}")
            counts.native_walks += 1
        self.native.restore(self.world.image)

    def _accesses(self, random: Random) -> Iterator[tuple[int, Access]]:
        for _ in range(WALKS):
            ea = random.choice(self.world.addresses) + random.getrandbits(12)
            if random.random() < 0.2:
                ea ^= 1 << random.randrange(64)
            yield ea & _MASK, random.choice(tuple(Access))


def _empty_tlbs(thread: NativeThread) -> bool:
    """Have each look-up be a walk; whether native code can run."""
    context = ThreadContext.from_address(thread.context)
    context.stale[:] = [1] * KEYS
    return bool(runtime().adopt(thread.at))


@cache
def _native_walk(access: Access) -> Callable[[int, int], int]:
    made = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)
    return made(getattr(runtime(), f"translate_{access.value}_address"))


def _difference(expected_state: State, found: State) -> str:
    """The registers that differ, native code's value first."""
    want, have = _named(expected_state), _named(found)
    said = [
        f"{name}: {_shown(have[name])}, not {_shown(want[name])}" for name in want if want[name] != have[name]
    ]
    return "; ".join(said[:8])


def _shown(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) else str(value)


__all__ = ["Counts", "Course", "Difference", "prepare"]
