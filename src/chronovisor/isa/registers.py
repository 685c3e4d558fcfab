"""The registers, each declared once.

The states of the evaluators, the moves from and to special purpose registers, and the embedded provider's
access to registers derive from this table. Sources: Power ISA 3.0B Book III, appendix "Special Purpose
Registers", and the sections of each facility.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from enum import IntEnum

from chronovisor.isa.bits import FSCR, LPCR, MSR, XER


class Privilege(IntEnum):
    """The least privilege that an access needs."""

    PROBLEM = 0
    PRIVILEGED = 1
    HYPERVISOR = 2
    NEVER = 3


class Scope(IntEnum):
    """What has one of its own: a thread, or all threads of a (sub)core together."""

    THREAD = 0
    CORE = 1


@dataclass(frozen=True, slots=True)
class Register:
    """A register: its name in the book, its width, how software reaches it.

    ``live`` registers change by themselves (time): they are not stored with the thread but read and
    written through its environment. ``writable`` are the bits that a move to the register can change.
    ``facility`` is what problem state needs in FSCR to reach it. An alias is another number, with
    privileges of its own, for the register ``alias_of``, or for its part from bit ``alias_from`` up
    (0 is the least significant); it has no storage.
    """

    name: str
    width: int = 64
    spr: int | None = None
    spr_write: int | None = None
    read: Privilege = Privilege.NEVER
    write: Privilege = Privilege.NEVER
    live: bool = False
    scope: Scope = Scope.THREAD
    reset: int = 0
    writable: int = -1
    facility: FSCR | None = None
    alias_of: str | None = None
    alias_from: int = 0

    @property
    def mask(self) -> int:
        """Ones in every bit of the register."""
        return (1 << self.width) - 1


@dataclass(frozen=True, slots=True)
class RegisterFile:
    """Registers of one width that instructions name by a number: ``count`` of ``width`` bits each.

    Every evaluator's state has an attribute ``attribute`` with the file's values in order. People see
    a register as ``prefix`` and its number.
    """

    name: str
    attribute: str
    prefix: str
    count: int
    width: int


@dataclass(frozen=True, slots=True)
class RegisterView:
    """Another name for parts of a file's registers: register n is ``width`` bits of the file's ``first`` + n.

    The part begins ``low`` bits above the least significant one.
    """

    name: str
    file: RegisterFile
    first: int
    count: int
    low: int
    width: int

    def get(self, registers: Sequence[int], number: int) -> int:
        """Read a register of the view from the values of the file."""
        return (registers[self.first + number] >> self.low) & ((1 << self.width) - 1)

    def set(self, registers: MutableSequence[int], number: int, value: int) -> None:
        """Set a register of the view, and no other bits, in the values of the file."""
        ones = ((1 << self.width) - 1) << self.low
        registers[self.first + number] = (registers[self.first + number] & ~ones) | (
            (value << self.low) & ones
        )


_GPR = RegisterFile("GPR", "gpr", "r", 32, 64)
_VSR = RegisterFile("VSR", "vsr", "vs", 64, 128)

#: Every register file by its name.
FILES: dict[str, RegisterFile] = {file.name: file for file in (_GPR, _VSR)}

#: The older names of the vector-scalar registers (Book I 7.2.1): the floating-point registers are the upper
#: halves of the first 32, the vector registers are the last 32.
VIEWS: dict[str, RegisterView] = {
    view.name: view
    for view in (RegisterView("FPR", _VSR, 0, 32, 64, 64), RegisterView("VR", _VSR, 32, 32, 0, 128))
}


#: Words of 64 bits that a thread shares with its hypervisor. No instruction reaches them: the programs of
#: hypercalls do, and the hypervisor, at any time.
SHARED_WORDS = 2


_P, _S, _H, _N = Privilege.PROBLEM, Privilege.PRIVILEGED, Privilege.HYPERVISOR, Privilege.NEVER


def _spr(
    name: str, number: int, read: Privilege, write: Privilege, width: int = 64, **more: object
) -> Register:
    # What more there is goes to Register by its fields' names, which refuses any other.
    return Register(name, width, number, number, read, write, **more)  # type: ignore[arg-type]


_XER_BITS = int(XER.SO | XER.OV | XER.CA | XER.OV32 | XER.CA32 | XER.COUNT)

REGISTERS: dict[str, Register] = {
    register.name: register
    for register in (
        # The program's own
        Register("CIA"),
        Register("NIA"),
        Register("MSR", reset=int(MSR.SF | MSR.ME)),
        Register("CR", 32),
        _spr("XER", 1, _P, _P, writable=_XER_BITS),
        _spr("LR", 8, _P, _P),
        _spr("CTR", 9, _P, _P),
        _spr("TAR", 815, _P, _P, facility=FSCR.TAR),
        _spr("VRSAVE", 256, _P, _P, 32),
        Register("FPSCR"),
        Register("VSCR", 32),
        _spr("PPR", 896, _P, _P, reset=4 << 50),
        # Interrupts
        _spr("SRR0", 26, _S, _S),
        _spr("SRR1", 27, _S, _S),
        _spr("HSRR0", 314, _H, _H),
        _spr("HSRR1", 315, _H, _H),
        _spr("DAR", 19, _S, _S),
        _spr("DSISR", 18, _S, _S, 32),
        _spr("HDAR", 307, _H, _H),
        _spr("HDSISR", 306, _H, _H, 32),
        _spr("HEIR", 339, _H, _H, 32),
        _spr("ASDR", 816, _H, _H),
        _spr("HMER", 336, _H, _H),
        _spr("HMEER", 337, _H, _H),
        _spr("CFAR", 28, _S, _S),  # stored: branches do not change it
        _spr("SPRG0", 272, _S, _S),
        _spr("SPRG1", 273, _S, _S),
        _spr("SPRG2", 274, _S, _S),
        _spr("SPRG3", 275, _S, _S),
        _spr("HSPRG0", 304, _H, _H),
        _spr("HSPRG1", 305, _H, _H),
        # Time
        Register("TB", 64, 268, None, _P, _N, live=True, scope=Scope.CORE),
        Register("TBU", 32, 269, 285, _P, _H, live=True, scope=Scope.CORE),
        Register("TBL", 32, None, 284, _N, _H, live=True, scope=Scope.CORE),
        Register("TBU40", 64, None, 286, _N, _H, live=True, scope=Scope.CORE),
        _spr("DEC", 22, _S, _S, live=True),
        _spr("HDEC", 310, _H, _H, live=True, scope=Scope.CORE),
        _spr("VTB", 849, _S, _H, live=True, scope=Scope.CORE),
        _spr("PURR", 309, _S, _H, live=True),
        _spr("SPURR", 308, _S, _H, live=True),
        # The partition and the processor
        _spr("LPCR", 318, _H, _H, scope=Scope.CORE, reset=int(LPCR.TC)),
        _spr("LPIDR", 319, _H, _H, 32, scope=Scope.CORE),
        _spr("PCR", 338, _H, _H, scope=Scope.CORE),
        _spr("PIDR", 48, _S, _S, 32),
        _spr("PTCR", 464, _H, _H, scope=Scope.CORE),
        # The second doubleword of the running partition's table entry: its process table's address and size.
        Register("PATE1", scope=Scope.CORE),
        _spr("HFSCR", 190, _H, _H),
        _spr("FSCR", 153, _S, _S),
        _spr("DSCR", 17, _S, _S),
        Register("CTRL", 32, None, 152, _N, _S),
        _spr("PSPB", 159, _S, _S, 32),
        _spr("TIDR", 144, _S, _S),
        _spr("UAMOR", 157, _S, _S),
        _spr("AMR", 29, _S, _S),
        _spr("IAMR", 61, _S, _S),
        _spr("AMOR", 349, _H, _H, reset=(1 << 64) - 1),
        _spr("DPDES", 176, _S, _H, scope=Scope.CORE),
        _spr("DAWR0", 180, _H, _H),
        _spr("DAWRX0", 188, _H, _H, 32),
        _spr("CIABR", 187, _H, _H),
        _spr("WORT", 895, _S, _S),
        _spr("IC", 848, _S, _H),
        _spr("EBBHR", 804, _P, _P, facility=FSCR.EBB),
        _spr("EBBRR", 805, _P, _P, facility=FSCR.EBB),
        _spr("BESCR", 806, _P, _P, facility=FSCR.EBB),
        _spr("PSSCR", 823, _S, _S, writable=0xF000_0000_0000_03FF),
        Register("PVR", 32, 287, None, _S, _N, reset=0x4E1200),
        Register("PIR", 32, 1023, None, _S, _N),
        Register("TIR", 64, 446, None, _S, _N),
        _spr("RPR", 186, _H, _H),
        # Performance monitoring: stored, never counting
        _spr("MMCR0", 795, _S, _S, reset=1 << 31),
        _spr("MMCR1", 798, _S, _S),
        _spr("MMCR2", 785, _S, _S),
        _spr("MMCRA", 786, _S, _S),
        _spr("MMCRC", 851, _H, _H, 32),
        _spr("SIAR", 796, _S, _S),
        _spr("SDAR", 797, _S, _S),
        _spr("SIER", 784, _S, _S),
        *(_spr(f"PMC{n}", 786 + n, _S, _S, 32) for n in range(1, 7)),
    )
}

#: Registers that address translation depends on, besides MSR.
TRANSLATION_CONTEXT = frozenset({"PATE1", "PIDR", "LPIDR", "PTCR", "AMR", "IAMR"})

#: Further numbers by which registers are reached. They have no storage: state is kept by REGISTERS only.
ALIASES: dict[str, Register] = {
    register.name: register
    for register in (
        _spr("DSCR_U", 3, _P, _P, facility=FSCR.DSCR, alias_of="DSCR"),
        _spr("AMR_U", 13, _P, _P, alias_of="AMR"),
        Register("CTRL_U", 32, 136, None, _P, _N, alias_of="CTRL"),
        Register("SPRG3_U", 64, 259, None, _P, _N, alias_of="SPRG3"),
        _spr("PPR32", 898, _P, _P, 32, alias_of="PPR", alias_from=32),
        # Performance monitoring from problem state: MMCR0[PMCC] stays 0, so that problem state only reads.
        Register("SIER_U", 64, 768, None, _P, _N, alias_of="SIER"),
        _spr("MMCR2_U", 769, _P, _S, alias_of="MMCR2"),
        _spr("MMCRA_U", 770, _P, _S, alias_of="MMCRA"),
        *(_spr(f"PMC{n}_U", 770 + n, _P, _S, 32, alias_of=f"PMC{n}") for n in range(1, 7)),
        _spr("MMCR0_U", 779, _P, _S, alias_of="MMCR0"),
        Register("SIAR_U", 64, 780, None, _P, _N, alias_of="SIAR"),
        Register("SDAR_U", 64, 781, None, _P, _N, alias_of="SDAR"),
        Register("MMCR1_U", 64, 782, None, _P, _N, alias_of="MMCR1"),
    )
}

_NUMBERED = (*REGISTERS.values(), *ALIASES.values())

#: SPR numbers that the book reserves as no-ops in every state (Book III 4.4.4).
RESERVED_SPRS = frozenset({808, 809, 810, 811})

#: SPR number -> register, for moves from and to special purpose registers.
SPR_READ: dict[int, Register] = {
    r.spr: r for r in _NUMBERED if r.spr is not None and r.read is not Privilege.NEVER
}
SPR_WRITE: dict[int, Register] = {
    r.spr_write: r for r in _NUMBERED if r.spr_write is not None and r.write is not Privilege.NEVER
}
