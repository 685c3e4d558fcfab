"""The processor that native code is made for.

Processors since 2015 have what LLVM calls x86-64-v3, and instructions for AES and for products of
polynomials. Handlers, and the functions beside them, are made for these, so that the package can bring them
compiled. On a machine that lacks any of it they are made for the machine itself. The code of regions uses all
that the machine has.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from llvmlite import binding as llvm

_CPU: Final = "x86-64-v3"
_CPU_FEATURES: Final = frozenset(
    {
        *(
            "avx",
            "avx2",
            "bmi",
            "bmi2",
            "cmov",
            "crc32",
            "cx16",
            "cx8",
            "f16c",
            "fma",
            "fxsr",
            "lzcnt",
            "mmx",
        ),
        *("movbe", "popcnt", "sahf", "sse", "sse2", "sse3", "sse4.1", "sse4.2", "ssse3", "xsave"),
    }
)
"""What that name means."""
_BESIDE: Final = frozenset({"aes", "pclmul"})


@cache
def _host_features() -> frozenset[str]:
    return frozenset(name for name, is_there in llvm.get_host_cpu_features().items() if is_there)


@cache
def _is_usual() -> bool:
    return _host_features() >= _CPU_FEATURES | _BESIDE


def target_has(feature: str) -> bool:
    """Whether the processor that handlers are made for has a feature, by LLVM's name of it."""
    return feature in (_CPU_FEATURES | _BESIDE if _is_usual() else _host_features())


def target_processor() -> tuple[str, str]:
    """The processor that handlers are made for: LLVM's name, and its features beside what the name says."""
    if _is_usual():
        return _CPU, ",".join(f"+{name}" for name in sorted(_BESIDE))
    return host_processor()


def host_processor() -> tuple[str, str]:
    """This machine's processor, as `target_processor` has it."""
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
