"""Machine code that switches a core's timebase, run and proven.

`ADD_OFFSET` and `TAKE_OFFSET_AWAY` do in assembly what `shift` of `chronovisor.timebase.offset` does in
Python; hypervisors contain code like this. The proof runs the instructions' meanings on symbolic registers
(`chronovisor.engine.symbolic`), on the same timebase as the proof of `shift`. The concrete evaluator runs
counterexamples and witnesses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import z3

from chronovisor.engine.concrete import ConcreteEngine
from chronovisor.engine.symbolic import Reason, SymbolicRunner, SymbolicState
from chronovisor.isa.assembly import assemble
from chronovisor.isa.bits import MSR
from chronovisor.memory.guest_memory import GuestMemory
from chronovisor.proof.paths import Case, Path
from chronovisor.proof.prover import Claim, Tight
from chronovisor.proof.switch import any_offset, in_time
from chronovisor.proof.symbolic_bool import BeyondProverError, SymbolicBool
from chronovisor.proof.symbolic_int import SymbolicInt
from chronovisor.proof.terms import BitVectors
from chronovisor.proof.unknown_time import UnknownCore
from chronovisor.timebase.tbu40 import CoreTimebase
from chronovisor.timebase.types import GRANULE, MASK64, signed64

ADD_OFFSET = """
        ld      r20, 0(r3)          # r3: where the virtual core's offset is
        cmpldi  r20, 0
        beq     added               # none: the timebase stays as it is
        mfspr   r21, TB
        add     r22, r20, r21
        mtspr   TBU40, r22          # the low 24 bits go on ticking
        mfspr   r23, TB
        clrlwi  r24, r22, 8         # low 24 bits as they were when the sum was right
        clrlwi  r25, r23, 8         # and now
        cmplw   r25, r24
        bge     added
        addis   r22, r22, 0x100     # they wrapped: carry 2^24 into the upper 40
        mtspr   TBU40, r22
added:
"""
"""Add the offset at the address in r3 to the timebase; uses r20 to r25 and CR0."""

TAKE_OFFSET_AWAY = """
        ld      r20, 0(r3)
        cmpldi  r20, 0
        beq     taken
        mfspr   r21, TB
        subf    r22, r20, r21
        mtspr   TBU40, r22
        mfspr   r23, TB
        clrlwi  r24, r22, 8
        clrlwi  r25, r23, 8
        cmplw   r25, r24
        bge     taken
        addis   r22, r22, 0x100
        mtspr   TBU40, r22
