"""What executed a guest's instructions, as far as user space may ask. The kernel's KVM has no such call."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Instructions:
    """How many instructions a guest has executed here, by what executed them."""

    concrete: int
    """The concrete evaluator: one by one, in Python."""
    threaded: int
    """Handlers: native code of one instruction or of a pair."""
    regions: int
    """Hot loops compiled whole."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.concrete + self.threaded + self.regions


@dataclass(frozen=True, slots=True)
class NativeCode:
    """Native code of one kind that this process uses, for all its guests."""

    compiled: int
    """How many sets of handlers, or regions, were compiled for this process."""
    compile_seconds: float
    """How long that took, by the real clock; guests ran meanwhile."""
    kept: int
    """How many were found in the code cache."""
    size: int
    """The bytes of all their object files."""
    link_seconds: float
    """How long it took to link them into this process."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """A guest's instructions, and the native code of the process that executes them."""

    instructions: Instructions
    handlers: NativeCode
    regions: NativeCode
