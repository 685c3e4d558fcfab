"""Caches and the order of storage accesses."""

from __future__ import annotations

from chronovisor.isa.forms import XL, X
from chronovisor.isa.instruction import reserved, section
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

instruction_cache = section("Book II 4.3.1")
data_cache = section("Book II 4.3.2")
synchronize = section("Book II 4.6.1")
barrier = section("Book II 4.6.3")
copy_paste = section("Book II 4.4")

_LWSYNC, _PTESYNC = 1, 2


@data_cache("dcbt RA,RB,TH", X, 31, 278)
def dcbt(m: Machine) -> None:
    """A hint. No interrupt follows from it."""


@data_cache("dcbtst RA,RB,TH", X, 31, 246)
def dcbtst(m: Machine) -> None:
    """A hint. No interrupt follows from it."""


@instruction_cache("icbt CT,RA,RB", X, 31, 22)
def icbt(m: Machine) -> None:
    """A hint. No interrupt follows from it."""


@data_cache("dcbst RA,RB", X, 31, 54)
def dcbst(m: Machine, RA: Value, RB: Value) -> None:
    m.probe(m.base(RA) + m.gpr[RB], "load")


@data_cache("dcbf RA,RB,L2", X, 31, 86)
def dcbf(m: Machine, RA: Value, RB: Value) -> None:
    m.probe(m.base(RA) + m.gpr[RB], "load")


@data_cache("dcbz RA,RB", X, 31, 1014)
def dcbz(m: Machine, RA: Value, RB: Value) -> None:
    m.zero_block(m.base(RA) + m.gpr[RB])


@instruction_cache("icbi RA,RB", X, 31, 982)
def icbi(m: Machine, RA: Value, RB: Value) -> None:
    ea = m.base(RA) + m.gpr[RB]
    m.probe(ea, "load")
    m.invalidate_code(ea)


@barrier("sync L2", X, 31, 598)
def sync(m: Machine, L2: int) -> None:
    if L2 == _PTESYNC:
        m.privileged()
    m.barrier("light" if L2 == _LWSYNC else "full")


@barrier("eieio", X, 31, 854)
def eieio(m: Machine) -> None:
    m.barrier("light")


@synchronize("isync", XL, 19, 150)
def isync(m: Machine) -> None:
    # Only icbi makes the thread fetch instructions anew, and it forgets the old ones at once.
    m.barrier("light")


@copy_paste("cpabort", X, 31, 838)
def cpabort(m: Machine) -> None:
    """No copy is ever in progress: copy and paste are not implemented."""


# Data streams of earlier processors. The book has given up these hints; Linux still executes dssall.


@data_cache("dst RA,RB,STRM", X, 31, 342, A6=0)
@data_cache("dstt RA,RB,STRM", X, 31, 342, A6=1)
@data_cache("dstst RA,RB,STRM", X, 31, 374, A6=0)
@data_cache("dststt RA,RB,STRM", X, 31, 374, A6=1)
@data_cache("dss STRM", X, 31, 822, A6=0)
@data_cache("dssall", X, 31, 822, A6=1)
def data_stream(m: Machine) -> None:
    """A hint. No interrupt follows from it."""


def reserved_nop(m: Machine) -> None:
    """Opcodes kept for later hints, which do nothing until then (Book I, Reserved Instructions)."""


for _number in (530, 562, 594, 626, 658, 690, 722, 754):
    reserved(f"reserved_nop{_number}", X, 31, _number)(reserved_nop)