taken:
"""
"""Take the offset at the address in r3 away from the timebase; uses r20 to r25 and CR0."""

ENDS = "the code reaches its end and executes no instruction twice"

_CODE = 0x100
_OFFSET = 0x800
_MEMORY = 0x1000
_HYPERVISOR = int(MSR.SF | MSR.HV | MSR.ME)


class EndlessCodeError(Exception):
    """Machine code did not reach its end."""


@dataclass(slots=True)
class TimebaseLive:
    """The timebase of a core, as machine code reads and writes it. There is no other live register."""

    timebase: CoreTimebase

    def read(self, name: str) -> int:
        """Return TB."""
        _only(name, "TB")
        return self.timebase.read()

    def write(self, name: str, value: int) -> None:
        """Write TBU40."""
        _only(name, "TBU40")
        self.timebase.write_tbu40(value)

    def random(self) -> int:
        """Refuse: the switch draws no random bits."""
        raise NotImplementedError("the machine code of a switch draws no random bits")

    def lend(self, time: object) -> None:
        """Refuse: only native code reads time by itself."""
        raise NotImplementedError("machine code is proven without native code")

    take_back = lend


def run_on_ints(
    text: str, timebase: CoreTimebase, offset: int, before_each: Callable[[], None] = lambda: None
) -> None:
    """Run assembly `text` in the concrete evaluator, on a core with this timebase, with `offset` in memory
    at the address in r3; `before_each` is called before each instruction.

    Raises `EndlessCodeError` if the code has not reached its end after as many instructions as it has.
    """
    code = assemble(text, _CODE)
    memory = GuestMemory(_MEMORY)
    memory.write(_CODE, code)
    memory.store(_OFFSET, 8, offset, little=False)
    engine = ConcreteEngine(memory)
    thread = engine.thread(TimebaseLive(timebase))
    thread.set_msr(_HYPERVISOR)
    thread.CIA = _CODE
    thread.gpr[3] = _OFFSET
    end = _CODE + len(code)
    for _ in range(len(code) // 4):
        if end == thread.CIA:
            return
        before_each()
        engine.run(thread, 1)
    if end != thread.CIA:
        raise EndlessCodeError(f"the code is at {thread.CIA:#x} and not at its end, {end:#x}")


class _SymbolicTimebase:
    """A core's timebase below symbolic machine code: the core's own, with `adjust` kept in the state, since
    paths part and meet.
    """

    def __init__(self, path: Path, core: UnknownCore) -> None:
        self._path = path
        self._core = core

    def passes(self, state: SymbolicState) -> None:
        """Let time pass: only what it is at an access can be told, so that is where it does."""

    def read(self, name: str, state: SymbolicState) -> z3.BitVecRef:
        """Return TB."""
        _only(name, "TB")
        self._core.timebase.adjust = lifted(self._path, state.live["adjust"])
        return lowered(self._core.timebase.read())

    def write(self, name: str, value: z3.BitVecRef, when: z3.BoolRef, state: SymbolicState) -> None:
        """Write TBU40 where `when` holds."""
        _only(name, "TBU40")
        timebase, before = self._core.timebase, state.live["adjust"]
        timebase.adjust = lifted(self._path, before)
        timebase.write_tbu40(lifted(self._path, value))
        state.live["adjust"] = z3.simplify(z3.If(when, lowered(timebase.adjust), before))


def lowered(value: int) -> z3.BitVecRef:
    """Return an integer, plain or symbolic, as a word of 64 bits."""
    term = BitVectors().fitted(value.term if isinstance(value, SymbolicInt) else value, -(1 << 64), 1 << 64)
    return z3.simplify(z3.Extract(63, 0, term))


def lifted(path: Path, word: z3.BitVecRef) -> int:
    """Return a word of 64 bits as an integer from 0 to 2^64-1."""
    return SymbolicInt.made(path, z3.ZeroExt(1, word), 0, MASK64)


def _run_on_symbols(path: Path, text: str, core: UnknownCore, offset: int) -> None:
    code = assemble(text, _CODE)
    words = {_CODE + n: int.from_bytes(code[n : n + 4], "big") for n in range(0, len(code), 4)}
    end = _CODE + len(code)
    state = SymbolicState.unknown(
        known={"CIA": _CODE, "MSR": _HYPERVISOR, "r3": _OFFSET}, memory_size=_MEMORY
    )
    state.memory = state.put_bytes(z3.BitVecVal(_OFFSET, 64), lowered(offset), little=False)
    state.live["adjust"] = lowered(core.timebase.adjust)
    runner = SymbolicRunner(words, _SymbolicTimebase(path, core), bound=1)
    adjust = state.live["adjust"]
    for ending in runner.run(state, {end}):
        here = ending.state.path
        path.require(
            ENDS,
            ending.reason is Reason.REACHED or not_(path, here),
        )
        adjust = z3.If(here, ending.state.live["adjust"], adjust)
    core.timebase.adjust = signed64(lifted(path, z3.simplify(adjust)))


def not_(path: Path, condition: z3.BoolRef) -> bool:
    """Return whether `condition` does not hold."""
    return SymbolicBool.made(path, z3.Not(condition))


def run(case: Case, text: str, core: UnknownCore, offset: int) -> None:
    """Run assembly `text` on a core: a path with the symbolic evaluator, a case with the concrete one."""
    if isinstance(case, Path):
        _run_on_symbols(case, text, core, offset)
    else:
        try:
            run_on_ints(text, core.timebase, offset)
        except EndlessCodeError:
            case.require(ENDS, False)


def entry_code(case: Case, text: str = ADD_OFFSET, limit: int = GRANULE) -> None:
    """After the code of an entry T = H + o."""
    core, offset = UnknownCore(case), any_offset(case)
    run(case, text, core, offset.value)
    in_time(case, core, limit)
    timebase, host = core.later()
    case.require("T = H + o", timebase == (host + offset).value)


def exit_code(case: Case, text: str = TAKE_OFFSET_AWAY, limit: int = GRANULE) -> None:
    """After the code of an exit T = H."""
    core, offset = UnknownCore(case), any_offset(case)
    core.timebase.adjust = offset.signed
    run(case, text, core, offset.value)
    in_time(case, core, limit)
    timebase, host = core.later()
    case.require("T = H", timebase == host.value)


def _only(name: str, expected: str) -> None:
    if name != expected:
        raise BeyondProverError(f"the code accesses {name}: here it may only read TB and write TBU40")


CLAIMS = (
    Claim(
        "machine-code-entry",
        "P2",
        "thirteen instructions of Power machine code add an offset to the timebase, as the switch does",
        entry_code,
        (Tight("the code takes one tick longer", partial(entry_code, limit=GRANULE + 1)),),
    ),
    Claim(
        "machine-code-exit",
        "P2",
        "thirteen instructions of Power machine code subtract the offset again",
        exit_code,
        (Tight("the code takes one tick longer", partial(exit_code, limit=GRANULE + 1)),),
    ),
)
