"""The host's own floating-point instructions, with FPSCR's exceptions, against the exact model.

Operands are near boundaries more often than not. What native code leaves undone is the concrete evaluator's;
what it does must be right to the bit, in every rounding mode.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from llvmlite import ir
from oracle.floating_point import pattern
from oracle.operands import value

from chronovisor.engine.native import ieee, residuals
from chronovisor.engine.native.emitter import Emitter
from chronovisor.engine.native.ieee import HOSTED, modes
from chronovisor.engine.native.residuals import Nearest, has_host_arithmetic
from chronovisor.isa.ieee import IEEE, ROUNDING_WIDTH
from chronovisor.isa.ieee.formats import BINARY32, BINARY64
from chronovisor.isa.ieee.rounding import OVERFLOW_ENABLED, UNDERFLOW_ENABLED

from .hosted import compiled

pytestmark = pytest.mark.skipif(not has_host_arithmetic(), reason="the machine has no fused multiply-add")

IN_TEST = 2_000

FORMS = {form.width: form for form in (BINARY32, BINARY64)}


def _operands(random: Random, name: str) -> list[int]:
    """Operands of an operation, now and then related ones, and a rounding mode if it has one."""
    made: list[int] = []
    for width in IEEE[name].operands:
        if width == ROUNDING_WIDTH:
            enabled = random.choice((0, 0, UNDERFLOW_ENABLED, OVERFLOW_ENABLED))
            made.append(random.randrange(4) | enabled)
        elif name.startswith(("signed", "unsigned")):
            made.append(value(random) & ((1 << width) - 1))
        elif made and random.random() < 0.2:
            made.append(made[0] ^ random.choice((0, 1, 3 << (width // 2), 1 << (width - 1))))
        else:
            made.append(pattern(random, FORMS[width]))
    return made


def differences(name: str, count: int, seed: int, mode: int | None = None) -> tuple[int, list[str]]:
    """How many of so many cases native code did, and those in which it was wrong."""
    random, operation, function = Random(f"{seed} {name}"), IEEE[name], compiled(name, mode)
    done, wrong = 0, []
    for _ in range(count):
        operands = _operands(random, name)
        if mode is not None:
            operands[-1] = mode
        found = function(*operands)
        if found is None:
            continue
        done += 1
        both = operation(*operands)
        if found != (both & ((1 << operation.width) - 1), both >> operation.width):
            wrong.append(f"{name} of {[hex(one) for one in operands]} in mode {mode}: {found}, not {both:#x}")
    return done, wrong


@pytest.mark.parametrize("name", HOSTED)
def test_operation_is_exact(name: str) -> None:
    done, wrong = differences(name, IN_TEST, 1)
    assert not wrong, wrong[:5]
    assert done > IN_TEST // 8


@pytest.mark.parametrize("name", [name for name in HOSTED if name.startswith(("integral", "binary64 to"))])
def test_fixed_mode_is_exact(name: str) -> None:
    for mode in modes(name):
        done, wrong = differences(name, IN_TEST // 4, 3, mode)
        assert not wrong, wrong[:5]
        assert done > IN_TEST // 32


def test_numbers_that_programs_compute_with_are_not_left() -> None:
    random = Random(5)
    for name in ("add", "subtract", "multiply", "divide", "multiply_add"):
        function = compiled(f"{name} binary64")
        for _ in range(500):
            exponents = (random.randrange(723, 1323) << 52 for _ in IEEE[f"{name} binary64"].operands[:-1])
            operands = [random.getrandbits(52) | exponent for exponent in exponents]
            assert function(*operands, random.randrange(4)) is not None


def _loses_nothing(e: Emitter, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
    return e.b.fadd(a, b), residuals.real(0.0)


def _not_to_odd(e: Emitter, near: Nearest) -> ir.Value:
    return near.number


def _always(e: Emitter, number: ir.Value, low: int | None, high: int) -> ir.Value:
    return e.b.fcmp_ordered("ord", number, number)


def _one_bit(e: Emitter, form: object, bits: ir.Value) -> ir.Value:
    return e.b.trunc(bits, ieee.I1)


#: What is broken, how, and the operation that shows it.
MUTANTS: dict[str, tuple[object, str, Callable[..., object] | int, str]] = {
    "a sum that is never inexact": (residuals, "_two_sum", _loses_nothing, "add binary64"),
    "a result rounded twice": (ieee, "to_odd", _not_to_odd, "multiply_add binary64 as binary32"),
    "tiny products done": (residuals, "SMALLEST", -1074, "multiply binary64"),
    "overflows done": (residuals, "within", _always, "add binary64"),
    "single denormals done": (ieee, "within", _always, "multiply binary64 as binary32"),
    "signalling NaNs not seen": (ieee, "_signals", _one_bit, "compare binary64"),
}


@pytest.mark.parametrize("what", MUTANTS)
def test_mutant_is_caught(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, attribute, broken, name = MUTANTS[what]
    monkeypatch.setattr(module, attribute, broken)
    assert differences(name, IN_TEST, 1)[1], f"nothing notices {what}"
