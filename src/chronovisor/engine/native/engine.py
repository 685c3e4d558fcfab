"""The native engine: runs a guest's threads as machine code made from the meanings.

It is the concrete engine with another way to execute: what native code leaves (a fault, an instruction
that has no native handler) the concrete evaluator does, one instruction at a time, on the same state.
"""

from __future__ import annotations

import ctypes

from chronovisor.engine.concrete import ConcreteEngine, Reason, Stop
from chronovisor.engine.native.layout import PAGE_SHIFT, Left
from chronovisor.engine.native.library import runtime
from chronovisor.engine.native.pages import DecodedPages
from chronovisor.engine.native.state import NativeThread
from chronovisor.engine.state import LiveRegisters, Thread
from chronovisor.isa.bits import MSR
from chronovisor.memory.guest_memory import GuestMemory

_STOPS = {
    Left.BUDGET: Stop(Reason.BUDGET),
    Left.RESYNC: Stop(Reason.RESYNC),
    Left.HYPERCALL: Stop(Reason.HYPERCALL),
}


class NativeEngine(ConcreteEngine):
    """Runs the threads of one guest natively; each may run in a Python thread of its own, side by side."""

    budget = 1 << 20

    def __init__(self, memory: GuestMemory) -> None:
        super().__init__(memory)
        self._pages: dict[tuple[bool, bool], DecodedPages] = {}
        self._enter_native = runtime().enter
        self._memory_address = ctypes.addressof(ctypes.c_char.from_buffer(memory.data))

    def thread(self, live: LiveRegisters) -> NativeThread:
        """A new thread in its reset state."""
        return NativeThread(self.memory, live, self)

    def forget(self, address: int) -> None:
        """Decode the block that holds the real address anew."""
        super().forget(address)
        for pages in self._pages.values():
            pages.decode(address)

    def forget_all(self) -> None:
        """Decode everything anew: memory was changed from outside, while no thread ran."""
        super().forget_all()
        self._pages.clear()

    def run(self, state: Thread, budget: int) -> Stop:
        """Execute up to ``budget`` instructions; stops early for what only the caller can do."""
        assert isinstance(state, NativeThread)
        end = state.executed + budget
        while True:
            left = end - state.executed
            if left <= 0:
                return _STOPS[Left.BUDGET]
            if state.MSR & (MSR.SE | MSR.BE | MSR.IR):
                return super().run(state, left)
            pages = self._pages_of(state.mode)
            state.page_table = pages.address
            state.run_left = left
            state.live.lend(state)
            why = self._enter_native(ctypes.addressof(state), self._memory_address)
            state.executed = end - state.run_left
            state.live.take_back(state)
            if why == Left.RESYNC:
                # Native code has set MSR alone.
                state.set_msr(state.MSR)
            if why in _STOPS:
                return _STOPS[Left(why)]
            if why == Left.DECODE:
                pages.decode(state.CIA & state.ea_mask)
                continue
            if why == Left.FETCH:
                page = (state.CIA & state.ea_mask) >> PAGE_SHIFT
                if page < state.page_count:
                    pages.add(page)
                    continue
            stop = super().run(state, 1)
            if stop.reason is not Reason.BUDGET:
                return stop

    def _pages_of(self, mode: tuple[bool, bool]) -> DecodedPages:
        found = self._pages.get(mode)
        if found is None:
            found = self._pages[mode] = DecodedPages(self.memory, mode)
        return found
