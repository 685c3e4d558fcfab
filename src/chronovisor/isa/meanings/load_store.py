"""Fixed-point loads and stores of one register."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chronovisor.isa.forms import DS, D, Form, X
from chronovisor.isa.instruction import section
from chronovisor.isa.notation import Machine
from chronovisor.isa.registers import Privilege
from chronovisor.isa.values import Value

load = section("Book I 3.3.2")
store = section("Book I 3.3.3")
byte_reversed = section("Book I 3.3.5")
cache_inhibited = section("Book III 4.4.1")

Extend = Callable[[Value], Value]


def _zeros(value: Value) -> Value:
    return value.zext(64)


def _sign(value: Value) -> Value:
    return value.sext(64)


@dataclass(frozen=True, slots=True)
class Encodings:
    """The opcodes of one access: base + displacement, the same with update, indexed, indexed with update.

    A displacement form is (opcode, extended opcode or None); an indexed form is its extended opcode
    under opcode 31.
    """

    form: Form
    displaced: tuple[int, int | None]
    displaced_update: tuple[int, int | None] | None
    indexed: int
    indexed_update: int


def _declare_load(mnemonic: str, size: int, extend: Extend, at: Encodings) -> None:
    place = at.form.name

    def displaced(m: Machine, RT: Value, RA: Value, D: Value) -> None:
        m.gpr[RT] = extend(m.load(m.base(RA) + D, size))

    def displaced_update(m: Machine, RT: Value, RA: Value, D: Value) -> None:
        ea = m.gpr[RA] + D
        m.gpr[RT] = extend(m.load(ea, size))
        m.gpr[RA] = updated(m, ea)

    def scaled(m: Machine, RT: Value, RA: Value, DS: Value) -> None:
        displaced(m, RT, RA, DS)

    def scaled_update(m: Machine, RT: Value, RA: Value, DS: Value) -> None:
        displaced_update(m, RT, RA, DS)

    def indexed(m: Machine, RT: Value, RA: Value, RB: Value) -> None:
        m.gpr[RT] = extend(m.load(m.base(RA) + m.gpr[RB], size))

    def indexed_update(m: Machine, RT: Value, RA: Value, RB: Value) -> None:
        ea = m.gpr[RA] + m.gpr[RB]
        m.gpr[RT] = extend(m.load(ea, size))
        m.gpr[RA] = updated(m, ea)

    load(f"{mnemonic} RT,{place}(RA)", at.form, *at.displaced)(scaled if at.form is DS else displaced)
    if at.displaced_update is not None:
        update = scaled_update if at.form is DS else displaced_update
        load(f"{mnemonic}u RT,{place}(RA)", at.form, *at.displaced_update)(update)
    load(f"{mnemonic}x RT,RA,RB", X, 31, at.indexed)(indexed)
    load(f"{mnemonic}ux RT,RA,RB", X, 31, at.indexed_update)(indexed_update)


def _declare_store(mnemonic: str, size: int, at: Encodings) -> None:
    place = at.form.name

    def displaced(m: Machine, RS: Value, RA: Value, D: Value) -> None:
        m.store(m.base(RA) + D, m.gpr[RS].trunc(size * 8))

    def displaced_update(m: Machine, RS: Value, RA: Value, D: Value) -> None:
        ea = m.gpr[RA] + D
        m.store(ea, m.gpr[RS].trunc(size * 8))
        m.gpr[RA] = updated(m, ea)

    def scaled(m: Machine, RS: Value, RA: Value, DS: Value) -> None:
        displaced(m, RS, RA, DS)

    def scaled_update(m: Machine, RS: Value, RA: Value, DS: Value) -> None:
        displaced_update(m, RS, RA, DS)

    def indexed(m: Machine, RS: Value, RA: Value, RB: Value) -> None:
        m.store(m.base(RA) + m.gpr[RB], m.gpr[RS].trunc(size * 8))

    def indexed_update(m: Machine, RS: Value, RA: Value, RB: Value) -> None:
        ea = m.gpr[RA] + m.gpr[RB]
        m.store(ea, m.gpr[RS].trunc(size * 8))
        m.gpr[RA] = updated(m, ea)

    store(f"{mnemonic} RS,{place}(RA)", at.form, *at.displaced)(scaled if at.form is DS else displaced)
    if at.displaced_update is not None:
        update = scaled_update if at.form is DS else displaced_update
        store(f"{mnemonic}u RS,{place}(RA)", at.form, *at.displaced_update)(update)
    store(f"{mnemonic}x RS,RA,RB", X, 31, at.indexed)(indexed)
    store(f"{mnemonic}ux RS,RA,RB", X, 31, at.indexed_update)(indexed_update)


def updated(m: Machine, ea: Value) -> Value:
    """What an update form leaves in RA: the effective address, whose upper half is 0 in 32-bit mode."""
    return ea if m.sixty_four else ea & 0xFFFFFFFF


# The book calls an update form invalid if RA is 0 or RT. Here it is executed like any other.
_declare_load("lbz", 1, _zeros, Encodings(D, (34, None), (35, None), 87, 119))
_declare_load("lhz", 2, _zeros, Encodings(D, (40, None), (41, None), 279, 311))
_declare_load("lha", 2, _sign, Encodings(D, (42, None), (43, None), 343, 375))
_declare_load("lwz", 4, _zeros, Encodings(D, (32, None), (33, None), 23, 55))
_declare_load("lwa", 4, _sign, Encodings(DS, (58, 2), None, 341, 373))
_declare_load("ld", 8, _zeros, Encodings(DS, (58, 0), (58, 1), 21, 53))

_declare_store("stb", 1, Encodings(D, (38, None), (39, None), 215, 247))
_declare_store("sth", 2, Encodings(D, (44, None), (45, None), 407, 439))
_declare_store("stw", 4, Encodings(D, (36, None), (37, None), 151, 183))
_declare_store("std", 8, Encodings(DS, (62, 0), (62, 1), 149, 181))


def _declare_reversed(suffix: str, size: int, load: int, store: int) -> None:
    @byte_reversed(f"l{suffix}brx RT,RA,RB", X, 31, load)
    def lbrx(m: Machine, RT: Value, RA: Value, RB: Value) -> None:
        m.gpr[RT] = m.load(m.base(RA) + m.gpr[RB], size).byteswap().zext(64)

    @byte_reversed(f"st{suffix}brx RS,RA,RB", X, 31, store)
    def stbrx(m: Machine, RS: Value, RA: Value, RB: Value) -> None:
        m.store(m.base(RA) + m.gpr[RB], m.gpr[RS].trunc(size * 8).byteswap())


_declare_reversed("h", 2, 790, 918)
_declare_reversed("w", 4, 534, 662)
_declare_reversed("d", 8, 532, 660)


def _declare_cache_inhibited(suffix: str, size: int, load: int, store: int) -> None:
    """Accesses that bypass the cache. Only hypervisor state can make them."""
    mnemonic = "d" if suffix == "d" else f"{suffix}z"

    @cache_inhibited(f"l{mnemonic}cix RT,RA,RB", X, 31, load)
    def lcix(m: Machine, RT: Value, RA: Value, RB: Value) -> None:
        m.privileged(Privilege.HYPERVISOR)
        m.gpr[RT] = m.load(m.base(RA) + m.gpr[RB], size).zext(64)

    @cache_inhibited(f"st{suffix}cix RS,RA,RB", X, 31, store)
    def stcix(m: Machine, RS: Value, RA: Value, RB: Value) -> None:
        m.privileged(Privilege.HYPERVISOR)
        m.store(m.base(RA) + m.gpr[RB], m.gpr[RS].trunc(size * 8))


_declare_cache_inhibited("w", 4, 789, 917)
_declare_cache_inhibited("h", 2, 821, 949)
_declare_cache_inhibited("b", 1, 853, 981)
_declare_cache_inhibited("d", 8, 885, 1013)
