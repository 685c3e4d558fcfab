"""Caches and the order of storage accesses (Power ISA 3.0B Book II 4.3, 4.6)."""

from __future__ import annotations

from chronovisor.isa.forms import XL, X
from chronovisor.isa.instruction import instruction, reserved
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

_LWSYNC, _PTESYNC = 1, 2


@instruction("dcbt RA,RB,TH", X, 31, 278)
def dcbt(m: Machine) -> None:
    """A hint, which no interrupt follows from."""


@instruction("dcbtst RA,RB,TH", X, 31, 246)
def dcbtst(m: Machine) -> None:
    """A hint, which no interrupt follows from."""


@instruction("icbt CT,RA,RB", X, 31, 22)
def icbt(m: Machine) -> None:
    """A hint, which no interrupt follows from."""


@instruction("dcbst RA,RB", X, 31, 54)
def dcbst(m: Machine, RA: Value, RB: Value) -> None:
    m.probe(m.base(RA) + m.gpr[RB], "load")


@instruction("dcbf RA,RB,L2", X, 31, 86)
def dcbf(m: Machine, RA: Value, RB: Value) -> None:
    m.probe(m.base(RA) + m.gpr[RB], "load")


@instruction("dcbz RA,RB", X, 31, 1014)
def dcbz(m: Machine, RA: Value, RB: Value) -> None:
    m.zero_block(m.base(RA) + m.gpr[RB])


@instruction("icbi RA,RB", X, 31, 982)
def icbi(m: Machine, RA: Value, RB: Value) -> None:
    ea = m.base(RA) + m.gpr[RB]
    m.probe(ea, "load")
    m.invalidate_code(ea)


@instruction("sync L2", X, 31, 598)
def sync(m: Machine, L2: int) -> None:
    if L2 == _PTESYNC:
        m.privileged()
    m.barrier("light" if L2 == _LWSYNC else "full")


@instruction("eieio", X, 31, 854)
def eieio(m: Machine) -> None:
    m.barrier("light")


@instruction("isync", XL, 19, 150)
def isync(m: Machine) -> None:
    # Instructions are fetched anew after icbi alone, which forgets them at once.
    m.barrier("light")


@instruction("cpabort", X, 31, 838)
def cpabort(m: Machine) -> None:
    """No copy is ever in progress: copy and paste are not there."""


# Data streams of earlier processors. The book has given up these hints; Linux still executes dssall.


@instruction("dst RA,RB,STRM", X, 31, 342, A6=0)
@instruction("dstt RA,RB,STRM", X, 31, 342, A6=1)
@instruction("dstst RA,RB,STRM", X, 31, 374, A6=0)
@instruction("dststt RA,RB,STRM", X, 31, 374, A6=1)
@instruction("dss STRM", X, 31, 822, A6=0)
@instruction("dssall", X, 31, 822, A6=1)
def data_stream(m: Machine) -> None:
    """A hint. No interrupt follows from it."""


def reserved_nop(m: Machine) -> None:
    """Opcodes kept for later hints, which do nothing until then (Book I, Reserved Instructions)."""


for _number in (530, 562, 594, 626, 658, 690, 722, 754):
    reserved(f"reserved_nop{_number}", X, 31, _number)(reserved_nop)
