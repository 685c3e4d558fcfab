"""The concrete evaluator with every translation checked by the independent walk, and with an eye on programs
whose results the book leaves open.

It leaves them open if a program executes instructions that were changed since they were fetched, without
`icbi`, or uses a translation whose tables were changed, without `tlbie`.
"""

from __future__ import annotations

from collections import Counter

from chronovisor.engine.concrete import ConcreteEngine, Crash
from chronovisor.engine.endings import GuestInterrupt
from chronovisor.engine.live_registers import LiveRegisters
from chronovisor.engine.state import CACHE_BLOCK, Thread, ThreadState
from chronovisor.engine.translation import PAGE_SHIFT, Context, Translations
from chronovisor.isa.bits import MSR
from chronovisor.isa.radix import Access
from chronovisor.memory.guest_memory import GuestMemory

from ..page_tables import Fault, expected
from .invalidation import Invalidation, named

_BLOCK = -CACHE_BLOCK


class Open(Exception):
    """The book leaves open what the next instruction does."""


class WrongWalk(AssertionError):
    """The walk of the meaning and the independent one differ."""


class WatchedMemory(GuestMemory):
    """Memory that tells of stores to tables that were walked and to code that was executed."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.reset()

    def reset(self) -> None:
        """Nothing was walked and nothing was executed so far."""
        self.table_pages: set[int] = set()
        self.code: set[int] = set()
        self.changed_code: set[int] = set()
        self.tables_changed = False
        self.walking = False

    def store(self, addr: int, size: int, value: int, little: bool) -> None:
        super().store(addr, size, value, little)
        self._stored(addr, size)

    def write(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        super().write(addr, data)
        self._stored(addr, len(data))

    def _stored(self, addr: int, size: int) -> None:
        for block in {addr & _BLOCK, (addr + size - 1) & _BLOCK}:
            if block in self.code:
                self.changed_code.update(range(addr & -4, addr + size, 4))
            if block >> PAGE_SHIFT in self.table_pages and not self.walking:
                self.tables_changed = True


class _Recorded:
    """Memory as bytes, for the independent walk: it notes which pages are read."""

    def __init__(self, memory: WatchedMemory) -> None:
        self._memory = memory

    def __len__(self) -> int:
        return self._memory.size

    def __getitem__(self, place: slice) -> bytes:
        self._memory.table_pages.add(place.start >> PAGE_SHIFT)
        return self._memory.data[place]


class CheckedTranslations(Translations):
    """Translations each of which the independent walk confirms, updated entry included."""

    def __init__(self, memory: WatchedMemory) -> None:
        super().__init__()
        self._memory = memory
        self._recorded = _Recorded(memory)
        #: What was translated before tables were changed.
        self._old: dict[tuple[tuple[int, ...], Access, int], int] = {}
        self.walks = 0
        self.faults = 0

    def forget(self) -> None:
        """Look everything up anew."""
        super().forget()
        self._old.clear()
        self._memory.tables_changed = False

    def invalidate(self, which: Invalidation | None) -> None:
        """Forget what an invalidation names. A TLB may keep everything else as it was."""
        self.doubt()
        if which is not None:
            gone = [old for old in self._old if which.names(old[0][1], old[2])]
            for old in gone:
                del self._old[old]

    def doubt(self) -> None:
        """Tables were changed: have each translation walked for again, and compared."""
        for key, context in self._contexts.items():
            for access, pages in context.items():
                self._old.update({(key, access, page): there for page, there in pages.items()})
                pages.clear()
        self._memory.tables_changed = False

    def walk(self, thread: Context, ea: int, access: Access) -> int:
        """Walk, compare with the independent walk, and with what was translated before tables changed."""
        problem = bool(thread.MSR & MSR.PR)
        answer, entry = expected(
            self._recorded,  # type: ignore[arg-type]
            *(thread.PATE1, thread.PIDR, ea, access, problem, thread.AMR, thread.IAMR),
        )
        before = self._old.get((self.key, access, ea >> PAGE_SHIFT))
        if before is not None and (answer != ea + before or entry is not None):
            raise Open("translation")
        self.walks += 1
        self._memory.walking = True
        try:
            found: int | Fault = super().walk(thread, ea, access)
        except GuestInterrupt as raised:
            self.faults += 1
            cause = raised.cause
            if raised.name == "DATA_STORAGE":
                cause = thread.DSISR  # type: ignore[attr-defined]
            if Fault(raised.name, cause) != answer:
                raise WrongWalk(
                    f"{access.value} of {ea:#x}: {raised.name} {cause:#x}, not {answer}"
                ) from None
            raise
        finally:
            self._memory.walking = False
        if found != answer:
            raise WrongWalk(f"{access.value} of {ea:#x}: {found:#x}, not {answer}")
        if entry is not None and self._memory.load(entry[0], 8, False) != entry[1]:
            raise WrongWalk(f"{access.value} of {ea:#x}: the entry at {entry[0]:#x} is not {entry[1]:#x}")
        return found


class CheckedThread(ThreadState):
    """A thread of the checked evaluator."""

    __slots__ = ()

    def forget_translations(self, whose: str) -> None:
        """Forget what the executing instruction names, and nothing else."""
        word = self.memory.load(self.fetch_address(), 4, self.mode[1])
        translations = self.translations
        assert isinstance(translations, CheckedTranslations)
        translations.invalidate(named(word, self.gpr[(word >> 11) & 31], self.gpr[(word >> 21) & 31]))


class CheckedEngine(ConcreteEngine):
    """The concrete evaluator; its runs end in `Open` where the book leaves open what happens."""

    memory: WatchedMemory

    def __init__(self, memory: WatchedMemory) -> None:
        super().__init__(memory)
        self.entered: Counter[str] = Counter()
        """How often each interrupt was taken."""

    def _enter(self, state: Thread, raised: GuestInterrupt) -> Crash | None:
        self.entered[raised.name] += 1
        return super()._enter(state, raised)

    def thread(self, live: LiveRegisters) -> Thread:
        thread = CheckedThread(self.memory, live, self)
        thread.translations = CheckedTranslations(self.memory)
        thread.set_msr(thread.MSR)
        return self._known(thread)

    def forget(self, address: int) -> None:
        super().forget(address)
        self.memory.code.discard(address & _BLOCK)
        block = address & _BLOCK
        self.memory.changed_code.difference_update(range(block, block + CACHE_BLOCK, 4))

    def forget_all(self) -> None:
        super().forget_all()
        self.memory.reset()

    def _steps(self, state: Thread, end: int) -> None:
        while state.executed < end:
            self._look(state)
            super()._steps(state, state.executed + 1)

    def _trace_steps(self, state: Thread, end: int) -> None:
        while state.executed < end:
            self._look(state)
            super()._trace_steps(state, state.executed + 1)

    def _look(self, state: Thread) -> None:
        """Note that the instruction at CIA is executed; it may have been changed, or tables before it."""
        memory = self.memory
        if memory.tables_changed:
            translations = state.translations
            assert isinstance(translations, CheckedTranslations)
            translations.doubt()
        state.CIA &= (1 << 64) - 1 if state.mode[0] else 0xFFFF_FFFF
        address = state.fetch_address()
        if address & -4 in memory.changed_code:
            raise Open("code")
        memory.code.add(address & _BLOCK)


__all__ = ["CheckedEngine", "CheckedTranslations", "Open", "WatchedMemory", "WrongWalk"]
