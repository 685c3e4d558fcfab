"""How an instruction can end other than by going on to the next one: exceptions of the concrete evaluator."""

from __future__ import annotations


class GuestInterrupt(Exception):
    """An interrupt that ends the executing instruction; ``cause`` are SRR1's bits for it."""

    def __init__(self, name: str, cause: int = 0) -> None:
        super().__init__(name)
        self.name = name
        self.cause = cause


class Resync(Exception):
    """The instruction is done, and what depends on the machine state must be looked at again."""


class Undone(Exception):
    """The instruction is not done, and it changed nothing. The caller looks at what asked for attention, then
    executes the instruction again.
    """


class Declined(Exception):
    """A hypercall's program leaves the call to the hypervisor, and has changed nothing."""


class TableChanged(Exception):
    """A page table entry changed while it was used: the walk must start anew."""
