"""Moves from and to special purpose registers and time."""

from __future__ import annotations

from chronovisor.isa.bits import MSR
from chronovisor.isa.forms import XFX
from chronovisor.isa.instruction import section
from chronovisor.isa.notation import Machine
from chronovisor.isa.registers import (
    REGISTERS,
    RESERVED_SPRS,
    SPR_READ,
    SPR_WRITE,
    TRANSLATION_CONTEXT,
    Privilege,
    Register,
)
from chronovisor.isa.values import Value

time = section("Book II 6.1")
move = section("Book III 4.4.4")


def _reach(m: Machine, register: Register, needed: Privilege) -> None:
    if needed is not Privilege.PROBLEM:
        m.privileged(needed)
    if register.facility is not None:
        m.facility(register.facility)


def _undefined(m: Machine, SPR: int, reserved: tuple[int, ...]) -> None:
    """A number that names no register: an interrupt in problem state, else nothing happens.

    That is so with LPCR[EVIRT] = 0. The ``reserved`` numbers are illegal instructions in any state;
    bit 0x10 says that a number is privileged.
    """
    if SPR in RESERVED_SPRS:
        return
    if SPR & 0x10:
        m.privileged()
    elif SPR in reserved:
        m.illegal()
    else:
        with m.when((m["MSR"] & int(MSR.PR)).ne(0)):
            m.illegal()


@move("mfspr RT,SPR", XFX, 31, 339)
def mfspr(m: Machine, RT: Value, SPR: int) -> None:
    register = SPR_READ.get(SPR)
    if register is None:
        _undefined(m, SPR, (0, 4, 5, 6))
        return
    _reach(m, register, register.read)
    m.gpr[RT] = m.register(register)


_TIMEBASES = ("TB", "TBU")


@time("mftb RT,TBR", XFX, 31, 371)
def mftb(m: Machine, RT: Value, TBR: int) -> None:
    register = SPR_READ.get(TBR)
    if register is None or register.name not in _TIMEBASES:
        m.illegal()
        return
    m.gpr[RT] = m.register(register)


#: Registers of which the hypervisor may keep bits from its guests (Book III 5.7.9).
_MASKED = ("AMR", "IAMR", "UAMOR")


def _changeable(m: Machine, register: Register) -> Value | None:
    """Ones in the bits that the thread's state lets a move change; None: all bits."""
    name = register.alias_of or register.name
    if name not in _MASKED:
        return None
    msr = m["MSR"]
    mask = m.select((msr & int(MSR.HV)).ne(0), (1 << 64) - 1, m["AMOR"])
    if register.write is Privilege.PROBLEM:
        mask = m.select((msr & int(MSR.PR)).ne(0), m["UAMOR"], mask)
    return mask


@move("mtspr SPR,RS", XFX, 31, 467)
def mtspr(m: Machine, SPR: int, RS: Value) -> None:
    register = SPR_WRITE.get(SPR)
    if register is None:
        _undefined(m, SPR, (0,))
        return
    _reach(m, register, register.write)
    m.set_register(register, m.gpr[RS], _changeable(m, register))
    name = register.alias_of or register.name
    if name in TRANSLATION_CONTEXT:
        m.new_context(name)
    if REGISTERS[name].live or name == "LPCR":
        m.resync()
