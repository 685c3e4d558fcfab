"""Instructions that this machine has too: what their programs compute is one or two of its own instructions.

The programs say what the instructions do, for every other evaluator and on machines without these; tests
compare the two. The first byte of a Power register is the most significant one, that of an x86 register the
least.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

from llvmlite import ir

from chronovisor.engine.native.emitter import I8, I32, I64, Emitter
from chronovisor.engine.native.target_processor import target_has

Host = Callable[..., ir.Value]
"""What computes the target register of an instruction: (emitter, source registers…) -> LLVM value."""

_BYTES: Final = ir.VectorType(I8, 16)
_PAIR: Final = ir.VectorType(I64, 2)


def _shuffled(e: Emitter, value: ir.Value, order: list[int]) -> ir.Value:
    """The bytes of a vector in another order."""
    mask = ir.Constant(ir.VectorType(I32, 16), order)
    return e.b.shuffle_vector(value, ir.Constant(_BYTES, ir.Undefined), mask)


def _turned(e: Emitter, value: ir.Value, kind: ir.Type) -> ir.Value:
    """A value with its bytes in the opposite order."""
    turned = _shuffled(e, e.b.bitcast(value, _BYTES), list(range(15, -1, -1)))
    return e.b.bitcast(turned, kind)


def _call(e: Emitter, name: str, *operands: ir.Value) -> ir.Value:
    """One of this machine's instructions on pairs of 64 bits."""
    kind = ir.FunctionType(_PAIR, [one.type for one in operands])
    return e.b.call(e.function.module.declare_intrinsic(f"llvm.x86.{name}", (), kind), operands)


def _round(*names: str) -> Host:
    """A round of AES: one instruction with the key, then others without."""

    def host(e: Emitter, state: ir.Value, key: ir.Value) -> ir.Value:
        found = _call(e, names[0], _turned(e, state, _PAIR), _turned(e, key, _PAIR))
        for name in names[1:]:
            found = _call(e, name, found)
        return _turned(e, found, state.type)

    return host


def _substitute(e: Emitter, state: ir.Value) -> ir.Value:
    """SubBytes alone: the last round, with its ShiftRows undone before and a key of zeros."""
    sources = [row + 4 * ((column - row) % 4) for column in range(4) for row in range(4)]
    before = _shuffled(e, _turned(e, state, _BYTES), sources)
    found = _call(e, "aesni.aesenclast", e.b.bitcast(before, _PAIR), ir.Constant(_PAIR, [0, 0]))
    return _turned(e, found, state.type)


def _polynomials(e: Emitter, one: ir.Value, other: ir.Value) -> ir.Value:
    """The sum of the products of the upper and of the lower halves."""
    halves = [e.b.bitcast(value, _PAIR) for value in (one, other)]
    low, high = (_call(e, "pclmulqdq", *halves, ir.Constant(I8, number)) for number in (0x00, 0x11))
    return e.b.bitcast(e.b.xor(low, high), one.type)


_AES: Final[Mapping[str, Host]] = {
    "vcipher": _round("aesni.aesenc"),
    "vcipherlast": _round("aesni.aesenclast"),
    "vncipher": _round("aesni.aesdeclast", "aesni.aesimc"),
    "vncipherlast": _round("aesni.aesdeclast"),
    "vsbox": _substitute,
}
_POLYNOMIALS: Final[Mapping[str, Host]] = {"vpmsumd": _polynomials}


@cache
def hosts() -> Mapping[str, Host]:
    """What this machine has, by the instructions' names."""
    return {
        **(_AES if target_has("aes") else {}),
        **(_POLYNOMIALS if target_has("pclmul") else {}),
    }
