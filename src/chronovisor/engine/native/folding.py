"""A builder that computes at once what constants decide.

LLVM would find the same later, but each instruction that it is given costs time twice: as text, which Python
makes, and as what LLVM reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir


class FoldingBuilder(ir.IRBuilder):  # type: ignore[misc]  # llvmlite has no types
    """An IRBuilder without choices by constants, sums with 0, and sums of sums with constants."""

    def __init__(self, block: ir.Block) -> None:
        super().__init__(block)
        #: What sums with constants are of, by their ids: the sum, what it adds to, and the number.
        self._sums: dict[int, tuple[ir.Value, ir.Value, int]] = {}

    def select(
        self, cond: ir.Value, lhs: ir.Value, rhs: ir.Value, name: str = "", flags: Sequence[str] = ()
    ) -> ir.Value:
        """One of two values."""
        if isinstance(cond, ir.Constant) and isinstance(cond.type, ir.IntType):
            return lhs if cond.constant else rhs
        return super().select(cond, lhs, rhs, name, flags)

    def add(self, lhs: ir.Value, rhs: ir.Value, name: str = "", flags: Sequence[str] = ()) -> ir.Value:
        """The sum of two values."""
        if not isinstance(rhs, ir.Constant) or not isinstance(rhs.type, ir.IntType):
            return super().add(lhs, rhs, name, flags)
        _, base, number = self._sums.get(id(lhs), (None, lhs, 0))
        number = (number + rhs.constant) % (1 << rhs.type.width)
        if isinstance(base, ir.Constant):
            return ir.Constant(rhs.type, (base.constant + number) % (1 << rhs.type.width))
        if not number:
            return base
        added = super().add(base, ir.Constant(rhs.type, number), name, flags)
        self._sums[id(added)] = (added, base, number)
        return added

    def gep(self, ptr: ir.Value, indices: Sequence[ir.Value], *more: Any, **named: Any) -> ir.Value:
        """An address behind another one."""
        if len(indices) == 1 and isinstance(indices[0], ir.Constant) and not indices[0].constant:
            return ptr
        return super().gep(ptr, indices, *more, **named)
