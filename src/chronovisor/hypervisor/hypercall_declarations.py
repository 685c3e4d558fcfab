"""How the programs of hypercalls are declared: `answers` above a meaning in the notation of instructions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chronovisor.engine.hypercalls import NUMBER_REGISTER, HypercallProgram
from chronovisor.isa.hypercall_notation import HypercallMachine
from chronovisor.isa.values import Value
from chronovisor.isa.verifier import verify
from chronovisor.papr.hcalls import Hcall, Status, unsigned

DECLARED: Final[list[HypercallProgram]] = []
"""All that were declared."""


def answers(number: Hcall) -> Callable[[Callable[[HypercallMachine], None]], None]:
    """Declare a hypercall's program; the function below is its meaning."""

    def declare(meaning: Callable[[HypercallMachine], None]) -> None:
        m = HypercallMachine()
        meaning(m)
        program = verify(m.trace.program(f"h_{number.name.lower()}", ()))
        DECLARED.append(HypercallProgram(number, len(DECLARED), program))

    return declare


def end(m: HypercallMachine, status: Value | Status = Status.SUCCESS) -> None:
    """Answer with a status."""
    m.gpr[NUMBER_REGISTER] = status if isinstance(status, Value) else unsigned(status)


def decline_if(m: HypercallMachine, condition: Value) -> None:
    """Leave the call to the hypervisor's own code if a condition holds."""
    with m.when(condition):
        m.decline()
