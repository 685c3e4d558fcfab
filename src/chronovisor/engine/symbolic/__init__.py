"""The symbolic evaluator: meanings over z3's bit-vectors, so that machine code can be proven."""

from chronovisor.engine.symbolic.evaluator import Outcome, Raised, apply, execute
from chronovisor.engine.symbolic.runner import Ending, Reason, SymbolicRunner
from chronovisor.engine.symbolic.state import Addresses, Reservation, SymbolicLive, SymbolicState

__all__ = [
    "Addresses",
    "Ending",
    "Outcome",
    "Raised",
    "Reason",
    "Reservation",
    "SymbolicLive",
    "SymbolicRunner",
    "SymbolicState",
    "apply",
    "execute",
]
