"""Lookaside buffers and messages between threads.

Only radix trees are implemented. There is no segment lookaside buffer, so the instructions that read one back
are illegal here. An invalidation may forget more than the book asks for.
"""

from __future__ import annotations

from chronovisor.isa.bits import LPCR, MSR, ProgramCause
from chronovisor.isa.forms import X
from chronovisor.isa.instruction import section
from chronovisor.isa.notation import Machine
from chronovisor.isa.registers import Privilege
from chronovisor.isa.values import Value

message = section("Book III 10.4")
lookaside = section("Book III 5.9.3")


def _translation_management(m: Machine) -> None:
    """The guest may manage the translation lookaside buffer itself if LPCR[GTSE] is set."""
    m.privileged()
    with m.when((m["MSR"] & int(MSR.HV)).eq(0) & (m["LPCR"] & int(LPCR.GTSE)).eq(0)):
        m.interrupt("PROGRAM", int(ProgramCause.PRIVILEGED))


_EVERYTHING = (1 << 64) - 1
_PAGE_SHIFT = 12
_SELECTOR_SHIFT, _SELECTOR_PAGE = 10, 0
"""RB's IS field, and its value for an invalidation of one page."""
_ACTUAL_PAGE_SHIFT = 5
_PAGE_SIZES = {0: 12, 5: 16, 1: 21, 2: 30}
"""log2 of a page's size by RB's AP field."""
_ONE_LEVEL = 0
"""RIC of an invalidation of translations alone. Others invalidate what tables were read, too."""


def _invalidate(m: Machine, whose: str, RB: Value, RS: Value, RIC: int, PRS: int, R: int) -> None:
    """Forget at least what an invalidation names: one page, a process's pages, or everything."""
    _translation_management(m)
    selects, names = m.gpr[RB], m.gpr[RS]
    whole = m.value(_EVERYTHING >> _PAGE_SHIFT)
    if not R or not PRS:
        m.forget_translations(whose, m.value(_EVERYTHING), m.value(0), whole)
        return
    one_page = ((selects >> _SELECTOR_SHIFT) & 3).eq(_SELECTOR_PAGE)
    process = m.select(((selects >> _SELECTOR_SHIFT) & 2).eq(0), names >> 32, _EVERYTHING)
    if RIC != _ONE_LEVEL:
        m.forget_translations(whose, process, m.value(0), whole)
        return
    actual, pages = (selects >> _ACTUAL_PAGE_SHIFT) & 7, whole + 1
    for size, shift in _PAGE_SIZES.items():
        pages = m.select(actual.eq(size), 1 << (shift - _PAGE_SHIFT), pages)
    first = (selects >> _PAGE_SHIFT) & ~(pages - 1)
    m.forget_translations(
        whose, process, m.select(one_page, first, 0), m.select(one_page, first + pages - 1, whole)
    )


@lookaside("tlbie RB,RS,RIC,PRS,R", X, 31, 306)
def tlbie(m: Machine, RB: Value, RS: Value, RIC: int, PRS: int, R: int) -> None:
    _invalidate(m, "all", RB, RS, RIC, PRS, R)


@lookaside("tlbiel RB,RS,RIC,PRS,R", X, 31, 274)
def tlbiel(m: Machine, RB: Value, RS: Value, RIC: int, PRS: int, R: int) -> None:
    _invalidate(m, "own", RB, RS, RIC, PRS, R)


@lookaside("tlbsync", X, 31, 566)
def tlbsync(m: Machine) -> None:
    _translation_management(m)
    m.await_invalidations()


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
