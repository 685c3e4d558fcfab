"""Programs as Python functions over ints: one expression or statement an operation.

The rows of :data:`EXPRESSIONS` and :data:`STATEMENTS` are the concrete reading of
``chronovisor.isa.operations.OPERATIONS``. A value of ``width`` bits is an int from 0 to 2^width - 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from chronovisor.engine.endings import Declined, GuestInterrupt, Resync
from chronovisor.isa.ieee import IEEE
from chronovisor.isa.interrupts import HYPERCALL
from chronovisor.isa.operations import EFFECTS
from chronovisor.isa.registers import FILES
from chronovisor.isa.values import Block, LaneFunction, Program, Value, When, mask


class Hypercall(Exception):
    """The guest executed `sc 1`."""


def _signed(number: int, width: int) -> int:
    return number - (1 << width) if number >> (width - 1) else number


def signed_divide(a: int, b: int, width: int) -> int:
    """The `sdiv` operation: truncated; 0 for a zero divisor, a if it overflows."""
    if b == 0:
        return 0
    x, y = _signed(a, width), _signed(b, width)
    quotient = abs(x) // abs(y)
    return (quotient if (x < 0) == (y < 0) else -quotient) & mask(width)


def signed_remainder(a: int, b: int, width: int) -> int:
    """The `srem` operation: the remainder that goes with :func:`signed_divide`."""
    if b == 0:
        return 0
    quotient = _signed(signed_divide(a, b, width), width)
    x, y = _signed(a, width), _signed(b, width)
    if x == -(1 << (width - 1)) and y == -1:
        return 0
    return (x - quotient * y) & mask(width)


def lanes(value: int, width: int, whole: int) -> list[int]:
    """The lanes of ``width`` bits of a value of ``whole`` bits, the least significant first."""
    return [value >> low & mask(width) for low in range(0, whole, width)]


def joined(values: list[int], width: int) -> int:
    """The value whose lanes of ``width`` bits these are, the least significant first."""
    return sum(value << (width * number) for number, value in enumerate(values))


def permute(bytes_of: int, selectors: int) -> int:
    """The `permute` operation."""
    table = bytes_of.to_bytes(16, "little")
    return int.from_bytes(bytes(table[one & 15] for one in selectors.to_bytes(16, "little")), "little")


_OPERATIONS = {
    "signed_divide": signed_divide,
    "signed_remainder": signed_remainder,
    "lanes": lanes,
    "joined": joined,
    "permute": permute,
    "ieee": IEEE,
}


def _sign(width: int) -> int:
    return 1 << (width - 1)


def _shift_left(v: Value, a: str, b: str) -> str:
    if b.isdigit():
        return f"({a} << {b} & {mask(v.width)})" if int(b) < v.width else "0"
    return f"({a} << {b} & {mask(v.width)} if {b} < {v.width} else 0)"


def _extract(v: Value, a: str) -> str:
    low, whole = v.detail, v.args[0].width
    assert isinstance(low, int)
    shifted = f"{a} >> {low}" if low else a
    return f"({shifted})" if low + v.width == whole else f"({shifted} & {mask(v.width)})"


def _signed_less(v: Value, a: str, b: str) -> str:
    width = v.args[0].width
    if b == "0":
        return f"({a} >> {width - 1})"
    return f"(({a} ^ {_sign(width)}) < ({b} ^ {_sign(width)}))"


def _each(v: Value, *operands: str) -> str:
    function = v.detail
    assert isinstance(function, LaneFunction)
    names = ", ".join(f"x{number}" for number in range(len(operands)))
    cut = ", ".join(
        f"lanes({text}, {function.width}, {operand.width})"
        for text, operand in zip(operands, v.args, strict=True)
    )
    result = _nested(function.result, {})
    return f"joined([{result} for {names}, in zip({cut})], {function.result.width})"


def _nested(value: Value, texts: dict[int, str]) -> str:
    """One expression for a pure value and all that it is made of."""
    if id(value) not in texts:
        arguments = [_nested(argument, texts) for argument in value.args]
        texts[id(value)] = f"({EXPRESSIONS[value.op](value, *arguments)})"
    return texts[id(value)]


def _file(v: Value) -> str:
    """The attribute of the state that holds the register file which a statement names."""
    return FILES[str(v.detail)].attribute


#: Pure operations: (value, operand texts…) -> expression.
EXPRESSIONS: dict[str, Callable[..., str]] = {
    "const": lambda v: str(v.detail),
    "operand": lambda v: str(v.detail),
    "add": lambda v, a, b: f"({a} + {b} & {mask(v.width)})",
    "sub": lambda v, a, b: f"({a} - {b} & {mask(v.width)})",
    "mul": lambda v, a, b: f"({a} * {b} & {mask(v.width)})",
    "udiv": lambda v, a, b: f"({a} // {b} if {b} else 0)",
    "urem": lambda v, a, b: f"({a} % {b} if {b} else 0)",
    "sdiv": lambda v, a, b: f"signed_divide({a}, {b}, {v.width})",
    "srem": lambda v, a, b: f"signed_remainder({a}, {b}, {v.width})",
    "and": lambda v, a, b: f"({a} & {b})",
    "or": lambda v, a, b: f"({a} | {b})",
    "xor": lambda v, a, b: f"({a} ^ {b})",
    "not": lambda v, a: f"({a} ^ {mask(v.width)})",
    "shl": _shift_left,
    "lshr": lambda v, a, b: f"({a} >> {b})",
    "ashr": lambda v, a, b: f"(({a} ^ {_sign(v.width)}) - {_sign(v.width)} >> {b} & {mask(v.width)})",
    "eq": lambda v, a, b: f"({a} == {b})",
    "ult": lambda v, a, b: f"({a} < {b})",
    "slt": _signed_less,
    "select": lambda v, a, b, c: f"({b} if {a} else {c})",
    "zext": lambda v, a: a,
    "sext": lambda v, a: f"(({a} ^ {_sign(v.args[0].width)}) - {_sign(v.args[0].width)} & {mask(v.width)})",
    "extract": _extract,
    "concat": lambda v, a, b: f"({a} << {v.args[1].width} | {b})",
    "clz": lambda v, a: f"({v.width} - ({a}).bit_length())",
    "ctz": lambda v, a: f"(({a} & -{a}).bit_length() - 1 if {a} else {v.width})",
    "popcount": lambda v, a: f"({a}).bit_count()",
    "byteswap": lambda v, a: f"int.from_bytes({a}.to_bytes({v.width // 8}, 'big'), 'little')",
    "permute": lambda v, a, b: f"permute({a}, {b})",
    "ieee": lambda v, *operands: f"ieee[{v.detail!r}]({', '.join(operands)})",
    "lane": lambda v: f"x{v.detail}",
    "each": _each,
}

#: Operations on the state: (value, little-endian, operand texts…) -> expression or statement.
STATEMENTS: dict[str, Callable[..., str]] = {
    "read_file": lambda v, le, a: f"{_file(v)}[{a}]",
    "write_file": lambda v, le, a, b: f"{_file(v)}[{a}] = {b}",
    "get": lambda v, le: f"s.{v.detail}",
    "set": lambda v, le, a: f"s.set_msr({a})" if v.detail == "MSR" else f"s.{v.detail} = {a}",
    "read_live": lambda v, le: f"s.live.read({v.detail!r})",
    "write_live": lambda v, le, a: f"s.live.write({v.detail!r}, {a})",
    "load": lambda v, le, a: f"s.load({a}, {v.width // 8}, {le})",
    "store": lambda v, le, a, b: f"s.store({a}, {b}, {v.args[1].width // 8}, {le})",
    "load_reserved": lambda v, le, a: f"s.load_reserved({a}, {v.width // 8}, {le})",
    "store_conditional": lambda v, le, a, b: f"s.store_conditional({a}, {b}, {v.args[1].width // 8}, {le})",
    "invalidate_code": lambda v, le, a: f"s.code.forget(s.address({a}, False))",
    "zero_block": lambda v, le, a: f"s.zero_block({a})",
    "probe": lambda v, le, a: f"s.probe({a}, {v.detail!r})",
    # Each thread's accesses happen in program order, one after the other, under the interpreter's lock.
    "barrier": lambda v, le: "pass",
    "random": lambda v, le: "s.live.random()",
    "load_real": lambda v, le, a: f"s.load_real({a})",
    "update_real": lambda v, le, a, b, c: f"s.update_real({a}, {b}, {c})",
    "store_real": lambda v, le, a, b: f"s.store_real({a}, {b})",
    "translated": lambda v, le, a, b, c: f"return {a}, {b}",
    "new_context": lambda v, le: "s.new_context()",
    # All translations are forgotten, and every thread has done so when this returns.
    "forget_translations": lambda v, le, a, b, c: f"s.forget_translations({v.detail!r})",
    "await_invalidations": lambda v, le: "pass",
    "read_shared": lambda v, le: f"s.shared.words[{v.detail}]",
    "exchange_shared": lambda v, le, a, b: f"s.shared.exchange({v.detail}, {a}, {b})",
    "read_word": lambda v, le, a, b: f"s.read_word({a}, {b})",
    "exchange_word": lambda v, le, a, b, c, d: f"s.code.exchange_word({a}, {b}, {c}, {d})",
    "set_words": lambda v, le, a, b, c, d: f"s.set_words({a}, {b}, {c}, {d}, {v.detail == 'copy'})",
    "init_page": lambda v, le, a, b: f"s.init_page({a}, {b if v.detail == 'copy' else None})",
    # Under the interpreter's lock the hypervisor's own code is as fast.
    "host_io": lambda v, le, a, b, c, d: hex((1 << 64) - 1),
    "nap": lambda v, le, a, b: "0",
    "alarm": lambda v, le, a, b: "0",
    "watch": lambda v, le, a, b, c: "0",
    "decline": lambda v, le: "raise Declined",
    "interrupt": lambda v, le, a: (
        "raise Hypercall" if v.detail == HYPERCALL else f"raise GuestInterrupt({v.detail!r}, {a})"
    ),
    "resync": lambda v, le: "raise Resync",
}

#: Expressions that name an operand more than once: it must be cheap to repeat.
_REPEATS = frozenset({"udiv", "urem", "shl", "ctz"})


def source(program: Program, little: bool) -> str:
    """The Python function that does what ``program`` does, as source text."""
    uses: Counter[int] = Counter()
    for statement in program.statements():
        for argument in statement.args:
            uses[id(argument)] += 2 if statement.op in _REPEATS else 1
    lines = [f"def {program.name}({', '.join(('s', *program.operands))}):"]
    texts: dict[int, str] = {}
    constants: set[int] = set()

    def count_conditions(block: Block) -> None:
        for statement in block:
            if isinstance(statement, When):
                uses[id(statement.condition)] += 1
                count_conditions(statement.body)

    count_conditions(program.body)

    def emit(block: Block, indent: str) -> None:
        before = len(lines)
        for statement in block:
            if isinstance(statement, When):
                lines.append(f"{indent}if {texts[id(statement.condition)]}:")
                emit(statement.body, indent + "    ")
                continue
            arguments = [texts[id(argument)] for argument in statement.args]
            if statement.op in EXPRESSIONS:
                text = EXPRESSIONS[statement.op](statement, *arguments)
                if statement.op != "operand" and all(id(a) in constants for a in statement.args):
                    constants.add(id(statement))
                    texts[id(statement)] = str(int(eval(text, dict(_OPERATIONS))))
                    continue
                used = uses[id(statement)]
                if used <= 1 or statement.op in ("operand", "zext"):
                    texts[id(statement)] = text
                    continue
            else:
                text = STATEMENTS[statement.op](statement, little, *arguments)
                if statement.op in EFFECTS:
                    lines.append(f"{indent}{text}")
                    continue
            texts[id(statement)] = f"t{len(texts)}"
            lines.append(f"{indent}{texts[id(statement)]} = {text}")
        if len(lines) == before:
            lines.append(f"{indent}pass")

    used = {_file(s) for s in program.statements() if s.op in ("read_file", "write_file")}
    lines += [f"    {file} = s.{file}" for file in sorted(used)]
    emit(program.body, "    ")
    return "\n".join(lines) + "\n"


def compile_program(program: Program, little: bool) -> Callable[..., None]:
    """``program`` as a Python function of (state, *operands)."""
    names: dict[str, Any] = {
        **_OPERATIONS,
        "Declined": Declined,
        "GuestInterrupt": GuestInterrupt,
        "Hypercall": Hypercall,
        "Resync": Resync,
    }
    exec(compile(source(program, little), f"<meaning of {program.name}>", "exec"), names)
    function: Callable[..., None] = names[program.name]
    return function


def evaluate(v: Value, arguments: Sequence[int]) -> int:
    """The result of a pure operation for these values of its arguments."""
    widths = tuple(a.width for a in v.args)
    key = (v.op, v.width, v.detail, widths)
    found = _evaluators.get(key)
    if found is None:
        names = [f"x{number}" for number in range(len(widths))]
        text = f"lambda {', '.join(names)}: int({EXPRESSIONS[v.op](v, *names)})"
        found = _evaluators[key] = eval(text, dict(_OPERATIONS))
    return found(*arguments)


_evaluators: dict[tuple[object, ...], Callable[..., int]] = {}


def compile_values(values: Sequence[Value], operands: Sequence[str]) -> Callable[..., tuple[int, ...]]:
    """A function of the operands that computes pure values of them."""
    texts: dict[int, str] = {}
    body = "".join(f"int({_nested(value, texts)}), " for value in values)
    function: Callable[..., tuple[int, ...]] = eval(
        f"lambda {', '.join(operands)}: ({body})", dict(_OPERATIONS)
    )
    return function
