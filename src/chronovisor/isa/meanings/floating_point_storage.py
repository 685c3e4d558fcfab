"""Floating-point loads, stores and moves (Power ISA 3.0B Book I 4.6.2 to 4.6.5)."""

from __future__ import annotations

from collections.abc import Callable

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.meanings.floating_point_exceptions import record
from chronovisor.isa.meanings.load_store import updated
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

_SIGN = 1 << 63


def double_from_single(m: Machine, word: Value) -> Value:
    """DOUBLE(WORD): the double format of a value in the single format, 64 bits of 32 (4.6.2).

    Each value of the single format has one in the double format, so nothing is rounded and a signalling NaN
    stays one.
    """
    sign, exponent, fraction = word.extract(31, 1), word.extract(23, 8), word.trunc(23)
    wide = exponent.zext(11)
    unbiased = m.select(exponent.eq(0xFF), 0x7FF, wide + (1023 - 127), 11)
    normal = m.concat(unbiased, fraction, m.value(0, 29))
    # A denormal: its highest one moves to the implicit place, and the exponent becomes smaller.
    shift = fraction.clz() + 1
    denormal = m.concat((1023 - 126) - shift.trunc(11), fraction << shift, m.value(0, 29))
    small = m.select(fraction.eq(0), m.value(0, 63), denormal)
    return m.concat(sign, m.select(exponent.eq(0), small, normal))


def single_from_double(m: Machine, double: Value) -> Value:
    """SINGLE(FRS): the single format of a value in the double format, 32 bits of 64 (4.6.3).

    Bits that do not fit are dropped. A value that only a denormal could hold is shifted to its place. The
    book leaves the result undefined if even that is too small; here it is a zero.
    """
    exponent = double.extract(52, 11)
    plain = m.concat(double.extract(62, 2), double.extract(29, 30))
    significand = m.concat(m.value(1, 1), double.extract(29, 23))
    shift = (1023 - 126 - exponent).zext(24)
    denormal = m.concat(double.extract(63, 1), m.value(0, 8), (significand >> shift).trunc(23))
    return m.select(exponent.ult(1023 - 126), denormal, plain)


Load = Callable[[Machine, Value], Value]
Store = Callable[[Machine, Value, Value], None]


def _load_single(m: Machine, ea: Value) -> Value:
    return double_from_single(m, m.load(ea, 4))


def _load_double(m: Machine, ea: Value) -> Value:
    return m.load(ea, 8)


def _store_single(m: Machine, ea: Value, value: Value) -> None:
    m.store(ea, single_from_double(m, value))


def _store_double(m: Machine, ea: Value, value: Value) -> None:
    m.store(ea, value)


def _declare_loads(mnemonic: str, load: Load) -> None:
    @meaning(mnemonic)
    def displaced(m: Machine, FRT: Value, RA: Value, D: Value) -> None:
        m.fpr[FRT] = load(m, m.base(RA) + D)

    @meaning(f"{mnemonic}u")
    def displaced_update(m: Machine, FRT: Value, RA: Value, D: Value) -> None:
        ea = m.gpr[RA] + D
        m.fpr[FRT] = load(m, ea)
        m.gpr[RA] = updated(m, ea)

    @meaning(f"{mnemonic}x")
    def indexed(m: Machine, FRT: Value, RA: Value, RB: Value) -> None:
        m.fpr[FRT] = load(m, m.base(RA) + m.gpr[RB])

    @meaning(f"{mnemonic}ux")
    def indexed_update(m: Machine, FRT: Value, RA: Value, RB: Value) -> None:
        ea = m.gpr[RA] + m.gpr[RB]
        m.fpr[FRT] = load(m, ea)
        m.gpr[RA] = updated(m, ea)


