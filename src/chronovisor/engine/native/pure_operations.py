"""The pure operations of meanings as LLVM values."""

from __future__ import annotations

from llvmlite import ir

from chronovisor.engine.native.emitter import I1, Emitter, Row
from chronovisor.engine.native.encoding import bound
from chronovisor.isa.values import Value


def _binary(name: str) -> Row:
    return lambda e, v, a, b: getattr(e.b, name)(a, b)


def _shift(name: str) -> Row:
    def row(e: Emitter, v: Value, a: ir.Value, b: ir.Value) -> ir.Value:
        if bound(v.args[1]) < v.width:
            return getattr(e.b, name)(a, b)
        within = e.b.icmp_unsigned("<", b, ir.Constant(b.type, v.width))
        safe = e.b.select(within, b, ir.Constant(b.type, v.width - 1 if name == "ashr" else 0))
        shifted = getattr(e.b, name)(a, safe)
        return shifted if name == "ashr" else e.b.select(within, shifted, ir.Constant(a.type, 0))

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
    shifted = e.b.lshr(a, ir.Constant(a.type, v.detail)) if v.detail else a
    return e.b.trunc(shifted, ir.IntType(v.width))


def _concat(e: Emitter, v: Value, a: ir.Value, b: ir.Value) -> ir.Value:
    whole = ir.IntType(v.width)
    high = e.b.shl(e.b.zext(a, whole), ir.Constant(whole, b.type.width))
    return e.b.or_(high, e.b.zext(b, whole))


def _zeros(name: str) -> Row:
    return lambda e, v, a: getattr(e.b, name)(a, ir.Constant(I1, 0))


#: Every pure operation but `operand`.
PURE_ROWS: dict[str, Row] = {
    "const": lambda e, v: ir.Constant(ir.IntType(v.width), v.detail),
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
    "not": lambda e, v, a: e.b.not_(a),
    "shl": _shift("shl"),
    "lshr": _shift("lshr"),
    "ashr": _shift("ashr"),
    "eq": _compare("icmp_unsigned", "=="),
    "ult": _compare("icmp_unsigned", "<"),
    "slt": _compare("icmp_signed", "<"),
    "select": lambda e, v, a, b, c: e.b.select(a, b, c),
    "zext": lambda e, v, a: e.b.zext(a, ir.IntType(v.width)),
    "sext": lambda e, v, a: e.b.sext(a, ir.IntType(v.width)),
    "extract": _extract,
    "concat": _concat,
    "clz": _zeros("ctlz"),
    "ctz": _zeros("cttz"),
    "popcount": lambda e, v, a: e.b.ctpop(a),
    "byteswap": lambda e, v, a: e.b.bswap(a) if v.width > 8 else a,
}
