"""Facilities without meanings yet: floating-point, vector, vector-scalar, transactional memory.

Their instructions end in the facility's unavailable interrupt while MSR keeps the facility off (Power
ISA 3.0B Book I 4.1, 6.1, 7.1; Book III 5.3), and else as instructions that are not there.
"""

from __future__ import annotations

from collections.abc import Callable

from chronovisor.isa.bits import FSCR, MSR
from chronovisor.isa.forms import DS, D, X
from chronovisor.isa.instruction import family
from chronovisor.isa.notation import Machine


def _needs(m: Machine, bit: MSR, interrupt: str) -> None:
    with m.when((m["MSR"] & int(bit)).eq(0)):
        m.interrupt(interrupt)
    m.illegal()


def floating_point(m: Machine) -> None:
    """An instruction that needs MSR[FP]."""
    _needs(m, MSR.FP, "FP_UNAVAILABLE")


def vector(m: Machine) -> None:
    """An instruction that needs MSR[VEC]."""
    _needs(m, MSR.VEC, "VECTOR_UNAVAILABLE")


def vector_scalar(m: Machine) -> None:
    """An instruction that needs MSR[VSX]."""
    _needs(m, MSR.VSX, "VSX_UNAVAILABLE")


def vector_scalar_or_vector(m: Machine, TX: int) -> None:
    """It needs MSR[VSX] for registers 0 to 31 and MSR[VEC] for the upper half, which are the vector ones."""
    (vector if TX else vector_scalar)(m)


def floating_point_or_vector(m: Machine, TX: int) -> None:
    """It needs MSR[FP] for registers 0 to 31, the floating-point ones, and MSR[VEC] for the upper half."""
    (vector if TX else floating_point)(m)


def transactional(m: Machine) -> None:
    """An instruction that needs MSR[TM], in any state."""
    with m.when((m["MSR"] & int(MSR.TM)).eq(0)):
        m.facility_unavailable(FSCR.TM)
    m.illegal()


_LFS, _STFDU = 48, 55
for _opcode in range(_LFS, _STFDU + 1):
    family(f"fp{_opcode}", D, _opcode)(floating_point)
family("fp59", D, 59)(floating_point)
family("fp63", D, 63)(floating_point)
family("vmx", D, 4)(vector)
family("vsx", D, 60)(vector_scalar)

family("lfdp", DS, 57, 0)(floating_point)
family("lxsd", DS, 57, 2)(vector)
family("lxssp", DS, 57, 3)(vector)


@family("stores61", D, 61)
def stores61(m: Machine, XO3: int, TX6: int) -> None:
    if XO3 in (0b001, 0b101):  # lxv, stxv
        vector_scalar_or_vector(m, TX6)
    elif XO3 & 0b11 == 0b00:  # stfdp
        floating_point(m)
    else:  # stxsd, stxssp
        vector(m)


#: Extended opcodes under 31, by what they need.
_INDEXED: dict[Callable[..., None], tuple[int, ...]] = {
    # lfsx lfsux lfdx lfdux stfsx stfsux stfdx stfdux lfdpx lfiwax lfiwzx stfdpx stfiwx
    floating_point: (535, 567, 599, 631, 663, 695, 727, 759, 791, 855, 887, 919, 983),
    # lvsl lvebx lvsr lvehx lvewx lvx stvebx stvehx stvewx stvx lvxl stvxl
    vector: (6, 7, 38, 39, 71, 103, 135, 167, 199, 231, 359, 487),
    # lxsiwzx lxsiwax stxsiwx lxvdsx lxsspx lxsdx stxsspx stxsdx lxvw4x lxvd2x stxvw4x stxvd2x
    vector_scalar: (12, 76, 140, 332, 524, 588, 652, 716, 780, 844, 908, 972),
    # lxvx lxvl lxvll mfvsrld lxvwsx stxvx stxvl mtvsrws stxvll mtvsrdd lxsibzx lxvh8x lxsihzx lxvb16x
    # stxsibx stxvh8x stxsihx stxvb16x
    vector_scalar_or_vector: (
        *(268, 269, 300, 301, 307, 364, 396, 397, 403, 428, 429, 435),
        *(781, 812, 813, 876, 909, 940, 941, 1004),
    ),
    # mfvsrd mfvsrwz mtvsrd mtvsrwa mtvsrwz
    floating_point_or_vector: (51, 115, 179, 211, 243),
    # tbegin. tend. tcheck tsr. tabortwc. tabortdc. tabortwci. tabortdci. tabort. treclaim. trechkpt.
    transactional: (654, 686, 718, 750, 782, 814, 846, 878, 910, 942, 1006),
}
for _needed, _extended in _INDEXED.items():
    for _number in _extended:
        family(f"{_needed.__name__}{_number}", X, 31, _number)(_needed)
