"""Which facility an instruction needs (Power ISA 3.0B Book III 3.2.1, 6.5.10, 6.5.22 to 6.5.24).

Each function stands in for a meaning: it ends the instruction in the facility's unavailable interrupt if MSR
has the facility off, and in an illegal-instruction interrupt otherwise.
"""

from __future__ import annotations

from chronovisor.isa.bits import FSCR, MSR
from chronovisor.isa.notation import Machine


def _needs(m: Machine, bit: MSR, interrupt: str) -> None:
    with m.when((m["MSR"] & int(bit)).eq(0)):
        m.interrupt(interrupt)
    m.illegal()


def floating_point(m: Machine) -> None:
    """The instruction needs MSR[FP]."""
    _needs(m, MSR.FP, "FP_UNAVAILABLE")


def vector(m: Machine) -> None:
    """The instruction needs MSR[VEC]."""
    _needs(m, MSR.VEC, "VECTOR_UNAVAILABLE")


def vector_scalar(m: Machine) -> None:
    """The instruction needs MSR[VSX]."""
    _needs(m, MSR.VSX, "VSX_UNAVAILABLE")


def vector_scalar_or_vector(m: Machine, TX: int) -> None:
    """The instruction needs MSR[VSX] for registers 0 to 31 and MSR[VEC] for the vector registers above."""
    (vector if TX else vector_scalar)(m)


def quadword_vector_scalar_or_vector(m: Machine, TX28: int) -> None:
    """Like `vector_scalar_or_vector`, for the DQ-form, which has TX in another place."""
    (vector if TX28 else vector_scalar)(m)


def floating_point_or_vector(m: Machine, TX: int) -> None:
    """The instruction needs MSR[FP] for registers 0 to 31 and MSR[VEC] for the vector registers above."""
    (vector if TX else floating_point)(m)


def transactional(m: Machine) -> None:
    """The instruction needs MSR[TM], in privileged state too."""
    with m.when((m["MSR"] & int(MSR.TM)).eq(0)):
        m.facility_unavailable(FSCR.TM)
    m.illegal()
