"""The instructions of some pages as a region sees them: operands known, control flow known.

Offsets are in bytes from the beginning of the region's home page; they are negative in pages before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import Literal

from chronovisor.engine.native.known_values import known_value
from chronovisor.engine.native.layout import PAGE_SHIFT
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.native.operations import is_native
from chronovisor.engine.native.stencils import SYNCHRONIZING
from chronovisor.isa.decode import decode
from chronovisor.isa.instruction import Instruction
from chronovisor.isa.operations import PURE
from chronovisor.isa.values import Block, Program, Value, When, mask

PAGE_SIZE = 1 << PAGE_SHIFT

#: Operations that only handlers do: they change how the thread runs, or read time.
_HANDLERS_ALONE = frozenset(
    {"resync", "invalidate_code", "random", "read_live", "write_live", "new_context"}
    | {"forget_translations", "await_invalidations"}
)

#: Two addresses of the home page. What differs between them depends on the page's address.
_HOMES = (1 << 28, 3 << 28)


def sets_target(v: Value) -> bool:
    """Whether a statement says where the instruction jumps."""
    return v.op == "set" and v.detail == "NIA"


def is_jump(guarded: When) -> bool:
    """Whether a jump is all that depends on a condition."""
    done = [s for s in guarded.body if isinstance(s, When) or s.op not in PURE]
    return all(isinstance(s, Value) and sets_target(s) for s in done) and bool(done)


@dataclass
class Site:
    """An instruction at its offset."""

    offset: int
    instruction: Instruction | None
    program: Program | None
    operands: Mapping[str, int] = field(default_factory=dict)
    numbers: tuple[Value, ...] | None = None
    """The numbers of the registers that the instruction uses; None if its own handler alone does it."""
    _known: dict[int, int | None] = field(default_factory=dict)

    def constant(self, v: Value) -> int | None:
        """A value that depends on the instruction alone, or None if it also depends on the thread's state."""
        key = id(v)
        if key not in self._known:
            self._known[key] = self._computed(v, None, self._known)
        return self._known[key]

    def _computed(self, v: Value, home: int | None, known: dict[int, int | None]) -> int | None:
        return known_value(v, partial(self._given, home), known)

    def _given(self, home: int | None, v: Value) -> int | None:
        """An operand, or the instruction's address if that of the home page is known."""
        if v.op == "operand":
            return self.operands[str(v.detail)] & mask(64)
        if home is None or v.detail not in ("CIA", "NIA"):
            return None
        return home + self.offset + (4 if v.detail == "NIA" else 0)

    @cached_property
    def fits(self) -> bool:
        """Whether the instruction can be part of a region. If not, its own handler does it."""
        # XER says which registers a string instruction uses.
        return self.numbers is not None and all(self.constant(number) is not None for number in self.numbers)

    @cached_property
    def jumps(self) -> list[tuple[Value, bool]]:
        """Where the instruction jumps: the target, and whether that depends on the thread's state."""
        return [] if self.program is None else list(self._jumps(self.program.body, False))

    def _jumps(self, block: Block, conditional: bool) -> list[tuple[Value, bool]]:
        found: list[tuple[Value, bool]] = []
        for statement in block:
            if isinstance(statement, When):
                condition = self.constant(statement.condition)
                if condition != 0:
                    found += self._jumps(statement.body, conditional or condition is None)
            elif sets_target(statement):
                found.append((statement.args[0], conditional))
        return found

    @cached_property
    def jumps_at_end(self) -> bool:
        """Whether the instruction jumps once it is done: by one way, under one condition or none."""
        body = self.program.body if self.program is not None else ()
        ends = (is_jump(s) if isinstance(s, When) else sets_target(s) for s in body)
        return len(self.jumps) == 1 and any(ends)

    @cached_property
    def falls(self) -> bool:
        """Whether the next instruction in memory may follow this one."""
        return not any(not conditional for _, conditional in self.jumps)

    @cached_property
    def links(self) -> bool:
        """Whether the instruction is a call: it jumps, and sets LR."""
        return bool(self.jumps) and any(
            s.op == "set" and s.detail == "LR" for s in (self.program.statements() if self.program else ())
        )

    def _target(self, v: Value) -> int | None:
        one, other = (self._computed(v, home, {}) for home in _HOMES)
        if one is None or other is None or other - one != _HOMES[1] - _HOMES[0]:
            return None
        return one - _HOMES[0]

    @cached_property
    def targets(self) -> list[int]:
        """The offsets that the instruction is known to jump to."""
        found = (self._target(v) for v, _ in self.jumps)
        return [offset for offset in found if offset is not None]

    @cached_property
    def is_indirect(self) -> bool:
        """Whether a register says where the instruction jumps."""
        return any(self._computed(v, _HOMES[0], {}) is None for v, _ in self.jumps)


@cache
def _register_numbers(
    instruction: Instruction, statics: tuple[int, ...], mode: Mode
) -> tuple[Value, ...] | None:
    """The numbers of the registers that an instruction uses; None if it cannot be part of a region."""
    program = instruction.program(statics, *mode)
    if instruction.mnemonic in SYNCHRONIZING or not is_native(program):
        return None
    statements = list(program.statements())
    if any(s.op in _HANDLERS_ALONE or (s.op == "set" and s.detail == "MSR") for s in statements):
        return None
    if any(not isinstance(s, When) and s.op == "interrupt" for s in program.body):
        return None
    return tuple(s.args[0] for s in statements if s.op in ("read_file", "write_file"))


class Code:
    """The instructions of some pages, decoded as they are asked for.

    ``pages`` has the contents of pages by their distance from the home page, in pages.
    """

    def __init__(self, pages: Mapping[int, bytes], mode: Mode) -> None:
        self._pages = pages
        self._order: Literal["little", "big"] = "little" if mode[1] else "big"
        self._mode = mode
        self._sites: dict[int, Site] = {}

    def __getitem__(self, offset: int) -> Site:
        if offset not in self._sites:
            self._sites[offset] = self._decoded(offset)
        return self._sites[offset]

    def _decoded(self, offset: int) -> Site:
        content = self._pages.get(offset >> PAGE_SHIFT)
        if content is None:
            return Site(offset, None, None)
        inside = offset & (PAGE_SIZE - 1)
        word = int.from_bytes(content[inside : inside + 4], self._order)
        found = decode(word)
        if found is None or not found.implemented:
            return Site(offset, None, None)
        statics = found.meaning_statics(word)
        operands = dict(zip(found.operands, found.decode_operands(word), strict=True))
        numbers = _register_numbers(found, statics, self._mode)
        return Site(offset, found, found.program(statics, *self._mode), operands, numbers)
