"""A check of programs between tracing and evaluation: each mistake is named by the line that made it.

Every evaluator relies on what is checked here: operations are known, operands have the widths that the
operation needs, and a value is made before it is used, in the same block or in one around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chronovisor.isa.ieee import IEEE, RAISED_WIDTH
from chronovisor.isa.operations import EFFECTS, OPERATIONS, PURE
from chronovisor.isa.registers import FILES, REGISTERS, SHARED_WORDS, TRANSLATION_CONTEXT
from chronovisor.isa.values import Block, LaneFunction, Program, Value, When, mask

Shape = Callable[[Value], bool]
"""Whether a value's width, operands and detail are as its operation needs them."""


class ProgramError(ValueError):
    """A program that no evaluator could run; the text says which line made the mistake."""


def _widths(v: Value) -> tuple[int, ...]:
    return tuple(a.width for a in v.args)


def _same(count: int) -> Shape:
    return lambda v: _widths(v) == (v.width,) * count


def _compares(v: Value) -> bool:
    return v.width == 1 and len(v.args) == 2 and v.args[0].width == v.args[1].width


def _widens(v: Value) -> bool:
    return len(v.args) == 1 and v.args[0].width < v.width


def _extracts(v: Value) -> bool:
    low = v.detail
    return isinstance(low, int) and len(v.args) == 1 and 0 <= low <= low + v.width <= v.args[0].width


def _constant(v: Value) -> bool:
    return not v.args and isinstance(v.detail, int) and 0 <= v.detail <= mask(v.width)


def _ieee(v: Value) -> bool:
    operation = IEEE.get(str(v.detail))
    if operation is None:
        return False
    return _widths(v) == operation.operands and v.width == operation.width + RAISED_WIDTH


def _each(v: Value) -> bool:
    function = v.detail
    if not isinstance(function, LaneFunction):
        return False
    count, rest = divmod(v.width, function.result.width)
    return not rest and _widths(v) == (function.width * count,) * len(v.args)


def _file(v: Value, *more: int) -> bool:
    return v.detail in FILES and _widths(v) == (64, *more)


def _register(v: Value, live: bool, width: int) -> bool:
    found = REGISTERS.get(str(v.detail))
    return found is not None and found.live is live and found.width == width


def _bytes(width: int) -> bool:
    return width in (8, 16, 32, 64, 128)


def _stores(v: Value) -> bool:
    return len(v.args) == 2 and v.args[0].width == 64 and _bytes(v.args[1].width)


def _operands(*widths: int, details: tuple[str | None, ...] = (None,)) -> Shape:
    return lambda v: _widths(v) == widths and v.detail in details


def _is_shared(v: Value) -> bool:
    return isinstance(v.detail, int) and v.detail in range(SHARED_WORDS)


def _interrupts(v: Value) -> bool:
    return _widths(v) == (64,) and isinstance(v.detail, str)


_HOST_IO: Final = ("read", "write", "send", "peek", "skip")

