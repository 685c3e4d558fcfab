"""The pure operations of meanings as LLVM values."""

from __future__ import annotations

from llvmlite import ir

from chronovisor.engine.native.emitter import I1, I8, Emitter, Row
from chronovisor.engine.native.encoding import bound
from chronovisor.isa.values import LaneFunction, Value, mask


def _number(kind: ir.Type, number: int) -> ir.Constant:
    """A constant of a type; of a vector's, in each lane."""
    if isinstance(kind, ir.VectorType):
        return ir.Constant(kind, [ir.Constant(kind.element, number)] * kind.count)
    return ir.Constant(kind, number)


def _binary(name: str) -> Row:
    return lambda e, v, a, b: getattr(e.b, name)(a, b)


def _shift(name: str) -> Row:
    def row(e: Emitter, v: Value, a: ir.Value, b: ir.Value) -> ir.Value:
        if bound(v.args[1]) < v.width:
            return getattr(e.b, name)(a, b)
        within = e.b.icmp_unsigned("<", b, _number(b.type, v.width))
        safe = e.b.select(within, b, _number(b.type, v.width - 1 if name == "ashr" else 0))
        shifted = getattr(e.b, name)(a, safe)
        return shifted if name == "ashr" else e.b.select(within, shifted, _number(a.type, 0))

    return row


def _quotient(e: Emitter, name: str, a: ir.Value, b: ir.Value) -> ir.Value:
    """`udiv` or `urem` of a divisor that is not 0.

    LLVM calls a function for more than 64 bits, and handlers cannot name its address: long division instead.
    """
    if a.type.width <= 64:
        return getattr(e.b, name)(a, b)
    width, kind = a.type.width, a.type
    one, zero = ir.Constant(kind, 1), ir.Constant(kind, 0)
    before, loop, done = e.b.block, e.block_named("divide"), e.block_named("divided")
    e.b.branch(loop)
    e.b.position_at_end(loop)
    left, quotient, rest = (e.b.phi(kind) for _ in range(3))
    count = e.b.phi(kind)
    top = ir.Constant(kind, width - 1)
    carry = e.b.trunc(e.b.lshr(rest, top), I1)
    more = e.b.or_(e.b.shl(rest, one), e.b.lshr(left, top))
    fits = e.b.or_(carry, e.b.icmp_unsigned(">=", more, b))
    new_rest = e.b.select(fits, e.b.sub(more, b), more)
    new_quotient = e.b.or_(e.b.shl(quotient, one), e.b.zext(fits, kind))
    following = e.b.add(count, one)
    for phi, first, then in (
        (left, a, e.b.shl(left, one)),
        (quotient, zero, new_quotient),
        (rest, zero, new_rest),
        (count, zero, following),
    ):
        phi.add_incoming(first, before)
        phi.add_incoming(then, loop)
    e.b.cbranch(e.b.icmp_unsigned("==", following, ir.Constant(kind, width)), done, loop)
    e.b.position_at_end(done)
    return new_quotient if name == "udiv" else new_rest


def _magnitude(e: Emitter, a: ir.Value) -> ir.Value:
    negative = e.b.icmp_signed("<", a, ir.Constant(a.type, 0))
    return e.b.select(negative, e.b.neg(a), a)


def _signed_quotient(e: Emitter, name: str, a: ir.Value, b: ir.Value) -> ir.Value:
    """`sdiv` or `srem` of a divisor that is not 0, if the quotient does not overflow."""
    if a.type.width <= 64:
        return getattr(e.b, name)(a, b)
    unsigned = _quotient(e, name.replace("s", "u", 1), _magnitude(e, a), _magnitude(e, b))
    sign = e.b.xor(a, b) if name == "sdiv" else a
    negative = e.b.icmp_signed("<", sign, ir.Constant(a.type, 0))
    return e.b.select(negative, e.b.neg(unsigned), unsigned)


def _divide(name: str) -> Row:
    def row(e: Emitter, v: Value, a: ir.Value, b: ir.Value) -> ir.Value:
        zero, one = ir.Constant(b.type, 0), ir.Constant(b.type, 1)
        by_zero = e.b.icmp_unsigned("==", b, zero)
        if name.startswith("u"):
            return e.b.select(by_zero, zero, _quotient(e, name, a, e.b.select(by_zero, one, b)))
        least = e.b.icmp_unsigned("==", a, ir.Constant(a.type, 1 << (v.width - 1)))
        overflow = e.b.and_(least, e.b.icmp_unsigned("==", b, ir.Constant(b.type, -1)))
        safe = e.b.select(e.b.or_(by_zero, overflow), one, b)
        result = _signed_quotient(e, name, a, safe)
        result = e.b.select(overflow, a if name == "sdiv" else zero, result)
        return e.b.select(by_zero, zero, result)

    return row


