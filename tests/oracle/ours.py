"""Ask the concrete evaluator the same question that QEMU is asked."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from chronovisor.engine.concrete import ConcreteEngine, Reason
from chronovisor.engine.live_registers import ThreadTime
from chronovisor.isa.interrupts import INTERRUPTS
from chronovisor.isa.registers import REGISTERS
from chronovisor.memory.guest_memory import GuestMemory

from .case import (
    BLOCK,
    BLOCK_SIZE,
    MSR_DR,
    MSR_IR,
    MSR_PR,
    SPR_NAMES,
    STRIDE,
    TRAP,
    Case,
    Outcome,
    Vectors,
)

MEMORY = 256 << 20
"""As much as QEMU's machine has. Pages that no case touches cost nothing."""

_LAST_VECTOR = 0x1000
_LONGEST = 64
_SC_1 = 0x44000022
"""A hypercall. It stands at every vector, because native code enters interrupts by itself and goes on."""


class _NoTime:
    """Time stands still: no case asks for it."""

    def read(self, name: str) -> int:
        raise AssertionError(f"a case reads {name}, which moves by itself: the generator must not draw it")

    def write(self, name: str, value: int) -> None:
        raise AssertionError(f"a case writes {name}, which moves by itself: the generator must not draw it")

    def random(self) -> int:
        raise AssertionError("a case draws random bits: the generator must not draw it")

    def lend(self, time: ThreadTime) -> None:
        time.ticks_per_instruction = 1

    def take_back(self, time: ThreadTime) -> None:
        assert not time.dec_written, (
            "a case writes DEC, which moves by itself: the generator must not draw it"
        )


class Evaluator:
    """Evaluates cases one after the other in one guest memory."""

    def __init__(
        self, engine: type[ConcreteEngine] = ConcreteEngine, setting: Mapping[str, int] | None = None
    ) -> None:
        """`setting` are values of registers that hold in every case."""
        self._setting = setting or {}
        self.memory = self._memory = GuestMemory(MEMORY)
        for interrupt in INTERRUPTS.values():
            self._memory.write(interrupt.vector, _SC_1.to_bytes(4, "big"))
        self._engine = engine(self._memory)
        self._thread = self._engine.thread(_NoTime())
        self._placed: dict[int, tuple[tuple[int, ...], bool]] = {}

    def evaluate(self, case: Case) -> Outcome:
        """The outcome by the project's own meanings."""
        self._place(case)
        self._memory.write(BLOCK, case.memory)
        state = self._thread
        for name, register in REGISTERS.items():
            if not register.live:
                state.set(name, register.reset)
        for name, value in self._setting.items():
            state.set(name, value)
        state.reservation = None
        state.vsr[:64] = [0] * 64
        state.gpr[:32] = case.gpr
        for name, value in zip(SPR_NAMES, case.sprs, strict=True):
            state.set(name, value)
        state.CR, state.XER, state.LR, state.CTR = case.cr, case.xer, case.lr, case.ctr
        state.SRR0, state.SRR1 = case.address, case.msr
        if case.vectors is not None:
            state.vsr[:64] = case.vectors.vsr
            state.VSCR, state.FPSCR = case.vectors.vscr, case.vectors.fpscr
        # Problem state has translation on, which QEMU's machine maps one to one. Here it stays off.
        translated = MSR_IR | MSR_DR if case.msr & MSR_PR else 0
        state.set_msr(case.msr & ~translated)
        state.CIA = case.address
        for _ in range(_LONGEST):
            stop = self._engine.run(state, _LONGEST)
            if stop.reason is Reason.HYPERCALL:
                state.CIA -= 4
            if state.CIA < _LAST_VECTOR:
                break
            if stop.reason not in (Reason.RESYNC, Reason.BUDGET):
                raise AssertionError(f"a case stopped the engine: {stop.reason.value}")
        else:
            raise AssertionError(f"the case at {case.address:#x} does not end")
        return Outcome(
            vector=state.CIA,
            msr=state.MSR,
            srr0=state.SRR0,
            srr1=state.SRR1 | translated,
            gpr=tuple(state.gpr[:32]),
            cr=state.CR,
            xer=state.XER,
            lr=state.LR,
            ctr=state.CTR,
            sprs=tuple(state.get(name) for name in SPR_NAMES),
            memory=self._memory.read(BLOCK, BLOCK_SIZE),
            vectors=None if case.vectors is None else Vectors(tuple(state.vsr), state.VSCR, state.FPSCR),
        )

    def _place(self, case: Case) -> None:
        program = (case.words, case.little)
        if self._placed.get(case.address) == program:
            return
        code = struct.pack(f"{'<' if case.little else '>'}{len(case.words) + 1}I", *case.words, TRAP)
        self._memory.write(case.address, code.ljust(STRIDE, b"\0"))
        self._engine.forget(case.address)
        self._placed[case.address] = program
