"""Which handlers are compiled together, and when.

For each machine mode there are two sets that every guest waits for or soon gets: the *everyday* handlers,
of what compilers emit and kernels execute all the time, then the *pairs*. Most others are the *seldom* used,
which are loaded together if they were compiled ahead. If they were not, and for all the rest, a handler is a
set of its own, compiled when a guest first comes to its instruction.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod

import chronovisor.isa.meanings  # noqa: F401 - declares the instructions
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.native.pairs import Key, Pair, pairs
from chronovisor.isa.forms import FIELDS
from chronovisor.isa.instruction import INSTRUCTIONS, Instruction
from chronovisor.isa.registers import SPR_READ, SPR_WRITE

_EVERYDAY_TEXT = """
    add addi addis addic addic. addc adde addze addme addpcis subf subfic subfc subfe subfze subfme neg
    mulld mullw mulli mulhd mulhdu mulhw mulhwu divd divdu divw divwu modsd modud modsw moduw maddld
    and andc andi. andis. or orc ori oris xor xori xoris nor nand eqv extsb extsh extsw
    cntlzd cntlzw cnttzd cnttzw popcntb popcntd popcntw cmpb
    rldicl rldicr rldic rldimi rldcl rldcr rlwinm rlwimi rlwnm sld srd srad sradi slw srw sraw srawi extswsli
    cmp cmpi cmpl cmpli isel setb
    b bc bclr bcctr mcrf cror crand crxor crnor crandc creqv crorc crnand mtcrf mtocrf mfcr mfocrf
    lbz lbzu lbzx lbzux lhz lhzu lhzx lhzux lha lhau lhax lhaux lwz lwzu lwzx lwzux lwa lwax lwaux
    ld ldu ldx ldux lhbrx lwbrx ldbrx lmw
    stb stbu stbx stbux sth sthu sthx sthux stw stwu stwx stwux std stdu stdx stdux sthbrx stwbrx stdbrx stmw
    lbarx lharx lwarx ldarx stbcx. sthcx. stwcx. stdcx.
    sync isync eieio dcbz dcbt dcbtst dcbst dcbf icbi
    mfspr mtspr mftb mfmsr mtmsr mtmsrd sc rfid scv rfscv tw twi td tdi tlbie tlbiel tlbsync
    lfd stfd lvx stvx lvsl lvsr vperm vor vxor lxvd2x stxvd2x lxvx stxvx lxv stxv xxlor xxlxor mtvsrd mfvsrd
"""
EVERYDAY = frozenset(_EVERYDAY_TEXT.split())
"""What gcc emits for Linux and its programs, and what a kernel executes all the time."""

#: The values of static fields in everyday instructions; of a field that is not here, all.
_EVERYDAY_STATICS: dict[str, tuple[int, ...]] = {
    "OE": (0,),
    "AA": (0,),
    "BO": (0, 2, 4, 8, 10, 12, 16, 18, 20),
    "FXM": (0xFF, *(1 << n for n in range(8))),
    "LEV": (0, 1),
    "RIC": (0, 1, 2),
    "PRS": (1,),
    "R": (1,),
    "TO": (4, 24, 31),
    "RT": (30, 31),  # of lmw
    "RS": (30, 31),  # of stmw
    "TBR": (268, 269),
}
_EVERYDAY_REGISTERS_TEXT = """
    LR CTR XER TB DEC SRR0 SRR1 SPRG0 SPRG1 SPRG2 SPRG3 SPRG3_U DAR DSISR PVR PIR PPR CFAR PIDR AMR IAMR
    TAR VRSAVE EBBHR EBBRR BESCR DSCR FSCR
    HFSCR HSPRG0 LPCR TIDR CTRL UAMOR PCR AMOR MMCR0 MMCR1 MMCR2 MMCRA MMCRC
"""
_EVERYDAY_REGISTERS = frozenset(_EVERYDAY_REGISTERS_TEXT.split())


@dataclass(frozen=True)
class HandlerSet:
    """Handlers that are compiled together for a machine mode. ``name`` tells which set it is."""

    name: str
    mode: Mode
    keys: tuple[Key, ...] = ()
    pairs: tuple[Pair, ...] = ()

    @property
    def file_name(self) -> str:
        """The name under which its code is kept."""
        return f"{self.name}-{mode_name(self.mode)}"


def mode_name(mode: Mode) -> str:
    """How a machine mode is called in names of files."""
    return f"{'64' if mode[0] else '32'}{'le' if mode[1] else 'be'}"


def stencils_name(mode: Mode) -> str:
    """The name under which the stencils of a mode are kept."""
    return f"stencils-{mode_name(mode)}"


@cache
def numbers() -> dict[Instruction, int]:
    """Each instruction's number, by which compiled code and other processes name it."""
    return {instruction: number for number, instruction in enumerate(INSTRUCTIONS)}


def symbol(key: Key) -> str:
    """The name of a handler in compiled code."""
    instruction, values = key
    return "_".join(("i", str(numbers()[instruction]), *map(str, values)))


def _registers(instruction: Instruction) -> dict[int, str]:
    table = SPR_WRITE if instruction.mnemonic.startswith("mt") else SPR_READ
    return {number: register.name for number, register in table.items()}


def _everyday(instruction: Instruction) -> Iterator[tuple[int, ...]]:
    def values(name: str) -> Sequence[int]:
        if name == "SPR":
            return [n for n, r in _registers(instruction).items() if r in _EVERYDAY_REGISTERS]
        return _EVERYDAY_STATICS.get(name) or range(1 << FIELDS[name].width)

    return itertools.product(*map(values, instruction.statics))


@cache
def everyday_keys() -> tuple[Key, ...]:
    """The handlers that every guest waits for."""
    return tuple((i, values) for i in INSTRUCTIONS if i.mnemonic in EVERYDAY for values in _everyday(i))


#: The most handlers that one instruction has among the seldom used, but for those with an SPR each.
_FEW = 4


@cache
def seldom_keys() -> dict[Key, None]:
    """The handlers of instructions with few static fields, and of all SPRs, that are not everyday ones."""
    found: dict[Key, None] = {}
    for one in INSTRUCTIONS:
        values = [list(_registers(one)) if n == "SPR" else range(1 << FIELDS[n].width) for n in one.statics]
        if "SPR" in one.statics or prod(map(len, values)) <= _FEW:
            found |= dict.fromkeys((one, chosen) for chosen in itertools.product(*values))
    everyday = set(everyday_keys())
    return {key: None for key in found if key not in everyday}


def seldom(mode: Mode) -> HandlerSet:
    """The set of the seldom used handlers."""
    return HandlerSet("seldom", mode, tuple(seldom_keys()))


def everyday(mode: Mode) -> HandlerSet:
    """The set that a guest in this mode waits for."""
    return HandlerSet("everyday", mode, everyday_keys())


def paired(mode: Mode) -> HandlerSet:
    """The set of all pairs."""
    return HandlerSet("pairs", mode, (), pairs())


def single(key: Key, mode: Mode) -> HandlerSet:
    """The set of one handler."""
    return HandlerSet(symbol(key), mode, (key,))


def several(keys: Sequence[Key], mode: Mode) -> HandlerSet:
    """A set of any handlers."""
    digest = hashlib.sha256(" ".join(map(symbol, keys)).encode()).hexdigest()[:16]
    return HandlerSet(f"several-{digest}", mode, tuple(keys))