def _compare(method: str, relation: str) -> Row:
    return lambda e, v, a, b: getattr(e.b, method)(relation, a, b)


def _extract(e: Emitter, v: Value, a: ir.Value) -> ir.Value:
    shifted = e.b.lshr(a, _number(a.type, int(str(v.detail)))) if v.detail else a
    return e.b.trunc(shifted, e.integer(v.width))


def _concat(e: Emitter, v: Value, a: ir.Value, b: ir.Value) -> ir.Value:
    whole = e.integer(v.width)
    high = e.b.shl(e.b.zext(a, whole), _number(whole, v.args[1].width))
    return e.b.or_(high, e.b.zext(b, whole))


def _intrinsic(name: str, *flags: int) -> Row:
    """A function of LLVM's own of one value, and of further bits."""

    def row(e: Emitter, v: Value, a: ir.Value) -> ir.Value:
        vector = isinstance(a.type, ir.VectorType)
        suffix = f"v{a.type.count}i{v.width}" if vector else f"i{v.width}"
        kind = ir.FunctionType(a.type, [a.type, *(I1 for _ in flags)])
        function = e.function.module.globals.get(f"llvm.{name}.{suffix}") or ir.Function(
            e.function.module, kind, f"llvm.{name}.{suffix}"
        )
        return e.b.call(function, [a, *(ir.Constant(I1, flag) for flag in flags)])

    return row


def _byteswap(e: Emitter, v: Value, a: ir.Value) -> ir.Value:
    return _intrinsic("bswap")(e, v, a) if v.width > 8 else a


def _permute(e: Emitter, v: Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """By the machine's own instruction, which has zeros for selectors with their upper bit set."""
    lanes = ir.VectorType(I8, v.width // 8)
    table, selectors = (e.b.bitcast(operand, lanes) for operand in (a, b))
    kind = ir.FunctionType(lanes, [lanes, lanes])
    shuffle = e.function.module.declare_intrinsic("llvm.x86.ssse3.pshuf.b.128", (), kind)
    chosen = e.b.call(shuffle, [table, e.b.and_(selectors, _number(lanes, 15))])
    return e.b.bitcast(chosen, a.type)


def _each(e: Emitter, v: Value, *operands: ir.Value) -> ir.Value:
    function = v.detail
    assert isinstance(function, LaneFunction)
    count = v.args[0].width // function.width
    lanes = ir.VectorType(ir.IntType(function.width), count)
    e.lanes = tuple(e.b.bitcast(operand, lanes) for operand in operands)
    for value in function.body:
        e.statement(value)
    result = e.b.bitcast(e.value(function.result), ir.IntType(v.width))
    e.lanes = ()
    return result


#: Every pure operation but `operand`.
PURE_ROWS: dict[str, Row] = {
    "const": lambda e, v: _number(e.integer(v.width), v.detail),
    "add": _binary("add"),
    "sub": _binary("sub"),
    "mul": _binary("mul"),
    "udiv": _divide("udiv"),
    "urem": _divide("urem"),
    "sdiv": _divide("sdiv"),
    "srem": _divide("srem"),
    "and": _binary("and_"),
    "or": _binary("or_"),
    "xor": _binary("xor"),
    "not": lambda e, v, a: e.b.xor(a, _number(a.type, mask(v.width))),
    "shl": _shift("shl"),
    "lshr": _shift("lshr"),
    "ashr": _shift("ashr"),
    "eq": _compare("icmp_unsigned", "=="),
    "ult": _compare("icmp_unsigned", "<"),
    "slt": _compare("icmp_signed", "<"),
    "select": lambda e, v, a, b, c: e.b.select(a, b, c),
    "zext": lambda e, v, a: e.b.zext(a, e.integer(v.width)),
    "sext": lambda e, v, a: e.b.sext(a, e.integer(v.width)),
    "extract": _extract,
    "concat": _concat,
    "clz": _intrinsic("ctlz", 0),
    "ctz": _intrinsic("cttz", 0),
    "popcount": _intrinsic("ctpop"),
    "byteswap": _byteswap,
    "permute": _permute,
    "lane": lambda e, v: e.lanes[v.detail],
    "each": _each,
}
