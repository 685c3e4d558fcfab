"""A case: a few instruction words, what they start from, and what is left when they end.

Every case ends in an interrupt. The harness puts a `trap` behind the words, so a case that falls through its
last word ends in a program interrupt there; whatever ends it earlier is what the case is about. So "did it
raise an interrupt, and which" needs no question of its own: vector, SRR0 and SRR1 are part of every outcome.

All values are guest values: unsigned, in the width of the register.
"""

from __future__ import annotations

from dataclasses import dataclass

BLOCK = 0x6000
"""Guest address of the memory block of every case: below 2^15, so that RA=0 forms reach it."""

BLOCK_SIZE = 256
"""Bytes of that block."""

CODE = 0x10_0000
"""Guest address where programs begin."""

STRIDE = 0x80
"""Bytes from one program's place to the next: 31 words and the trap."""

TRAP = 0x7FE0_0008
"""The word behind each program: `trap` (tw 31,0,0)."""

SPRS: tuple[tuple[str, int], ...] = (
    ("SPRG0", 272),
    ("SPRG1", 273),
    ("SPRG2", 274),
    ("SPRG3", 275),
    ("DAR", 19),
    ("DSISR", 18),
    ("TAR", 815),
    ("VRSAVE", 256),
    ("DSCR", 17),
    ("FSCR", 153),
)
"""Name and number of the special-purpose registers that a case sets and reads, besides those with a field."""

SPR_NAMES = tuple(name for name, _ in SPRS)

MSR_SF, MSR_EE, MSR_PR, MSR_FP, MSR_ME = 1 << 63, 1 << 15, 1 << 14, 1 << 13, 1 << 12
MSR_SE, MSR_BE, MSR_IR, MSR_DR, MSR_RI, MSR_LE = 1 << 10, 1 << 9, 1 << 5, 1 << 4, 1 << 1, 1
MSR_VEC, MSR_VSX = 1 << 25, 1 << 23

FSCR_TAR, FSCR_DSCR = 1 << 8, 1 << 2


@dataclass(frozen=True, slots=True)
class Vectors:
    """The 64 vector-scalar registers of 128 bits, and the status registers of vectors and floating point."""

    vsr: tuple[int, ...]
    vscr: int
    fpscr: int


@dataclass(frozen=True, slots=True)
class Case:
    """What a case starts from. `sprs` goes with SPR_NAMES; SRR0 and SRR1 are `address` and `msr`.

    Cases of one batch all have `vectors`, or none has.
    """

    words: tuple[int, ...]
    address: int
    msr: int
    gpr: tuple[int, ...]
    cr: int
    xer: int
    lr: int
    ctr: int
    sprs: tuple[int, ...]
    memory: bytes
    vectors: Vectors | None = None

    @property
    def little(self) -> bool:
        """Whether it runs in little-endian mode."""
        return bool(self.msr & MSR_LE)

    @property
    def end(self) -> int:
        """Guest address of the trap behind the words."""
        return self.address + 4 * len(self.words)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is left when a case has ended: the registers as the interrupt's first instruction finds them."""

    vector: int
    msr: int
    srr0: int
    srr1: int
    gpr: tuple[int, ...]
    cr: int
    xer: int
    lr: int
    ctr: int
    sprs: tuple[int, ...]
    memory: bytes
    vectors: Vectors | None = None


def fields(outcome: Outcome) -> dict[str, int]:
    """Every field of an outcome by name, registers one by one, memory by big-endian doubleword."""
    out = {
        "vector": outcome.vector,
        "MSR": outcome.msr,
        "SRR0": outcome.srr0,
        "SRR1": outcome.srr1,
        "CR": outcome.cr,
        "XER": outcome.xer,
        "LR": outcome.lr,
        "CTR": outcome.ctr,
    }
    out.update(zip(SPR_NAMES, outcome.sprs, strict=True))
    out.update((f"r{n}", value) for n, value in enumerate(outcome.gpr))
    for at in range(0, BLOCK_SIZE, 8):
        out[f"mem+{at:#x}"] = int.from_bytes(outcome.memory[at : at + 8], "big")
    if outcome.vectors is not None:
        out.update((f"vs{n}", value) for n, value in enumerate(outcome.vectors.vsr))
        out.update(VSCR=outcome.vectors.vscr, FPSCR=outcome.vectors.fpscr)
    return out


def describe(case: Case) -> str:
    """The case in one line: its words, its mode, and the registers that differ from the background."""
    mode = (
        ("LE" if case.little else "BE")
        + ("64" if case.msr >> 63 else "32")
        + (" PR" if case.msr & MSR_PR else "")
    )
    words = " ".join(f"{word:08x}" for word in case.words)
    registers = " ".join(f"r{n}={value:#x}" for n, value in enumerate(case.gpr) if value != BACKGROUND[n])
    others = f"cr={case.cr:#x} xer={case.xer:#x} ctr={case.ctr:#x}"
    return f"[{words}] {mode} at {case.address:#x} {registers} {others}"


def difference(case: Case, expected: Outcome, found: Outcome) -> str | None:
    """One line that names the differences of `found` from `expected` (the oracle's), or None."""
    if expected == found:
        return None
    want, have = fields(expected), fields(found)
    wrong = [f"{name}: {have[name]:#x}, oracle {want[name]:#x}" for name in want if want[name] != have[name]]
    return (
        f"{describe(case)} -> "
        + "; ".join(wrong[:6])
        + (f"; and {len(wrong) - 6} more" if len(wrong) > 6 else "")
    )


BACKGROUND: tuple[int, ...] = tuple(
    (0x9E37_79B9_7F4A_7C15 * (n + 1)) & 0xFFFF_FFFF_FFFF_FFFF for n in range(32)
)
"""What the general registers hold that a case does not set: easily told from a result, cheap to store."""
