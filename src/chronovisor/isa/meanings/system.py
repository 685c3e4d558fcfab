"""System calls, returns from interrupts, the machine state register."""

from __future__ import annotations

from chronovisor.isa.bits import FSCR, MSR, MSR_BITS
from chronovisor.isa.forms import SC, XL, X
from chronovisor.isa.instruction import section
from chronovisor.isa.interrupts import HYPERCALL, SRR1_CAUSE, entered, relocated
from chronovisor.isa.meanings.floating_point_exceptions import interrupt_if_let_in
from chronovisor.isa.notation import Machine
from chronovisor.isa.registers import Privilege
from chronovisor.isa.values import Value

linkage = section("Book III 3.3.1")
move = section("Book III 4.4.4")
power_saving = section("Book III 3.3.2")
waiting = section("Book II 4.6.4")
random = section("Book I 3.3.9")


@linkage("sc LEV", SC, 17, 1)
def sc(m: Machine, LEV: int) -> None:
    # All but LEV's last bit are reserved.
    m.interrupt(HYPERCALL if LEV & 1 else "SYSTEM_CALL")


_SCV_VECTOR, _SCV_RELOCATED = 0x17000, 0xC000_0000_0000_3000


@linkage("scv LEV", SC, 17, 0, LK=1)
def scv(m: Machine, LEV: int) -> None:
    with m.when((m["FSCR"] & int(FSCR.SCV)).eq(0)):
        m.facility_unavailable(FSCR.SCV)
    msr = m["MSR"]
    m["LR"] = m["CIA"] + 4
    m["CTR"] = msr & ~SRR1_CAUSE
    elsewhere = relocated(m)
    new = entered(m, MSR.HV | MSR.ME | MSR.EE | MSR.RI)
    m["NIA"] = m.select(elsewhere, _SCV_RELOCATED, _SCV_VECTOR) + LEV * 0x20
    m["MSR"] = m.select(elsewhere, new | int(MSR.IR | MSR.DR), new)
    m.resync()


def _with_problem_state(m: Machine, msr: Value) -> Value:
    """In problem state, external interrupts and translation are always on."""
    forced = int(MSR.EE | MSR.IR | MSR.DR)
    return m.select((msr & int(MSR.PR)).ne(0), msr | forced, msr)


def _go_on(m: Machine, target: Value, msr: Value) -> None:
    """Continue at ``target`` in the state ``msr``, which says how wide an address is."""
    m["MSR"] = msr
    sixty_four = (msr & int(MSR.SF)).ne(0)
    m["NIA"] = m.select(sixty_four, target, target & 0xFFFFFFFF)
    interrupt_if_let_in(m, msr)
    m.resync()


def _return(m: Machine, target: Value, saved: Value, hypervisor: bool) -> None:
    """Return from an interrupt: HV can be left but not entered, and ME changes in hypervisor state only."""
    msr = m["MSR"]
    saved = saved & MSR_BITS
    in_hypervisor = (msr & int(MSR.HV)).ne(0)
    if hypervisor:
        new = saved
    else:
        guest = (saved & ~int(MSR.HV | MSR.ME)) | (msr & int(MSR.ME))
        new = m.select(in_hypervisor, saved, guest)
    _go_on(m, target & ~3, _with_problem_state(m, new))


@linkage("rfid", XL, 19, 18)
def rfid(m: Machine) -> None:
    m.privileged()
    _return(m, m["SRR0"], m["SRR1"], hypervisor=False)


@linkage("hrfid", XL, 19, 274)
def hrfid(m: Machine) -> None:
    m.privileged(Privilege.HYPERVISOR)
    _return(m, m["HSRR0"], m["HSRR1"], hypervisor=True)


@linkage("rfscv", XL, 19, 82)
def rfscv(m: Machine) -> None:
    m.privileged()
    _return(m, m["LR"], m["CTR"], hypervisor=False)


@move("mfmsr RT", X, 31, 83)
def mfmsr(m: Machine, RT: Value) -> None:
    m.privileged()
    m.gpr[RT] = m["MSR"]


_BY_RETURNS_ALONE = int(MSR.HV | MSR.ME | MSR.LE | MSR.TS)


def _set_interruptible(m: Machine, RS: Value) -> None:
    """The L=1 form: only EE and RI change. A pending interrupt may come at once."""
    some = int(MSR.EE | MSR.RI)
    source = m.gpr[RS]
    m["MSR"] = (m["MSR"] & ~some) | (source & some)
    with m.when((source & int(MSR.EE)).ne(0)):
        m.resync()


@move("mtmsrd RS,L1", X, 31, 178)
def mtmsrd(m: Machine, RS: Value, L1: int) -> None:
    m.privileged()
    if L1:
        _set_interruptible(m, RS)
        return
    changed = MSR_BITS & ~_BY_RETURNS_ALONE
    new = (m["MSR"] & ~changed) | (m.gpr[RS] & changed)
    _go_on(m, m["CIA"] + 4, _with_problem_state(m, new))


@move("mtmsr RS,L1", X, 31, 146)
def mtmsr(m: Machine, RS: Value, L1: int) -> None:
    m.privileged()
    if L1:
        _set_interruptible(m, RS)
        return
    changed = MSR_BITS & ~_BY_RETURNS_ALONE & 0xFFFFFFFF
    new = (m["MSR"] & ~changed) | (m.gpr[RS] & changed)
    _go_on(m, m["CIA"] + 4, _with_problem_state(m, new))


@power_saving("stop", XL, 19, 370)
def stop(m: Machine) -> None:
    # Hypervisor state sees a wake-up at once.
    m.privileged(Privilege.HYPERVISOR)
    m.resync()


@waiting("wait WC", X, 31, 30)
def wait(m: Machine) -> None:
    """A hint that may end at any time, so it ends at once (Book II 4.6.4)."""


_RANDOM_32, _RANDOM_64, _RANDOM_RAW = 0, 1, 2


@random("darn RT,L14", X, 31, 755)
def darn(m: Machine, RT: Value, L14: int) -> None:
    if L14 == _RANDOM_32:
        m.gpr[RT] = m.random() & 0xFFFFFFFF
    elif L14 in (_RANDOM_64, _RANDOM_RAW):
        m.gpr[RT] = m.random()
    else:
        m.gpr[RT] = (1 << 64) - 1  # the error value
