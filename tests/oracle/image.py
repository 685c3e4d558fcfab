"""The bare-metal program that QEMU runs: it walks an array of records, each a case, and leaves the outcome
there.

Written for a pseries machine in real mode, big-endian, HV=0. Its code is generated here as instruction
words, with an encoder of its own: an oracle that leant on the project's tables would share their mistakes.
Low memory is reached with RA=0 displacements, so that neither an SPRG nor a general register is lost to the
harness.

A record is 88 big-endian doublewords: a header (HEADER's names, then the special-purpose registers), the 32
general registers, the memory block. If cases have vectors, the 64 vector-scalar registers follow, VSCR in 16
bytes, and FPSCR. The outcome replaces the case in place.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from .case import BLOCK, BLOCK_SIZE, SPRS

HEADER = ("address", "msr", "vector", "srr0", "srr1", "cr", "xer", "lr", "ctr")
HEADER_SLOTS = 24
GPR_AT = 8 * HEADER_SLOTS
MEMORY_AT = GPR_AT + 256
VSR_AT = MEMORY_AT + BLOCK_SIZE
VSCR_AT = VSR_AT + 64 * 16
FPSCR_AT = VSCR_AT + 16
RECORD, RECORD_WITH_VECTORS = VSR_AT, FPSCR_AT + 16

ENTER, COMMON, START, DONE = 0x2000, 0x2800, 0x1800, 0x1A00
CURRENT, END, SAVE1, SAVE2, SCRATCH, RTAS = 0x5000, 0x5008, 0x5010, 0x5018, 0x5040, 0x5080
PROCESS_TABLE, ROOT, DIRECTORY = 0x1_0000, 0x2_0000, 0x3_0000
IMAGE_SIZE = 0x3800

VECTORS = (
    *range(0x200, 0x1000, 0x100),
    *(0x380, 0x480, 0x980, 0xE20, 0xE40, 0xE60, 0xE80, 0xEA0, 0xF20, 0xF40, 0xF60, 0xF80),
)
POWER_OFF = 0x2003
"""The RTAS token of power-off on QEMU's pseries machine."""


def _d(op: int, rt: int, ra: int, d: int) -> int:
    return (op << 26) | (rt << 21) | (ra << 16) | (d & 0xFFFF)


def _ld(rt: int, ra: int, d: int) -> int:
    return _d(58, rt, ra, d)


def _std(rs: int, ra: int, d: int) -> int:
    return _d(62, rs, ra, d)


def _x(rt: int, ra: int, rb: int, xo: int) -> int:
    return (31 << 26) | (rt << 21) | (ra << 16) | (rb << 11) | (xo << 1)


def _mtspr(spr: int, rs: int) -> int:
    return _x(rs, spr & 31, spr >> 5, 467)


def _mfspr(rt: int, spr: int) -> int:
    return _x(rt, spr & 31, spr >> 5, 339)


def _branch_absolute(target: int) -> int:
    return (18 << 26) | target | 2


def _load(rt: int, value: int) -> list[int]:
    """`value` (64 bits) into a register."""
    parts = [(value >> shift) & 0xFFFF for shift in (48, 32, 16, 0)]
    return [
        _d(15, rt, 0, parts[0]),  # lis
        _d(24, rt, rt, parts[1]),  # ori
        (30 << 26) | (rt << 21) | (rt << 16) | (0 << 11) | 0x7C6,  # sldi 32
        _d(25, rt, rt, parts[2]),  # oris
        _d(24, rt, rt, parts[3]),
    ]


_RFID, _SC1 = (19 << 26) | (18 << 1), 0x4400_0022
_HEADER_SPRS = (("srr0", 26), ("srr1", 27), ("xer", 1), ("lr", 8), ("ctr", 9))


def _vsr(number: int, xo: int, at: int) -> list[int]:
    """Load or store a vector-scalar register at an offset into the record, whose address is in r1."""
    return [_d(14, 3, 0, at), _x(number & 31, 1, 3, xo) | (number >> 5)]


_LXVD2X, _STXVD2X = 844, 972
_FACILITIES = [
    _x(3, 0, 0, 83),  # mfmsr r3
    _d(25, 3, 3, 0x0280),  # oris: VEC, VSX
    _d(24, 3, 3, 0x2000),  # ori: FP
    _x(3, 0, 0, 178),  # mtmsrd r3
]


def _load_vectors() -> list[int]:
    code = [
        *_FACILITIES,
        _d(50, 0, 1, FPSCR_AT),  # lfd f0
        (63 << 26) | (1 << 25) | (0xFF << 17) | (711 << 1),  # mtfsf 255,f0,1,0
        *_vsr(32, _LXVD2X, VSCR_AT),
        (4 << 26) | 1604,  # mtvscr v0
    ]
    return code + [word for n in range(64) for word in _vsr(n, _LXVD2X, VSR_AT + 16 * n)]


def _store_vectors() -> list[int]:
    code = [*_FACILITIES, *(word for n in range(64) for word in _vsr(n, _STXVD2X, VSR_AT + 16 * n))]
    return [
        *code,
        (4 << 26) | 1540,  # mfvscr v0
        *_vsr(32, _STXVD2X, VSCR_AT),
        (63 << 26) | (583 << 1),  # mffs f0
        _d(54, 0, 1, FPSCR_AT),  # stfd f0
    ]


def _slot(name: str) -> int:
    return 8 * HEADER.index(name)


