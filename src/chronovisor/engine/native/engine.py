"""The native engine: runs a guest's threads as machine code made from the meanings.

It is the concrete engine with another way to execute. An instruction that native code leaves (it faults, or
has no handler) is done by the concrete evaluator on the same state. So is everything while the first handlers
are still being compiled.
"""

from __future__ import annotations

import ctypes
import mmap
import threading

from chronovisor.engine.concrete import ConcreteEngine, Reason, Stop
from chronovisor.engine.endings import GuestInterrupt
from chronovisor.engine.native.layout import PAGE_SHIFT, Left
from chronovisor.engine.native.library import runtime
from chronovisor.engine.native.pages import DecodedPages, Retired
from chronovisor.engine.native.state import NativeThread
from chronovisor.engine.state import CACHE_BLOCK, LiveRegisters, Thread
from chronovisor.isa.bits import MSR
from chronovisor.memory.guest_memory import GuestMemory

_STOPS: dict[int, Stop] = {
    Left.BUDGET: Stop(Reason.BUDGET),
    Left.RESYNC: Stop(Reason.RESYNC),
    Left.HYPERCALL: Stop(Reason.HYPERCALL),
}

#: The states of MSR in which the concrete evaluator runs the guest.
_STEPPED = int(MSR.SE | MSR.BE)
_RESYNC = int(Left.RESYNC)


class NativeEngine(ConcreteEngine):
    """Runs the threads of one guest natively; each may run in a Python thread of its own, side by side."""

    is_native = True
    budget = 1 << 20

    def __init__(self, memory: GuestMemory) -> None:
        super().__init__(memory)
        self._threads: list[NativeThread] = []
        self._pages: dict[tuple[bool, bool], DecodedPages] = {}
        #: A byte for each cache block, 1 once it was decoded. It costs memory only for the blocks of code.
        self._code_blocks = mmap.mmap(-1, memory.size // CACHE_BLOCK)
        self._code_blocks_at = ctypes.addressof(ctypes.c_char.from_buffer(self._code_blocks))
        #: Where the threads are that are in native code; records that were replaced, with who may be there.
        self._inside: set[int] = set()
        self._retired: list[tuple[Retired, set[int]]] = []
        self._retiring = threading.Lock()
        self._enter_native = runtime().enter
        self._memory_at = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory.data)))

    def thread(self, live: LiveRegisters) -> Thread:
        """A new thread in its reset state."""
        thread = NativeThread(self.memory, live, self, self._code_blocks_at)
        self._threads.append(thread)
        return self._known(thread)

    def forget_translations(self) -> None:
        """Have every thread look its translations up anew, and wait until none uses an old one.

        The caller is outside native code, so it waits for the others alone.
        """
        super().forget_translations()
        for thread in self._threads:
            if thread.inside:
                runtime().await_piece(thread.at)

    def forget(self, address: int) -> None:
        """Decode the block that holds the real address anew."""
        super().forget(address)
        for pages in tuple(self._pages.values()):
            old = pages.forget(address)
            if old is not None:
                self._retire([old])

    def forget_all(self) -> None:
        """Decode everything anew: memory was changed from outside, while no thread ran."""
        super().forget_all()
        for pages in self._pages.values():
            pages.forget_all()

    def run(self, state: Thread, budget: int) -> Stop:
        """Execute up to ``budget`` instructions; stops early for what only the caller can do.

        It also stops early, as if the budget were used up, after ``exit_request``. If the concrete evaluator
        runs the guest on the machine's own clock, it stops often, so that the caller checks deadlines.
        """
        assert isinstance(state, NativeThread)
        executed, live = state.executed, state.live
        end = executed + budget
        while executed < end:
            pages = state.pages or self._pages_of(state)
            if state.MSR & _STEPPED or not pages.library.ready:
                live.lend(state)
                on_machine_clock = not state.ticks_per_instruction
                stop = super().run(state, min(end - executed, ConcreteEngine.budget))
                executed = state.executed
                if stop.reason is not Reason.BUDGET or on_machine_clock or state.exit_request:
                    return stop
                continue
            if pages.generation != pages.library.generation:
                self._retire(pages.refresh())
            state.run_left = end - executed
            live.lend(state)
            why = self._run_native(state)
            executed = state.executed = end - state.run_left
            live.take_back(state)
            if why == _RESYNC:
                # Native code has set MSR alone.
                state.set_msr(state.MSR)
            elif state.translations.amr_key != state.AMR >> 62:
                # Native code has gone over to the TLB of another key by itself.
                state.new_context()
            found = _STOPS.get(why)
            if found is not None:
                return found
            if executed == end:
                break
            if (why == Left.DECODE or why == Left.FETCH) and self._make_records(state, pages, why):
                continue
            stop = super().run(state, 1)
            executed = state.executed
            if stop.reason is not Reason.BUDGET:
                return stop
        return _STOPS[Left.BUDGET]

    def _note_decoding(self, address: int) -> None:
        block = address // CACHE_BLOCK
        if block < len(self._code_blocks):
            # Before memory is read, which the lock makes sure of, as in `DecodedPages.decode`.
            self._code_blocks[block] = 1
            with self._retiring:
                pass

    @staticmethod
    def _make_records(state: NativeThread, pages: DecodedPages, why: int) -> bool:
        """Make the records that native code lacks at CIA; False if there is no memory at that address."""
        try:
            address = state.fetch_address()
        except GuestInterrupt:
            return False
        page = address >> PAGE_SHIFT
        if page >= pages.count:
            return False
        if why == Left.DECODE:
            pages.decode(address)
        else:
            pages.add(page)
        return True

    def _pages_of(self, state: NativeThread) -> DecodedPages:
        """Have the thread run among the pages decoded for its mode."""
        found = self._pages.get(state.mode)
        if found is None:
            # If two threads come at once, the first decides.
            made = DecodedPages(self.memory, state.mode, self._code_blocks)
            found = self._pages.setdefault(state.mode, made)
        state.pages, state.page_table = found, found.address
        state.page_count = 0 if state.MSR & MSR.IR else found.count
        return found

    def _run_native(self, state: NativeThread) -> int:
        """Run the thread; then let go of old records that no thread is among."""
        at, inside = state.at, self._inside
        inside.add(at)
        try:
            why: int = self._enter_native(state.reference, self._memory_at)
            return why
        finally:
            inside.discard(at)
            if self._retired:
                self._leave_retired(at)

    def _retire(self, old: list[Retired]) -> None:
        """Keep records that were replaced as long as a thread that is in native code now may read them."""
        with self._retiring:
            self._retired += [(records, set(self._inside)) for records in old]

    def _leave_retired(self, at: int) -> None:
        with self._retiring:
            for _, there in self._retired:
                there.discard(at)
            self._retired = [one for one in self._retired if one[1]]
