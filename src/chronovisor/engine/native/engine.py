"""The native engine: runs a guest's threads as machine code made from the meanings.

It is the concrete engine with another way to execute. An instruction that native code leaves (it faults, or
has no handler) is done by the concrete evaluator on the same state. So is everything while the first handlers
are still being compiled.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

from chronovisor.engine.concrete import ConcreteEngine, Reason, Stop
from chronovisor.engine.hypercalls import HypercallProgram
from chronovisor.engine.live_registers import LiveRegisters
from chronovisor.engine.native.contexts import STEPPED
from chronovisor.engine.native.hypercalls import hypercall_address
from chronovisor.engine.native.layout import (
    PAGE_SHIFT,
    WATCHED_LOADS,
    WATCHED_STORES,
    Left,
    ModePages,
    Peers,
    WordTable,
    WordTables,
    mode_number,
)
from chronovisor.engine.native.library import runtime
from chronovisor.engine.native.page_records import Records
from chronovisor.engine.native.pages import DecodedPages
from chronovisor.engine.native.state import NativeThread
from chronovisor.engine.native.state_layout import LONG_AGO
from chronovisor.engine.state import CACHE_BLOCK, Thread
from chronovisor.engine.statistics import Instructions
from chronovisor.isa.bits import MSR
from chronovisor.memory.guest_memory import GuestMemory
from chronovisor.memory.watched import Watchpoint

_REASONS = {
    Left.BUDGET: Reason.BUDGET,
    Left.RESYNC: Reason.RESYNC,
    Left.HYPERCALL: Reason.HYPERCALL,
}
#: What a run ends with, by why native code was left; None if it goes on.
_STOPS = tuple(Stop(_REASONS[left]) if left in _REASONS else None for left in Left)
_USED_UP = Stop(Reason.BUDGET)


#: The bits of MSR that choose the machine mode. A plain number: an enum's operators are slow.
_MODE = int(MSR.SF | MSR.LE)
#: The bits of MSR that say how a thread can run: in which mode, and whether step by step.
_HOW = _MODE | STEPPED
#: Samples that are not worth a look.
_FEW_SAMPLES = 15
#: Instructions from one look at the number of samples to the next: fewer do not give that many.
_LOOK_INSTRUCTIONS = 1 << 17


#: Instructions that the concrete evaluator executes from an access to a watched page on.
_NEAR_WATCHED = 16


class SecondTier(Protocol):
    """What replaces the handlers of hot code by better code."""

    def look(self, thread: NativeThread, pages_by_table: dict[int, DecodedPages]) -> None:
        """See where a thread was, after a run of it; decoded pages are known by their tables' addresses."""