def _spr_slots() -> list[tuple[int, int]]:
    return [(8 * (len(HEADER) + n), number) for n, (_, number) in enumerate(SPRS)]


def _enter(vectors: bool) -> list[int]:
    """Load the current record and rfid into it; at the end of the array, power off."""
    code = [
        _ld(1, 0, CURRENT),
        _ld(2, 0, END),
        _x(1, 1, 2, 32),  # cmpld cr0,r1,r2 (L=1 in the RT field)
        (16 << 26) | (4 << 21) | (2 << 16) | 8,  # bne +8
        _branch_absolute(DONE),
        _d(14, 3, 0, SCRATCH),
        _x(3, 0, 3, 214) | 1,  # stdcx. r3,0,r3: no reservation outlives a case
    ]
    code += _load_vectors() if vectors else []
    for at in range(0, BLOCK_SIZE, 8):
        code += [_ld(3, 1, MEMORY_AT + at), _std(3, 0, BLOCK + at)]
    for name, number in (("address", 26), ("msr", 27), ("xer", 1), ("lr", 8), ("ctr", 9)):
        code += [_ld(3, 1, _slot(name)), _mtspr(number, 3)]
    for at, number in _spr_slots():
        code += [_ld(3, 1, at), _mtspr(number, 3)]
    code += [_ld(3, 1, _slot("cr")), (31 << 26) | (3 << 21) | (0xFF << 12) | (144 << 1)]  # mtcrf 0xff,r3
    code += [_ld(n, 1, GPR_AT + 8 * n) for n in range(32) if n != 1]
    return [*code, _ld(1, 1, GPR_AT + 8), _RFID]


def _common(vectors: bool) -> list[int]:
    """Store the outcome (r1 and r2 saved, the vector in r2) into the current record and go on to the next."""
    code = [_ld(1, 0, CURRENT), _std(2, 1, _slot("vector")), _ld(2, 0, SAVE2)]
    code += [_std(n, 1, GPR_AT + 8 * n) for n in range(32) if n != 1]
    code += [_ld(2, 0, SAVE1), _std(2, 1, GPR_AT + 8)]
    code += [_x(2, 0, 0, 19), _std(2, 1, _slot("cr"))]  # mfcr
    code += [_x(2, 0, 0, 83), _std(2, 1, _slot("msr"))]  # mfmsr: the interrupt's own machine state
    for name, number in _HEADER_SPRS:
        code += [_mfspr(2, number), _std(2, 1, _slot(name))]
    for at, number in _spr_slots():
        code += [_mfspr(2, number), _std(2, 1, at)]
    for at in range(0, BLOCK_SIZE, 8):
        code += [_ld(3, 0, BLOCK + at), _std(3, 1, MEMORY_AT + at)]
    code += _store_vectors() if vectors else []
    record = RECORD_WITH_VECTORS if vectors else RECORD
    return [*code, _d(14, 1, 1, record), _std(1, 0, CURRENT), _branch_absolute(ENTER)]


def _start(records: int, end: int) -> list[int]:
    """The code at which the machine starts: map memory one to one, set the decrementer far off, begin."""
    code = []
    for address, value in (
        (CURRENT, records),
        (END, end),
        # Process table entry 0: a radix tree of 52 bits (RTS 0b10101), root of 2^13 entries.
        (PROCESS_TABLE, (2 << 61) | ROOT | (5 << 5) | 13),
        (ROOT, (1 << 63) | DIRECTORY | 9),
        # One leaf of 1 GiB at 0: valid, leaf, referenced, changed, read, write, execute, not privileged.
        (DIRECTORY, (3 << 62) | 0x187),
        (RTAS, (POWER_OFF << 32) | 2),
        (RTAS + 8, 1 << 32),
    ):
        code += [*_load(3, value), *_load(4, address), _std(3, 4, 0)]
    # H_REGISTER_PROC_TBL: new, radix, GTSE; the table's address; 2^12 bytes.
    for register, value in ((3, 0x37C), (4, 0x1D), (5, PROCESS_TABLE), (6, 0), (7, 0)):
        code += _load(register, value)
    code += [_SC1, *_load(3, (1 << 55) - 1), _mtspr(22, 3), *_load(3, 0), _mtspr(48, 3)]
    return [*code, _branch_absolute(ENTER)]


def _place(image: bytearray, at: int, words: Iterable[int]) -> None:
    code = b"".join(struct.pack(">I", word) for word in words)
    if any(image[at : at + len(code)]):
        raise ValueError(f"the harness overlaps itself at {at:#x}")
    image[at : at + len(code)] = code


def build(records: int, count: int, vectors: bool = False) -> bytes:
    """The image for `count` records from guest address `records` on; it belongs at guest address 0."""
    end = records + count * (RECORD_WITH_VECTORS if vectors else RECORD)
    image = bytearray(IMAGE_SIZE)
    _place(image, 0x100, [_branch_absolute(START)])
    for vector in VECTORS:
        _place(
            image,
            vector,
            [_std(1, 0, SAVE1), _std(2, 0, SAVE2), _d(14, 2, 0, vector), _branch_absolute(COMMON)],
        )
    _place(image, ENTER, _enter(vectors))
    _place(image, COMMON, _common(vectors))
    _place(image, START, _start(records, end))
    _place(image, DONE, [*_load(3, 0xF000), *_load(4, RTAS), _SC1, 18 << 26])
    return bytes(image)
