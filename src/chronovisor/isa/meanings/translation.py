"""Lookaside buffers and messages between threads.

Only radix trees are implemented. There is no segment lookaside buffer, so the instructions that read one back
are illegal here. Every invalidation forgets all translations, which is more than the book asks for.
"""

from __future__ import annotations

from chronovisor.isa.bits import LPCR, MSR, ProgramCause
from chronovisor.isa.forms import X
from chronovisor.isa.instruction import section
from chronovisor.isa.notation import Machine
from chronovisor.isa.registers import Privilege

message = section("Book III 10.4")
lookaside = section("Book III 5.9.3")


def _translation_management(m: Machine) -> None:
    """The guest may manage the translation lookaside buffer itself if LPCR[GTSE] is set."""
    m.privileged()
    with m.when((m["MSR"] & int(MSR.HV)).eq(0) & (m["LPCR"] & int(LPCR.GTSE)).eq(0)):
        m.interrupt("PROGRAM", int(ProgramCause.PRIVILEGED))


@lookaside("tlbie RB,RS,RIC,PRS,R", X, 31, 306)
def tlbie(m: Machine) -> None:
    _translation_management(m)
    m.forget_translations("all")


@lookaside("tlbiel RB,RS,RIC,PRS,R", X, 31, 274)
def tlbiel(m: Machine) -> None:
    _translation_management(m)
    m.forget_translations("own")


@lookaside("tlbsync", X, 31, 566)
def tlbsync(m: Machine) -> None:
    _translation_management(m)


@lookaside("slbia IH", X, 31, 498)
def slbia(m: Machine) -> None:
    m.privileged()


@lookaside("slbie RB", X, 31, 434)
def slbie(m: Machine) -> None:
    m.privileged()


@lookaside("slbieg RS,RB", X, 31, 466)
def slbieg(m: Machine) -> None:
    m.privileged()


@lookaside("slbiag RS", X, 31, 850)
def slbiag(m: Machine) -> None:
    m.privileged()


@lookaside("slbsync", X, 31, 338)
def slbsync(m: Machine) -> None:
    m.privileged()


@lookaside("slbmte RS,RB", X, 31, 402)
def slbmte(m: Machine) -> None:
    _not_yet(m, Privilege.PRIVILEGED)


@lookaside("slbmfee RT,RB", X, 31, 915)
def slbmfee(m: Machine) -> None:
    _not_yet(m, Privilege.PRIVILEGED)


@lookaside("slbmfev RT,RB", X, 31, 851)
def slbmfev(m: Machine) -> None:
    _not_yet(m, Privilege.PRIVILEGED)


@lookaside("slbfee. RT,RB", X, 31, 979, Rc=1)
def slbfee(m: Machine) -> None:
    _not_yet(m, Privilege.PRIVILEGED)


@message("msgsnd RB", X, 31, 206)
def msgsnd(m: Machine) -> None:
    _not_yet(m, Privilege.HYPERVISOR)


@message("msgclr RB", X, 31, 238)
def msgclr(m: Machine) -> None:
    _not_yet(m, Privilege.HYPERVISOR)


@message("msgsync", X, 31, 886)
def msgsync(m: Machine) -> None:
    m.privileged(Privilege.HYPERVISOR)


@message("msgsndp RB", X, 31, 142)
def msgsndp(m: Machine) -> None:
    # As KVM does it for a guest with one thread a core: the facility is off, so the instruction is illegal.
    _not_yet(m, Privilege.PRIVILEGED)


@message("msgclrp RB", X, 31, 174)
def msgclrp(m: Machine) -> None:
    _not_yet(m, Privilege.PRIVILEGED)


def _not_yet(m: Machine, needed: Privilege) -> None:
    """Check the privilege, then end as an instruction that does not exist."""
    m.privileged(needed)
    m.illegal()
