"""Machine code over symbolic states: instruction by instruction, with a fork at each unknown branch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum

import z3

from chronovisor.engine.symbolic.evaluator import Outcome, Raised, apply, execute
from chronovisor.engine.symbolic.state import SymbolicLive, SymbolicState
from chronovisor.engine.symbolic.terms import known
from chronovisor.isa.decode import decode
from chronovisor.isa.interrupts import HYPERCALL, INTERRUPTS, entry

#: How many targets of one computed jump are followed.
_MOST_TARGETS = 16


class Reason(Enum):
    """Why a path ended."""

    REACHED = "it reached an address at which to stop"
    INTERRUPT = "an interrupt was raised"
    HYPERCALL = "the hypervisor was called; CIA is behind the call"
    ELSEWHERE = "it left the code that was given, or for an address that is not known"
    BOUND = "it passed one address more often than allowed"


@dataclass(frozen=True, slots=True)
class Ending:
    """How one path ended, and in which state; ``raised`` is its interrupt.

    The state of an interrupt is that from before the entry: CIA is the instruction that raised it.
    """

    reason: Reason
    state: SymbolicState
    raised: Raised | None = None


class SymbolicRunner:
    """Runs code, given as words by address, from a state whose CIA and mode are known.

    Paths that meet at an address again are merged there. A path may pass an address ``bound`` times;
    what would pass it more often ends, and says so: a proof must show such endings impossible.
    """

    def __init__(
        self, code: Mapping[int, int], live: SymbolicLive, bound: int = 64, patience: float | None = None
    ) -> None:
        """Be a runner whose solver gives up a question after ``patience`` seconds (None: never)."""
        self.code = code
        self.live = live
        self.bound = bound
        self._solver = z3.Solver()
        if patience is not None:
            self._solver.set("timeout", max(1, int(patience * 1000)))

    def run(self, state: SymbolicState, until: Collection[int] = ()) -> list[Ending]:
        """Every way in which the code ends, its paths exclusive and together all of the state's."""
        endings: list[Ending] = []
        waiting: dict[int, SymbolicState] = {}
        passed: dict[int, int] = {}

        def go_on(state: SymbolicState, address: int) -> None:
            state["CIA"] = address
            other = waiting.get(address)
            waiting[address] = state if other is None else other.merged(state)

        start = known(state["CIA"])
        if start is None:
            raise ValueError("CIA must be known when a run begins")
        go_on(state.copy(), start)
        while waiting:
            # The lowest address first: paths that part meet again behind what they jumped over.
            address = min(waiting)
            state = waiting.pop(address)
            if address in until:
                endings.append(Ending(Reason.REACHED, state))
                continue
            word = self.code.get(address)
            if word is None:
                endings.append(Ending(Reason.ELSEWHERE, state))
                continue
            passed[address] = passed.get(address, 0) + 1
            if passed[address] > self.bound:
                endings.append(Ending(Reason.BOUND, state))
                continue
            for ending in self._step(state, word):
                if ending.reason is Reason.REACHED:
                    next_address = known(ending.state["CIA"])
                    assert next_address is not None
                    go_on(ending.state, next_address)
                else:
                    endings.append(ending)
        return endings

    def _step(self, state: SymbolicState, word: int) -> list[Ending]:
        """One instruction; REACHED endings are those that go on, their CIA known."""
        self.live.passes(state)
        found = decode(word)
        if found is None:
            raise ValueError(f"{word:#010x} at {known(state['CIA']):#x} is no instruction")
        outcome: Outcome = execute(found, word, state, self.live)
        endings = []
        for raised in outcome.raised:
            there = self._taking(state, raised.condition)
            if there is None:
                continue
            if raised.name == HYPERCALL:
                there["CIA"] = there["NIA"]
                endings.append(Ending(Reason.HYPERCALL, there))
            else:
                endings.append(Ending(Reason.INTERRUPT, there, raised))
        after = self._taking(state, outcome.completed)
        if after is not None:
            endings += self._targets(after)
        return endings

    def _targets(self, state: SymbolicState) -> list[Ending]:
        """A state for each address at which the next instruction may be."""
        target = z3.simplify(state["NIA"])
        addresses = _leaves(target)
        if addresses is None and z3.is_app_of(target, z3.Z3_OP_ITE):
            # One way of a branch may be known, and another not.
            condition, yes, no = target.children()
            ways = []
            for holds, way in ((condition, yes), (z3.Not(condition), no)):
                there = self._taking(state, holds)
                if there is not None:
                    there["NIA"] = way
                    ways += self._targets(there)
            return ways
        addresses = addresses or self._possible(target, state)
        if addresses is None:
            state["CIA"] = target
            return [Ending(Reason.ELSEWHERE, state)]
        endings = []
        for address in sorted(addresses):
            there = self._taking(state, target == address) if len(addresses) > 1 else state
            if there is not None:
                there["CIA"] = address
                endings.append(Ending(Reason.REACHED, there))
        return endings

    def _taking(self, state: SymbolicState, condition: z3.BoolRef) -> SymbolicState | None:
        """The state with ``condition`` added to its path; None if no run can get there."""
        if z3.is_true(condition):
            return state
        taken = state.copy()
        taken.assume(condition)
        if z3.is_false(taken.path):
            return None
        self._solver.push()
        try:
            self._solver.add(taken.path)
            # A path that the solver cannot decide is followed, which is sound.
            return None if self._solver.check() == z3.unsat else taken
        finally:
            self._solver.pop()

    def _possible(self, target: z3.BitVecRef, state: SymbolicState) -> set[int] | None:
        """The numbers that a term can be on the state's path; None if they are too many to follow."""
        found: set[int] = set()
        self._solver.push()
        try:
            self._solver.add(state.path)
            while self._solver.check() == z3.sat:
                if len(found) == _MOST_TARGETS:
                    return None
                number = self._solver.model().eval(target, model_completion=True).as_long()
                found.add(number)
                self._solver.add(target != number)
            return found if self._solver.check() == z3.unsat else None
        finally:
            self._solver.pop()

    def enter(self, ending: Ending) -> SymbolicState:
        """The state at the vector of the interrupt that ended a path."""
        if ending.raised is None or ending.raised.name not in INTERRUPTS:
            raise ValueError("the path did not end in an interrupt of the guest")
        state = ending.state.copy()
        # The cause is a term: it is what the entry's operand stands for.
        program = entry(ending.raised.name)
        cause = known(ending.raised.cause)
        if cause is None:
            raise ValueError("the interrupt's cause is not known")
        apply(program, state, self.live, {"cause": cause}, (True, False))
        state["CIA"] = state["NIA"]
        return state


def _leaves(term: z3.BitVecRef) -> set[int] | None:
    """The numbers that a term of conditions over numbers may be; None if it is anything else."""
    if z3.is_bv_value(term):
        return {term.as_long()}
    if z3.is_app_of(term, z3.Z3_OP_ITE):
        yes, no = _leaves(term.arg(1)), _leaves(term.arg(2))
        return yes | no if yes is not None and no is not None else None
    return None