class NativeEngine(ConcreteEngine):
    """Runs the threads of one guest natively; each may run in a Python thread of its own, side by side."""

    is_native = True

    def __init__(self, memory: GuestMemory, tier: SecondTier | None = None) -> None:
        """``tier`` may replace handlers by better code."""
        super().__init__(memory)
        # Of the engine itself: what its class has takes several times as long to look up.
        self.budget = 1 << 20
        self._tier = tier
        self._pages_by_table: dict[int, DecodedPages] = {}
        self.modes = (ModePages * 4)()
        """The decoded pages that native code finds, by machine mode."""
        self.peers = Peers()
        """The guest's threads."""
        self.native_word_tables = WordTables()
        """The tables of words that hypercalls set."""
        self._threads: list[NativeThread] = []
        self._pages: dict[tuple[bool, bool], DecodedPages] = {}
        #: Those that native code was told of, by the bits of MSR that choose the mode.
        self._ready: dict[int, DecodedPages] = {}
        #: A byte for each cache block, 1 once it was decoded. It costs memory only for the blocks of code.
        self._code_blocks = mmap.mmap(-1, memory.size // CACHE_BLOCK)
        self.code_blocks_at = ctypes.addressof(ctypes.c_char.from_buffer(self._code_blocks))
        self.page_contents = (ctypes.c_uint64 * (memory.size >> PAGE_SHIFT))()
        """What each page held when a fetch was led to it or a region made of it last; 0 if nothing was."""
        self._watched_pages: ctypes.Array[ctypes.c_uint8] | None = None
        self.watched_pages_at = 0
        """The address of a byte for each page that says what is watched in it; 0 if nothing is."""
        #: Records that were replaced, and the threads that may still execute them, by their addresses.
        self._retired: list[tuple[Records, set[int]]] = []
        self._retiring = threading.Lock()
        #: Taken while the concrete evaluator decodes, and while a page is forgotten.
        self._decoding = threading.Lock()
        self._enter_native = runtime().enter
        self._hypercall_address = 0
        # Native code logs a page once, when its TLB gets it for stores.
        memory.dirty.on_take.append(self.forget_translations)

    def thread(self, live: LiveRegisters) -> Thread:
        """A new thread in its reset state."""
        thread = NativeThread(self.memory, live, self)
        thread.hypercalls = self._hypercall_address
        self._threads.append(thread)
        count = len(self._threads)
        self.peers.states[count - 1] = thread.at
        self.peers.count = count
        return thread

    @property
    def instructions(self) -> Instructions:
        """How many instructions the threads have executed; none may be running."""
        concrete = sum(thread.interpreted for thread in self._threads)
        regions = sum(thread.done_in_regions for thread in self._threads)
        executed = sum(thread.executed for thread in self._threads)
        return Instructions(concrete, executed - concrete - regions, regions)

    def answer_hypercalls(self, programs: Sequence[HypercallProgram]) -> None:
        """Have threads that are made from now on answer hypercalls by programs, as their ``answers`` say."""
        super().answer_hypercalls(programs)
        self._hypercall_address = hypercall_address(tuple(programs))

    def share_words(self, number: int, words: memoryview) -> None:
        """Have programs set these words of 64 bits as the table of that number. No thread may run."""
        super().share_words(number, words)
        known = self.native_word_tables
        at = ctypes.addressof(ctypes.c_uint64.from_buffer(words))
        known.tables[known.count] = WordTable(number, at, len(words))
        known.count += 1

    def exchange_word(self, table: int, number: int, expected: int, new: int) -> bool:
        """Set a word of a table if it still is as expected; whether it was, and there is such a word."""
        words = self.word_tables.get(table)
        if words is None or number >= len(words):
            return False
        at = ctypes.addressof(ctypes.c_uint64.from_buffer(words, 8 * number))
        return bool(runtime().exchange_word(at, expected, new))

    def forget_translations(self) -> None:
        """Have every thread look its translations up anew, and wait until none uses an old one."""
        for thread in self._threads:
            runtime().ask_flush(thread.at)
        for thread in self._threads:
            if thread.inside:
                runtime().await_piece(thread.at)

    def forget(self, address: int) -> None:
        """Decode the page that holds the real address anew."""
        self._forget_page(address >> PAGE_SHIFT)

    def forget_code(self, address: int, size: int) -> None:
        """Decode anew what was decoded of these real addresses; threads may run."""
        behind = -(-(address + size) // CACHE_BLOCK)
        if self._code_blocks.find(b"\x01", address // CACHE_BLOCK, behind) < 0:
            # So it is with most of what devices write.
            return
        for page in {block * CACHE_BLOCK >> PAGE_SHIFT for block in self._marked(address, size)}:
            self._forget_page(page)

    def _marked(self, address: int, size: int) -> Iterator[int]:
        """The numbers of the blocks of memory that are marked as decoded."""
        behind = -(-(address + size) // CACHE_BLOCK)
        block = self._code_blocks.find(b"\x01", address // CACHE_BLOCK, behind)
        while block >= 0:
            yield block
            block = self._code_blocks.find(b"\x01", block + 1, behind)

    def _forget_page(self, page: int) -> None:
        """Decode anew what was decoded of a page of real memory."""
        # Memory was changed before this: a thread that marks a block later reads what is there now.
        with self._decoding, ExitStack() as locks:
            modes = tuple(self._pages.values())
            for pages in modes:
                locks.enter_context(pages.changing)
            marked = list(self._marked(page << PAGE_SHIFT, 1 << PAGE_SHIFT))
            for block in marked:
                super().forget(block * CACHE_BLOCK)
            old = [records for pages in modes for records in pages.forget(page)]
            self.page_contents[page] = 0
            # Last: a thread that finds no mark takes it that nothing is decoded.
            for block in marked:
                self._code_blocks[block] = 0
        self._retire(old)

    def forget_all(self) -> None:
        """Decode everything anew: memory was changed from outside, while no thread ran."""
        super().forget_all()
        ctypes.memset(self.page_contents, 0, ctypes.sizeof(self.page_contents))
        for pages in self._pages.values():
            pages.forget_all()

    def break_at(self, addresses: Collection[int]) -> None:
        """Have runs stop before the instructions at these real addresses, and at no others. No thread runs.

        Native code leaves these instructions to the concrete evaluator, which stops before them.
        """
        super().break_at(addresses)
        for pages in self._pages.values():
            self._retire(pages.leave_at(self.breakpoints))

    def watch(self, watchpoints: Collection[Watchpoint]) -> None:
        """Have runs stop before instructions that access these places, and no others. No thread may run.

        Native code leaves all such accesses to their pages to the concrete evaluator.
        """
        super().watch(watchpoints)
        pages = (ctypes.c_uint8 * (self.memory.size >> PAGE_SHIFT))() if watchpoints else None
        for one in watchpoints:
            for page in one.pages:
                assert pages is not None
                pages[page] |= WATCHED_LOADS * one.loads | WATCHED_STORES * one.stores
        self._watched_pages = pages
        self.watched_pages_at = 0 if pages is None else ctypes.addressof(pages)
        for thread in self._threads:
            thread.watched_pages = self.watched_pages_at
        self.forget_translations()

    def step(self, state: Thread) -> Stop:
        """Execute one instruction, even at a breakpoint."""
        assert isinstance(state, NativeThread)
        self.pages_of(state)
        state.live.lend(state)
        return self._interpret(state, super().step)

    def enter_decrementer(self, state: Thread, wanted: bool) -> bool:
        """See `Engine`. The concrete evaluator cannot, so native code has to be ready for the mode."""
        assert isinstance(state, NativeThread)
        able = wanted and self._watched is None and (state.MSR & _HOW) in self._ready
        if able:
            state.live.lend(state)
            able = state.dec_deadline >= state.virtual_ticks - LONG_AGO
        state.enters_decrementer = able
        return able

    def run(self, state: Thread, budget: int) -> Stop:
        """Execute up to ``budget`` instructions; stops early for what only the caller can do.

        It also stops early, as if the budget were used up, after ``exit_request``. If the concrete evaluator
        runs the guest on the machine's own clock, it stops often, so that the caller checks deadlines.
        """
        if TYPE_CHECKING:
            assert isinstance(state, NativeThread)
        # `enter` is no method, which makes calling it as an attribute slower.
        executed, live, enter = state.executed, state.live, self._enter_native
        end = executed + budget
        while executed < end:
            pages = self._ready.get(state.MSR & _HOW)
            if pages is None:
                pages = self.pages_of(state)
                if pages.library.ready and not state.MSR & STEPPED:
                    # Native code was told of them just now.
                    continue
                if state.enters_decrementer:
                    # The guest has changed its mode: its next run ends when the decrementer is due.
                    return _USED_UP
                live.lend(state)
                on_machine_clock = not state.ticks_per_instruction
                stop = self._run_concrete(state, min(end - executed, ConcreteEngine.budget))
                pages.library.executed_slowly(state.executed - executed)
                executed = state.executed
                if stop.reason is not Reason.BUDGET or on_machine_clock or state.exit_request:
                    return stop
                continue
            if pages.generation != pages.library.generation:
                self._retire(pages.refresh())
            state.run_left = end - executed
            live.lend(state)
            why: int = enter(state.reference)
            executed = state.executed = end - state.run_left
            if self._retired:
                self._leave_retired(state.at)
            if state.dec_written:
                live.take_back(state)
            if executed >= state.look_due and self._tier is not None:
                is_new = any(pages.new for pages in self._pages_by_table.values())
                if is_new or state.sample_count - state.samples_taken > _FEW_SAMPLES:
                    self._tier.look(state, self._pages_by_table)
                    for one in self._pages_by_table.values():
                        self._retire(one.take_replaced())
                state.look_due = executed + _LOOK_INSTRUCTIONS
            found = _STOPS[why]
            if found is not None:
                return found
            if executed == end:
                break
            if (why == Left.DECODE or why == Left.FETCH) and self._make_records(state, why):
                continue
            # Who accesses a watched page may do so again soon.
            slow = 1 if self._watched is None else min(_NEAR_WATCHED, end - executed)
            stop = self._run_concrete(state, slow)
            executed = state.executed
            if stop.reason is not Reason.BUDGET:
                return stop
        return _USED_UP

    def _run_concrete(self, state: NativeThread, budget: int) -> Stop:
        """Have the concrete evaluator execute instructions."""
        return self._interpret(state, partial(super().run, budget=budget))

    @staticmethod
    def _interpret(state: NativeThread, execute: Callable[[Thread], Stop]) -> Stop:
        """Have the concrete evaluator `execute`; invalidations wait for it as for native code."""
        state.inside = 1
        state.catch_up()
        before = state.executed
        try:
            return execute(state)
        finally:
            state.interpreted += state.executed - before
            state.inside = 0

    @contextmanager
    def _decodes(self, address: int) -> Iterator[None]:
        block = address // CACHE_BLOCK
        with self._decoding:
            if block < len(self._code_blocks):
                # Before memory is read, which the lock makes sure of, as in `DecodedPages.mark`.
                self._code_blocks[block] = 1
                with self._retiring:
                    pass
            yield

    def _make_records(self, state: NativeThread, why: int) -> bool:
        """Make the records that native code lacks at CIA; False if no record can be made.

        Then the concrete evaluator executes the instruction.
        """
        pages = self.pages_of(state)
        if why == Left.DECODE:
            page = (state.page_entry - pages.address) >> 3
            return pages.decode((page << PAGE_SHIFT) + state.CIA - state.page_base)
        page = state.fetched >> PAGE_SHIFT
        if page >= pages.count:
            return False
        changed = self._forget_changed(page)
        self._retire(pages.make_room())
        return pages.add(page) or changed

    def _forget_changed(self, page: int) -> bool:
        """Decode a page anew if it does not hold any more what it held; whether that is so."""
        at = ctypes.addressof(ctypes.c_char.from_buffer(self.memory.data)) + (page << PAGE_SHIFT)
        before = self.page_contents[page]
        changed: bool = before != 0 and runtime().content(at) != before
        if changed:
            self._forget_page(page)
        return changed

    def pages_of(self, state: NativeThread) -> DecodedPages:
        """The pages decoded for the thread's mode. Native code is told of them once it can run them."""
        mode = state.mode
        found = self._pages.get(mode)
        if found is None:
            # If two threads come at once, the first decides.
            made = DecodedPages(self.memory, mode, self._code_blocks, self.page_contents)
            made.leave_at(self.breakpoints)
            if not self._pages:
                made.library.need_everyday()
            with self._decoding:
                found = self._pages.setdefault(mode, made)
            self._pages_by_table = {pages.address: pages for pages in self._pages.values()}
        told = self.modes[mode_number(mode)]
        if not told.table and found.library.ready:
            told.early, told.decoding = found.early_at, ctypes.addressof(found.library.decoding)
            told.lines = found.lines.at
            told.count, told.table = found.count, found.address
            self._ready[state.MSR & _MODE] = found
        return found

    def _retire(self, old: list[Records]) -> None:
        """Keep records that were replaced as long as a thread that is in native code now may read them."""
        if not old:
            return
        # A thread that comes in later finds the new records: `enter` says that it is inside before it looks.
        with self._retiring:
            self._retired += [(records, {t.at for t in self._threads if t.inside}) for records in old]

    def _leave_retired(self, at: int) -> None:
        """Let go of old records that no thread is among: the one whose state is there is out."""
        with self._retiring:
            for _, there in self._retired:
                there.discard(at)
            self._retired = [one for one in self._retired if one[1]]
