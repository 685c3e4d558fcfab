"""Operands that find mistakes: random ones, and those around carries, signs and halves."""

from __future__ import annotations

from hypothesis import strategies as st

_EDGES = [
    (base + step) & ((1 << 64) - 1)
    for base in (0, 1 << 31, 1 << 32, 1 << 63, (1 << 63) + (1 << 31), (1 << 64) - (1 << 32))
    for step in (-2, -1, 0, 1, 2)
]

numbers = st.one_of(st.sampled_from(_EDGES), st.integers(0, (1 << 64) - 1), st.integers(-64, 64)).map(
    lambda number: number & ((1 << 64) - 1)
)
bits = st.integers(0, 1)
modes = st.booleans()
