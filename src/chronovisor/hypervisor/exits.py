"""Why a vCPU's run came back to user space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from chronovisor.engine.concrete import Crash
from chronovisor.engine.state import Thread
from chronovisor.memory.watched import Watchpoint


@runtime_checkable
class Hypercall(Protocol):
    """The guest made a hypercall that user space has to answer."""

    @property
    def nr(self) -> int:
        """Which it is: r3, unsigned 64-bit."""

    @property
    def args(self) -> tuple[int, ...]:
        """Its arguments: r4 to r12, unsigned 64-bit."""


class PlainHypercall(NamedTuple):
    """A hypercall and no more, for those who have no class of their own for it."""

    nr: int
    args: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kicked:
    """The vCPU was kicked."""


@dataclass(frozen=True, slots=True)
class FailedEntry:
    """The guest could not be entered, and `message` says why."""

    message: str


@dataclass(frozen=True, slots=True)
class Crashed:
    """The guest can run nothing any more: the interrupt at `vector` raises itself for ever.

    `message` says for people which interrupt the trouble began with, and at which address.
    """

    vector: int
    srr0: int
    srr1: int
    message: str

    @classmethod
    def of(cls, vcpu: int, state: Thread, crash: Crash) -> Crashed:
        """How the vCPU with this number and this state crashed."""
        name = crash.interrupt.lower().replace("_", " ")
        article = "an" if name[0] in "aeiou" else "a"
        return cls(
            vector=crash.vector,
            srr0=state.get("SRR0"),
            srr1=state.get("SRR1"),
            message=(
                f"vCPU {vcpu}: {article} {name} interrupt came at {crash.address:#x} "
                f"(DAR {crash.dar:#x}), and its handler at {crash.vector:#x} raises an interrupt at its "
                "first instruction, for ever"
            ),
        )


@dataclass(frozen=True, slots=True)
class Debugged:
    """A debugger's wish was met: the instruction at `address` is next. `stepped`: after a single step. With a
    `watchpoint` the instruction accesses that place; otherwise there is a breakpoint.
    """

    address: int
    stepped: bool
    watchpoint: Watchpoint | None = None


Exit: TypeAlias = Hypercall | Kicked | FailedEntry | Crashed | Debugged
