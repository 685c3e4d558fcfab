"""Which facility an instruction needs (Power ISA 3.0B Book III 3.2.1, 6.5.10, 6.5.22 to 6.5.24).

Each function is the first part of an instruction's meaning: it ends the instruction in the facility's
unavailable interrupt if MSR has the facility off. Further parameters are the instruction's operands.
"""

from __future__ import annotations

from chronovisor.isa.bits import FSCR, MSR
from chronovisor.isa.notation import Machine
from chronovisor.isa.registers import VIEWS
from chronovisor.isa.values import Value


def _needs(m: Machine, bit: MSR, interrupt: str) -> None:
    with m.when((m["MSR"] & int(bit)).eq(0)):
        m.interrupt(interrupt)


def _needs_by_register(m: Machine, register: Value, bit: MSR, interrupt: str) -> None:
    """MSR[VEC] for the upper 32 vector-scalar registers, which are the vector registers; else ``bit``."""
    is_other = register.ult(VIEWS["VR"].first)
    with m.when((m["MSR"] & m.select(is_other, int(bit), int(MSR.VEC))).eq(0)):
        with m.when(is_other):
            m.interrupt(interrupt)
        m.interrupt("VECTOR_UNAVAILABLE")


def floating_point(m: Machine) -> None:
    """The instruction needs MSR[FP]."""
    _needs(m, MSR.FP, "FP_UNAVAILABLE")


def vector(m: Machine) -> None:
    """The instruction needs MSR[VEC]."""
    _needs(m, MSR.VEC, "VECTOR_UNAVAILABLE")


def vector_scalar(m: Machine) -> None:
    """The instruction needs MSR[VSX]."""
    _needs(m, MSR.VSX, "VSX_UNAVAILABLE")


def vector_scalar_or_vector(m: Machine, register: Value) -> None:
    """The instruction needs MSR[VSX] for registers 0 to 31 and MSR[VEC] for the vector registers above."""
    _needs_by_register(m, register, MSR.VSX, "VSX_UNAVAILABLE")


def floating_point_or_vector(m: Machine, register: Value) -> None:
    """The instruction needs MSR[FP] for registers 0 to 31 and MSR[VEC] for the vector registers above."""
    _needs_by_register(m, register, MSR.FP, "FP_UNAVAILABLE")


def transactional(m: Machine) -> None:
    """The instruction needs MSR[TM], in privileged state too."""
    with m.when((m["MSR"] & int(MSR.TM)).eq(0)):
        m.facility_unavailable(FSCR.TM)
