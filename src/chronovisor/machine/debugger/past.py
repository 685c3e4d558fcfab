"""A guest's past, as a debugger asks for it: to be shown, backwards and forwards."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from chronovisor.machine.guest import Guest
from chronovisor.memory import Watchpoint


class Why(Enum):
    """Why a debugger is where it is."""

    STEPPED = auto()
    HIT = auto()
    BEGINNING = auto()
    """Of what was recorded."""
    PRESENT = auto()
    """There is no more that was recorded."""
    INTERRUPTED = auto()


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where a debugger has come to."""

    why: Why
    vcpu: int
    watchpoint: Watchpoint | None = None
    """Forwards, the next instruction accesses it; backwards, the last one did."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a debugger wants to stop: guest real addresses."""

    breakpoints: Collection[int]
    watchpoints: Collection[Watchpoint]

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.breakpoints or self.watchpoints)


class Past(Protocol):
    """The recorded past of one guest, which is stopped meanwhile.

    `interrupted` is looked at twice a second: if it says so, the debugger stays where it was. MachineError if
    the past could not be repeated.
    """

    @property
    def guest(self) -> Guest | None:
        """The guest as it was, stopped; None in the present. What is changed in it is lost."""

    def step_back(self, vcpu: int, interrupted: Callable[[], bool]) -> Arrival:
        """Go to where a vCPU was one instruction before."""

    def run_back(self, vcpu: int, places: Places, interrupted: Callable[[], bool]) -> Arrival:
        """Go back to the last place."""

    def step_on(self, vcpu: int, interrupted: Callable[[], bool]) -> Arrival:
        """In the past, go to where a vCPU was one instruction later."""

    def run_on(self, vcpu: int, places: Places, interrupted: Callable[[], bool]) -> Arrival:
        """In the past, go on to the next place."""

    def leave(self) -> None:
        """Go to the present."""
