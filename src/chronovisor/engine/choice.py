"""Which engine runs a guest."""

from __future__ import annotations

import logging
import platform
import sys
from functools import cache
from importlib.util import find_spec

from chronovisor.engine.concrete import ConcreteEngine

_log = logging.getLogger(__name__)

ENGINES = ("auto", "regions", "threaded", "concrete")

#: What `platform.machine` calls the processors that native code is tested on.
_NATIVE_PROCESSORS = ("x86_64", "AMD64")


def engine_named(name: str) -> type[ConcreteEngine]:
    """What makes a guest's engine: "regions", "threaded", "concrete", or "auto" for regions if they run here.

    "threaded" is native code with a function for each instruction; "regions" also compiles hot loops whole.
    If "auto" has to take the concrete engine, a warning says why, once. Raises ValueError for another name,
    and for "regions" and "threaded" on a machine that cannot run native code.
    """
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r}; choose one of {', '.join(ENGINES)}")
    if name == "concrete":
        return ConcreteEngine
    why = _no_native_code()
    if why is not None:
        if name != "auto":
            raise ValueError(f"{why}: use the concrete engine")
        _warn_once(why)
        return ConcreteEngine
    # Imported here: a guest that is interpreted needs no compiler.
    from chronovisor.engine.native.engine import NativeEngine

    if name == "threaded":
        return NativeEngine
    from chronovisor.engine.regions.engine import RegionEngine

    return RegionEngine


def _no_native_code() -> str | None:
    """Why the native engine does not run on this machine; None if it does."""
    if sys.byteorder != "little" or platform.machine() not in _NATIVE_PROCESSORS:
        return f"the native engine runs on x86-64 alone, and this is {platform.machine()}"
    if find_spec("llvmlite") is None:
        return "the native engine needs llvmlite, which is not installed"
    return None


@cache
def _warn_once(why: str) -> None:
    _log.warning("%s: the guest runs slowly, on the concrete engine", why)
