"""Which engine runs a guest."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from chronovisor.engine.concrete import ConcreteEngine
from chronovisor.memory.guest_memory import GuestMemory

ENGINES = ("auto", "native", "concrete")


def engine_named(name: str) -> Callable[[GuestMemory], ConcreteEngine]:
    """What makes the engine of a guest's memory: "native", "concrete", or "auto" for native where it can be.

    Raises ValueError for another name, and for "native" where llvmlite is not installed.
    """
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r}; choose one of {', '.join(ENGINES)}")
    if name == "concrete":
        return ConcreteEngine
    if find_spec("llvmlite") is None:
        if name == "native":
            raise ValueError("the native engine needs llvmlite, which is not installed: use the concrete one")
        return ConcreteEngine
    # Imported here: compilers are not loaded for guests that are interpreted.
    from chronovisor.engine.native.engine import NativeEngine

    return NativeEngine