def _declare_stores(mnemonic: str, store: Store) -> None:
    @meaning(mnemonic)
    def displaced(m: Machine, FRS: Value, RA: Value, D: Value) -> None:
        store(m, m.base(RA) + D, m.fpr[FRS])

    @meaning(f"{mnemonic}u")
    def displaced_update(m: Machine, FRS: Value, RA: Value, D: Value) -> None:
        ea = m.gpr[RA] + D
        store(m, ea, m.fpr[FRS])
        m.gpr[RA] = updated(m, ea)

    @meaning(f"{mnemonic}x")
    def indexed(m: Machine, FRS: Value, RA: Value, RB: Value) -> None:
        store(m, m.base(RA) + m.gpr[RB], m.fpr[FRS])

    @meaning(f"{mnemonic}ux")
    def indexed_update(m: Machine, FRS: Value, RA: Value, RB: Value) -> None:
        ea = m.gpr[RA] + m.gpr[RB]
        store(m, ea, m.fpr[FRS])
        m.gpr[RA] = updated(m, ea)


_declare_loads("lfs", _load_single)
_declare_loads("lfd", _load_double)
_declare_stores("stfs", _store_single)
_declare_stores("stfd", _store_double)


@meaning("lfiwax")
def lfiwax(m: Machine, FRT: Value, RA: Value, RB: Value) -> None:
    m.fpr[FRT] = m.load(m.base(RA) + m.gpr[RB], 4).sext(64)


@meaning("lfiwzx")
def lfiwzx(m: Machine, FRT: Value, RA: Value, RB: Value) -> None:
    m.fpr[FRT] = m.load(m.base(RA) + m.gpr[RB], 4).zext(64)


@meaning("stfiwx")
def stfiwx(m: Machine, FRS: Value, RA: Value, RB: Value) -> None:
    m.store(m.base(RA) + m.gpr[RB], m.fpr[FRS].trunc(32))


# Moves


def _declare_move(mnemonic: str, compute: Callable[[Value], Value]) -> None:
    @meaning(mnemonic)
    def move(m: Machine, FRT: Value, FRB: Value, Rc: int) -> None:
        m.fpr[FRT] = compute(m.fpr[FRB])
        record(m, Rc)


_declare_move("fmr", lambda b: b)
_declare_move("fneg", lambda b: b ^ _SIGN)
_declare_move("fabs", lambda b: b & ~_SIGN)
_declare_move("fnabs", lambda b: b | _SIGN)


@meaning("fcpsgn")
def fcpsgn(m: Machine, FRT: Value, FRA: Value, FRB: Value, Rc: int) -> None:
    m.fpr[FRT] = (m.fpr[FRA] & _SIGN) | (m.fpr[FRB] & ~_SIGN)
    record(m, Rc)


@meaning("fmrgew")
def fmrgew(m: Machine, FRT: Value, FRA: Value, FRB: Value) -> None:
    m.fpr[FRT] = m.concat(m.fpr[FRA].extract(32, 32), m.fpr[FRB].extract(32, 32))


@meaning("fmrgow")
def fmrgow(m: Machine, FRT: Value, FRA: Value, FRB: Value) -> None:
    m.fpr[FRT] = m.concat(m.fpr[FRA].trunc(32), m.fpr[FRB].trunc(32))


# Pairs: an even register and the one behind it, as a quadword. The book calls an odd register invalid.


def _load_pair(m: Machine, FRTP: Value, ea: Value) -> None:
    pair = m.load(ea, 16)
    m.fpr[FRTP] = pair.extract(64, 64)
    m.fpr[FRTP | 1] = pair.trunc(64)


def _store_pair(m: Machine, FRSP: Value, ea: Value) -> None:
    m.store(ea, m.concat(m.fpr[FRSP], m.fpr[FRSP | 1]))


@meaning("lfdp")
def lfdp(m: Machine, FRTP: Value, RA: Value, DS: Value) -> None:
    _load_pair(m, FRTP, m.base(RA) + DS)


@meaning("lfdpx")
def lfdpx(m: Machine, FRTP: Value, RA: Value, RB: Value) -> None:
    _load_pair(m, FRTP, m.base(RA) + m.gpr[RB])


@meaning("stfdp")
def stfdp(m: Machine, FRSP: Value, RA: Value, DS: Value) -> None:
    _store_pair(m, FRSP, m.base(RA) + DS)


@meaning("stfdpx")
def stfdpx(m: Machine, FRSP: Value, RA: Value, RB: Value) -> None:
    _store_pair(m, FRSP, m.base(RA) + m.gpr[RB])
