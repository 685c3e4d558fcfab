"""A symbolic integer computes, for each value of its unknowns, what a Python int does."""

import operator
import time
from collections.abc import Callable
from typing import Any

import pytest
import z3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chronovisor.proof.paths import Exploration, Path
from chronovisor.proof.symbolic_bool import OneForManyError, term_of
from chronovisor.proof.symbolic_int import SymbolicInt
from chronovisor.proof.terms import BitVectors, Integers, Terms

OPERATIONS: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
WITH_A_NUMBER: dict[str, Callable[..., Any]] = {
    "//": lambda a, n: a // (abs(n) + 1),
    "%": lambda a, n: a % (abs(n) + 1),
    "divmod": lambda a, n: divmod(a, abs(n) + 1)[1],
    "<<": lambda a, n: a << (abs(n) % 70),
    ">>": lambda a, n: a >> (abs(n) % 140),
    "& ones": lambda a, n: a & ((1 << (abs(n) % 70)) - 1),
    "& ~ones": lambda a, n: a & ~((1 << (abs(n) % 70)) - 1),
    "// 2^n": lambda a, n: a // (1 << (abs(n) % 70)),
    "% 2^n": lambda a, n: a % (1 << (abs(n) % 70)),
    "n -": lambda a, n: n - a,
    "n &": lambda a, n: n & a,
    "n <": lambda a, n: n < a,
}
ALONE: dict[str, Callable[..., Any]] = {
    "-": operator.neg,
    "~": operator.invert,
    "abs": abs,
    "+": operator.pos,
}
NO_BITS = {"&", "|", "^", "n &"}
"""What the prover's integers cannot do."""

edges = st.builds(
    lambda power, near, sign: sign * ((1 << power) + near),
    st.integers(0, 66),
    st.integers(-2, 2),
    st.sampled_from([1, -1]),
)
numbers = st.one_of(edges, st.integers(-20, 20), st.integers(-(2**66), 2**66))


@st.composite
def within(draw: st.DrawFn) -> tuple[int, int, int]:
    """A value in an interval."""
    low, value, high = sorted(draw(st.tuples(numbers, numbers, numbers)))
    return (0, value % (1 << 64), (1 << 64) - 1) if draw(st.booleans()) else (low, value, high)


def unknown(path: Path, name: str, bounds: tuple[int, int, int]) -> int:
    low, _, high = bounds
    return path.any(name, low, high)


def computed(terms: Terms, values: dict[str, int], result: Any) -> Any:
    """What a result is when the unknowns have these values."""
    if isinstance(result, bool | int) and not isinstance(result, SymbolicInt):
        return result
    solver = z3.Solver()
    for name, value in values.items():
        constant, _, bounds = terms.unknown(name, *BOUNDS[name])
        solver.add(constant == value, *bounds)
    assert solver.check() == z3.sat
    model = solver.model()
    if isinstance(result, SymbolicInt):
        number = terms.number(model.eval(result.term, model_completion=True))
        assert result.low <= number <= result.high
        return number
    return z3.is_true(model.eval(term_of(result), model_completion=True))


BOUNDS: dict[str, tuple[int, int]] = {}


def check(
    terms: Terms, operation: Callable[..., Any], *bounds: tuple[int, int, int], number: Any = None
) -> None:
    path = Path((), Exploration(10, time.monotonic() + 10, terms))
    BOUNDS.clear()
    unknowns = []
    for n, one in enumerate(bounds):
        BOUNDS[f"x{n}"] = one[0], one[2]
        unknowns.append(unknown(path, f"x{n}", one))
    plain = [] if number is None else [number]
    values = {f"x{n}": one[1] for n, one in enumerate(bounds)}
    expected = operation(*(one[1] for one in bounds), *plain)
    assert computed(terms, values, operation(*unknowns, *plain)) == expected


arithmetics = st.sampled_from([BitVectors(), Integers()])


@settings(max_examples=300, deadline=None)
@given(arithmetics, st.sampled_from(sorted(OPERATIONS)), within(), within())
@example(BitVectors(), "+", (0, 2**64 - 1, 2**64 - 1), (0, 2**64 - 1, 2**64 - 1))
@example(BitVectors(), "*", (-(2**66), -(2**66), 0), (-(2**66), -(2**66), 0))
def test_two_unknowns(terms: Terms, name: str, a: tuple[int, int, int], b: tuple[int, int, int]) -> None:
    if isinstance(terms, Integers) and name in NO_BITS:
        return
    check(terms, OPERATIONS[name], a, b)


@settings(max_examples=300, deadline=None)
@given(arithmetics, st.sampled_from(sorted(WITH_A_NUMBER)), within(), numbers)
@example(BitVectors(), "//", (-10, -5, 3), 2)
@example(BitVectors(), "%", (-10, -5, 3), 2)
def test_an_unknown_and_a_number(terms: Terms, name: str, a: tuple[int, int, int], number: int) -> None:
    if isinstance(terms, Integers) and name in NO_BITS:
        return
    check(terms, WITH_A_NUMBER[name], a, number=number)


@settings(max_examples=100, deadline=None)
@given(arithmetics, st.sampled_from(sorted(ALONE)), within())
def test_an_unknown_alone(terms: Terms, name: str, a: tuple[int, int, int]) -> None:
    check(terms, ALONE[name], a)


@pytest.mark.parametrize(
    "use",
    [
        int,
        float,
        hash,
        round,
        lambda x: [0][x],
        lambda x: list(range(x)),
        lambda x: 1 << x,
        lambda x: 7 // x,
        lambda x: x / 2,
        lambda x: x.to_bytes(8, "big"),
        lambda x: bytes(x),
        lambda x: "a" * x,
        lambda x: x % x,
    ],
)
def test_what_only_one_number_has_is_refused_and_never_made_up(use: Callable[[int], Any]) -> None:
    path = Path((), Exploration(10, time.monotonic() + 10))
    with pytest.raises((OneForManyError, OverflowError, IndexError, MemoryError)):
        use(path.any("x", 0, 5))