SHAPES: Final[dict[str, Shape]] = {
    "const": _constant,
    "operand": lambda v: v.width == 64 and not v.args and isinstance(v.detail, str),
    **dict.fromkeys(("add", "sub", "mul", "udiv", "urem", "sdiv", "srem", "and", "or", "xor"), _same(2)),
    **dict.fromkeys(("shl", "lshr", "ashr"), _same(2)),
    **dict.fromkeys(("not", "clz", "ctz", "popcount"), _same(1)),
    **dict.fromkeys(("eq", "ult", "slt"), _compares),
    "select": lambda v: _widths(v) == (1, v.width, v.width),
    **dict.fromkeys(("zext", "sext"), _widens),
    "extract": _extracts,
    "concat": lambda v: len(v.args) == 2 and sum(_widths(v)) == v.width,
    "byteswap": lambda v: _widths(v) == (v.width,) and v.width % 8 == 0,
    "permute": lambda v: _widths(v) == (128, 128) and v.width == 128,
    "ieee": _ieee,
    "lane": lambda v: not v.args and isinstance(v.detail, int),
    "each": _each,
    "read_file": lambda v: _file(v) and v.width == FILES[str(v.detail)].width,
    "write_file": lambda v: _file(v, FILES[str(v.detail)].width),
    "get": lambda v: not v.args and _register(v, False, v.width),
    "set": lambda v: len(v.args) == 1 and _register(v, False, v.args[0].width),
    "read_live": lambda v: not v.args and _register(v, True, v.width),
    "write_live": lambda v: len(v.args) == 1 and _register(v, True, v.args[0].width),
    **dict.fromkeys(("load", "load_reserved"), lambda v: _widths(v) == (64,) and _bytes(v.width)),
    "store": _stores,
    "store_conditional": lambda v: v.width == 1 and _stores(v),
    **dict.fromkeys(("invalidate_code", "zero_block"), _operands(64)),
    "probe": _operands(64, details=("load", "store")),
    "barrier": _operands(details=("full", "light")),
    "random": lambda v: v.width == 64 and not v.args,
    "load_real": lambda v: _widths(v) == (64,) and v.width == 64,
    "update_real": _operands(64, 64, 64),
    "store_real": _operands(64, 64),
    "translated": _operands(64, 64, 1),
    "new_context": _operands(details=tuple(TRANSLATION_CONTEXT)),
    "forget_translations": _operands(64, 64, 64, details=("all", "own")),
    "await_invalidations": _operands(),
    "read_shared": lambda v: v.width == 64 and not v.args and _is_shared(v),
    "exchange_shared": lambda v: v.width == 1 and _widths(v) == (64, 64) and _is_shared(v),
    "init_page": lambda v: v.width == 1 and _widths(v) == (64, 64) and v.detail in ("zero", "copy"),
    "set_words": lambda v: v.width == 1 and _widths(v) == (64,) * 4 and v.detail in ("fill", "copy"),
    "read_word": lambda v: v.width == 64 and _widths(v) == (64, 64),
    "exchange_word": lambda v: v.width == 1 and _widths(v) == (64,) * 4,
    "host_io": lambda v: v.width == 64 and _widths(v) == (64,) * 4 and v.detail in _HOST_IO,
    "nap": lambda v: v.width == 1 and _widths(v) == (64, 64),
    "alarm": lambda v: v.width == 1 and _widths(v) == (64, 64),
    "watch": lambda v: v.width == 1 and _widths(v) == (64, 64, 64),
    "decline": _operands(),
    "interrupt": _interrupts,
    "resync": _operands(),
}
"""The shape of each operation."""


def verify(program: Program) -> Program:
    """Return the program if every evaluator can run it; ProgramError names the line of what is wrong."""
    _Check(program).block(program.body, frozenset())
    return program


class _Check:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._changes = False

    def block(self, block: Block, around: frozenset[int]) -> None:
        known = set(around)
        for statement in block:
            if isinstance(statement, When):
                self._uses(statement.condition, (statement.condition,), known)
                if statement.condition.width != 1:
                    self._fail(statement.condition, "is a condition and must have 1 bit")
                self.block(statement.body, frozenset(known))
                continue
            self._uses(statement, statement.args, known)
            self._shape(statement)
            if statement.op == "lane":
                self._fail(statement, "is outside the function of an `each`")
            known.add(id(statement))
            if isinstance(statement.detail, LaneFunction):
                self._lanes(statement, statement.detail)

    def _lanes(self, each: Value, function: LaneFunction) -> None:
        known: set[int] = set()
        for v in function.body:
            self._uses(v, v.args, known)
            self._shape(v)
            if v.op not in PURE or v.op in ("operand", "each"):
                self._fail(v, "is within the function of an `each`, which has pure operations alone")
            if v.op == "lane" and (v.width != function.width or v.detail not in range(len(each.args))):
                self._fail(v, "is no lane of the `each` around it")
            known.add(id(v))
        self._uses(function.result, (function.result,), known)

    def _uses(self, by: Value, values: tuple[Value, ...], known: set[int]) -> None:
        for value in values:
            if id(value) not in known:
                self._fail(by, f"uses {value!r} of {value.line}, which is not made on every way here")

    def _shape(self, v: Value) -> None:
        if v.op not in OPERATIONS:
            self._fail(v, "is no operation")
        if (v.width == 0) is not (v.op in EFFECTS):
            self._fail(v, "must have no width" if v.op in EFFECTS else "must have a width")
        if not SHAPES[v.op](v):
            self._fail(v, f"has operands {list(v.args)}, which the operation does not take")
        if v.op == "decline" and self._changes:
            self._fail(v, "comes after something that the program has changed")
        self._changes = self._changes or (v.op in EFFECTS and v.op != "decline")
        if v.op == "operand" and v.detail not in self._program.operands:
            self._fail(v, f"is not among the operands {', '.join(self._program.operands)}")

    def _fail(self, v: Value, what: str) -> None:
        raise ProgramError(f"{v.line}: in {self._program.name}, {v!r} {what}")
