"""Random worlds: page tables, good and malformed, code and data behind them, and states to start from.

Everything follows from a seed. Programs are drawn from one pool of instructions, so that native code has all
their handlers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Final

from chronovisor.isa.assembly import assemble
from chronovisor.isa.bits import FPSCR, FSCR, LPCR, MSR
from chronovisor.memory.guest_memory import GuestMemory

from ..page_tables import KERNEL, PID, PageTables

SIZE: Final = 0x8_0000
"""Bytes of memory: a little more than what is used, so that its end is near."""
PAGE: Final = 0x1000
CODE, CODE_PAGES = 0x6_0000, 4
DATA, DATA_PAGES = 0x7_0000, 6
TABLES_END: Final = 0x6_0000
USER: Final = 0x1000_0000
"""Where code is mapped for the process; the data pages follow."""
USER_DATA: Final = USER + CODE_PAGES * PAGE
STARTS: Final = 8
"""How many states a world is started from."""

_RADIX = int(LPCR.HR | LPCR.UPRT | LPCR.GTSE | LPCR.TC)
_TRANSLATED = int(MSR.IR | MSR.DR)
_KINDS = 16

# Registers by their part: 3 to 12 have data, 14 to 21 addresses; 22 and 24 have the addresses of the page
# table entries of a code and a data page, 23 and 25 addresses in these pages; 26 has one of code, 27 a
# machine state, 28 a PID, 29 a key; 1 has the PID as tlbie takes it, 2 what is to be invalidated.
_DATA = tuple(range(3, 13))
_ADDRESSES = tuple(range(14, 22))

_ARITHMETIC = (
    *("add d,d,d", "addi d,d,16", "subf. d,d,d", "and. d,d,d", "or d,d,d", "xor d,d,d", "mulld d,d,d"),
    *("rlwinm d,d,3,4,20", "rldicl d,d,8,40", "cmpl 0,1,d,d", "cmpi 1,0,d,5", "adde d,d,d", "isel d,d,d,2"),
    *("addi a,a,8", "addi a,a,-8", "addis a,a,1", "mfcr d", "mtcrf 128,d", "mfspr d,CTR", "neg d,d"),
)
_ACCESSES = (
    *("lbz d,o(a)", "lhz d,o(a)", "lwz d,o(a)", "ld d,o(a)", "lwa d,o(a)", "lwzx d,a,x", "ldx d,a,x"),
    *("stb d,o(a)", "sth d,o(a)", "stw d,o(a)", "std d,o(a)", "stdx d,a,x", "stwx d,a,x", "lhax d,a,x"),
    *("ldu d,8(a)", "stdu d,-8(a)", "stwu d,4(a)", "lwbrx d,0,a", "stdbrx d,0,a", "sthbrx d,0,a"),
    *("lwarx d,0,a", "stwcx. d,0,a", "ldarx d,0,a", "stdcx. d,0,a", "lmw r30,o(a)", "stmw r30,o(a)"),
    *("dcbz 0,a", "dcbst 0,a", "dcbf 0,a,0", "dcbt 0,a,0", "icbi 0,a"),
)
_BRANCHES = (
    *("b . + n", "b . - n", "bc 12,2,. + s", "bc 4,2,. - s", "bc 4,0,. + s", "bc 16,0,. - s", "bl . + n"),
    *("b . + 8", "bc 12,6,. + 8", "bclr 20,0,0", "bcctr 20,0,0", "bclr 12,2,0", "bcctrl 20,0,0"),
    *("mtspr LR,r26", "mtspr CTR,r26", "mtspr CTR,d", "mfspr d,LR"),
)
_SYSTEM = (
    *("sc 0", "sc 0", "sc 1", "scv 0", "rfid", "rfscv", "tdi 31,d,0", "twi 4,d,5", "mfmsr d", ".long 0"),
    *("mtspr SRR0,r26; mtspr SRR1,r27; rfid", "mtspr SRR0,r26; mtspr SRR1,r27; rfid", "mtspr SRR0,a; rfid"),
    *("mtspr SRR1,r27", "mfspr d,SRR0", "mfspr d,SRR1", "mfspr d,DAR", "mfspr d,DSISR", "mfspr d,DEC"),
    *("mtmsrd r27,0", "mtmsrd d,1", "mtmsr d,1", "mftb d", "mtspr DEC,d", "mtspr SPRG0,d", "mfspr d,SPRG0"),
)
_TRANSLATION = (
    *("tlbie d,d,0,0,1", "tlbie d,d,0,1,1", "tlbie a,d,2,1,1", "tlbie a,d,1,1,1", "tlbie d,d,3,0,1"),
    *("tlbie d,d,2,0,0", "tlbiel d,d,0,0,1", "tlbiel d,d,2,1,1", "slbia 0", "slbia 7", "slbie d"),
    *("sync 2", "sync 0", "sync 1", "isync", "eieio", "tlbsync"),
    *("mtspr 48,d", "mtspr 48,r28", "mtspr AMR,d", "mtspr 13,d", "mtspr 61,d", "mtspr 157,d", "mfspr d,29"),
    *(
        "mtspr 319,d",
        "mtspr 464,d",
        "mtspr AMR,r29",
        "mtspr AMR,r28",
        "mtspr 61,r29",
        "mtspr 61,r29",
        "mtspr 61,r28",
    ),
)
_FLUSHES = (
    *("rldicr r2,{ea},0,51; tlbie r2,r1,0,1,1", "rldicr r2,{ea},0,51; tlbiel r2,r1,0,1,1"),
    *("addi r2,0,0x400; tlbie r2,r1,0,1,1", "addi r2,0,0x400; tlbiel r2,r1,2,1,1"),
    *("addi r2,0,0xC00; tlbie r2,r1,2,1,1", "addi r2,0,0x800; tlbie r2,r1,0,1,1"),
    *("rldicr r2,{ea},0,47; ori r2,r2,0xA0; tlbie r2,r1,0,1,1", "tlbie r2,r1,0,0,0"),
)
_USES = (
    "ld d,0({ea})",
    "std d,8({ea})",
    "lwz d,4({ea})",
    "lbz d,0({ea})",
    "stw d,0({ea})",
    "isync",
    "b . + 4",
)


def _toggled(place: str, bits: int) -> str:
    """Change bits of the doubleword whose address a register has."""
    return f"ld r30,0({place}); xori r30,r30,{bits}; std r30,0({place})"


#: A page table entry changes as an operating system changes it: permission, R and C, the page.
_TABLES = tuple(
    f"{use}; {_toggled(place, bits)}; sync 2; {flush}; sync 2; {use}".replace("{ea}", ea)
    for place, ea in (("r24", "r25"), ("r24", "r25"), ("r22", "r23"))
    for n, flush in enumerate(_FLUSHES)
    for use, bits in (
        (_USES[n % 7], (1, 2, 4, 8)[n % 4]),
        (_USES[(n + 3) % 7], (0x80, 0x180, 0x1000, 0x3000)[n % 4]),
    )
)
#: The page of code may not be executed any more, or is elsewhere.
_CODE_TABLES = tuple(
    f"{_toggled('r22', bits)}; sync 2; {flush.replace('{ea}', 'r23')}; {use}"
    for bits in (1, 0x1000, 0x2000)
    for flush in _FLUSHES[:2]
    for use in ("sync 2", "b . + 4", "mtspr CTR,r23; bcctr 20,0,0")
)
_PATCHES = (
    "lwz r12,o(a); stw r12,n(r26); dcbst 0,r26; sync 0; icbi 0,r26; isync",
    # A loop whose first instruction is replaced by its last one.
    "bl . + 4; mfspr r30,LR; addi r30,r30,8; addi d,d,1; lwz r12,32(r30); stw r12,0(r30); dcbst 0,r30;"
    "sync 0; icbi 0,r30; isync; bc 16,0,. - 28; addi d,d,64",
)
_FAMILIES = (
    (_ARITHMETIC, 5),
    (_ACCESSES, 9),
    (_BRANCHES, 4),
    (_SYSTEM, 3),
    (_TRANSLATION, 3),
    (_TABLES, 1.5),
    (_CODE_TABLES, 0.7),
    (_PATCHES, 1),
)

_SKIP = "mfspr r30,SRR0; addi r30,r30,4; mtspr SRR0,r30; rfid"
_TO_CODE = "mfspr r30,SPRG1; mtspr SRR0,r30; mfspr r30,SPRG2; mtspr SRR1,r30; rfid"
"""Back to where a program surely runs."""
_HANDLERS = {
    0x300: (_SKIP, _SKIP, "mfspr r20,DAR; mfspr r30,SRR0; addi r30,r30,4; mtspr SRR0,r30; rfid"),
    0x380: (_SKIP,),
    0x400: (_TO_CODE, _TO_CODE, _TO_CODE, "mfspr r30,LR; mtspr SRR0,r30; rfid"),
    0x480: (_TO_CODE,),
    0x500: ("rfid", "mfspr r3,SRR1; rfid"),
    0x600: (_SKIP,),
    0x700: (_SKIP,),
    0x800: (_SKIP,),
    0x900: ("mtspr DEC,r3; rfid", "rfid"),
    0xC00: ("rfid", "addi r3,r3,1; rfid", "mfspr r30,SRR1; mtspr SRR1,r30; rfid"),
    0xF20: (_SKIP,),
    0xF40: (_SKIP,),
    0xF60: (_SKIP,),
}
_VECTORED = ("rfscv", "addi r3,r3,1; rfscv")


def _words(text: str) -> tuple[int, ...]:
    code = assemble(text)
    return struct.unpack(f">{len(code) // 4}I", code)


def _drawn_text(random: Random, text: str) -> str:
    """A line of the tables above, with its letters replaced."""
    out = []
    for part in text.split(";"):
        name, _, operands = part.strip().partition(" ")
        step = 4 if name in ("ld", "std", "lwa", "ldu", "stdu", "lmw", "stmw") else 1
        for letter, draw in (
            ("d", lambda: f"r{random.choice(_DATA)}"),
            ("a", lambda: f"r{random.choice(_ADDRESSES)}"),
            ("x", lambda: random.choice(("r0", "r13"))),
            ("o", lambda step=step: str(random.choice((0, 0, 4, 8, -4, 2, 5, 0xFF8)) // step * step)),
            ("n", lambda: str(4 * random.choice((2, 3, 7, 30, 1000, 1020)))),
            ("s", lambda: str(4 * random.choice((2, 3, 5, 30, 1000)))),
        ):
            operands = "".join(
                draw() if one == letter and not _in_name(operands, at) else one
                for at, one in enumerate(operands)
            )
        out.append(f"{name} {operands}")
    return ";".join(out)


def _in_name(text: str, at: int) -> bool:
    """Whether the letter at a place is a part of a longer name."""
    around = text[max(at - 1, 0) : at] + text[at + 1 : at + 2]
    return any(one.isalnum() for one in around)


@cache
def pool() -> tuple[tuple[tuple[int, ...], ...], tuple[float, ...]]:
    """The sequences that programs consist of, as big-endian words, and how often each is drawn."""
    random = Random("the pool of translated programs")
    sequences, weights = [], []
    for texts, weight in _FAMILIES:
        for text in texts:
            for _ in range(_KINDS):
                sequences.append(_words(_drawn_text(random, text)))
                weights.append(weight / len(texts))
    return tuple(sequences), tuple(weights)


def every_word() -> frozenset[int]:
    """All words that programs and handlers are made of."""
    handlers = [text for some in _HANDLERS.values() for text in some] + list(_VECTORED)
    found = {word for text in handlers for word in _words(text)}
    return frozenset(found | {word for sequence in pool()[0] for word in sequence})


@cache
def _pages(little: bool) -> tuple[bytes, ...]:
    """Pages full of code, of which worlds take some."""
    random = Random(f"pages of code {little}")
    found = []
    for _ in range(48):
        words: list[int] = []
        for sequence in random.choices(*pool(), k=PAGE // 4):
            words += sequence
        found.append(struct.pack(f"{'<' if little else '>'}{PAGE // 4}I", *words[: PAGE // 4]))
    return tuple(found)


@cache
def _vectors(little: bool) -> tuple[bytes, ...]:
    """The first 0x5000 bytes of memory: handlers of interrupts, at both places of each."""
    random = Random(f"vectors {little}")
    order = "<" if little else ">"
    found = []
    for _ in range(16):
        memory = bytearray(0x5000)
        for base in (0, 0x4000):
            for vector, texts in _HANDLERS.items():
                words = _words(random.choice(texts)) if random.random() < 0.97 else ()
                struct.pack_into(f"{order}{len(words)}I", memory, base + vector, *words)
        words = _words(random.choice(_VECTORED))
        struct.pack_into(f"{order}{len(words)}I", memory, 0x3000, *words)
        found.append(bytes(memory))
    return tuple(found)


@dataclass(frozen=True)
class Start:
    """A state to begin in, how many instructions to execute until each stop, and the interrupts between."""

    registers: dict[str, int]
    gpr: tuple[int, ...]
    budgets: tuple[int, ...]
    interrupts: tuple[str | None, ...]


@dataclass(frozen=True)
class World:
    """Memory as it is before each start, the states, and addresses that are likely to be mapped."""

    image: bytes
    starts: tuple[Start, ...]
    addresses: tuple[int, ...]


def world(seed: int) -> World:
    """The world of a seed."""
    random = Random(f"translated {seed}")
    little = random.random() < 0.5
    memory = GuestMemory(SIZE)
    memory.write(0, random.choice(_vectors(little)))
    memory.write(0x1_7000, random.choice(_vectors(little))[0x3000:0x3100])
    for n in range(CODE_PAGES):
        memory.write(CODE + n * PAGE, random.choice(_pages(little)))
    tables = PageTables(memory)
    table, places = _draw_tables(random, tables)
    addresses = (*tables.pages, *tables.pages, USER, USER_DATA)
    _draw_data(random, memory, little, tables)
    starts = tuple(_draw_start(random, little, table, addresses, places) for _ in range(STARTS))
    return World(memory.read(0, SIZE), starts, addresses)


def _flags(random: Random) -> int:
    """Authority, attributes, and the bits that accesses set."""
    usual = random.random() < 0.75
    authority = 0b0111 if usual else random.randrange(16)
    attributes = 0 if random.random() < 0.9 else random.choice((0x10, 0x20, 0x30))
    return authority | attributes | random.choice((0, 0, 0x100, 0x180))


def _draw_tables(random: Random, tables: PageTables) -> tuple[int, tuple[int, ...]]:
    """Map pages, spoil some entries.

    Return the second doubleword of the partition table entry; and the effective address of a code page, the
    address of its entry, that of a data page's entry, and those of all others.
    """
    _map_kernel(random, tables)
    code = [tables.map(USER + n * PAGE, CODE + n * PAGE, 12, _flags(random) | 1) for n in range(CODE_PAGES)]
    data = tables.map(USER_DATA, DATA, 12, _flags(random) | 7)
    for n in range(1, DATA_PAGES):
        tables.map(USER_DATA + n * PAGE, _target(random, DATA + n * PAGE), 12, _flags(random))
    for _ in range(random.randrange(6)):
        # Each 2 MiB have pages of one size: their last directory has room for no other.
        size, region = random.choice(((12, 0), (12, 0), (16, 0x20_0000), (21, 0x40_0000), (30, 0x4000_0000)))
        base = USER if size == 12 else random.choice((USER, KERNEL)) + region
        ea = (base + random.randrange(1 << 21)) >> size << size
        tables.map(ea, _target(random, random.randrange(SIZE)) >> size << size, size, _flags(random))
    table = tables.process_table | random.choice((0, 0, 0, 4, 20))
    if random.random() < 0.35:
        for _ in range(random.randrange(1, 4)):
            _malform(random, tables)
    if random.random() < 0.02:
        table = random.choice((0, SIZE, random.getrandbits(60), table ^ (1 << random.randrange(30))))
    number = random.randrange(CODE_PAGES)
    return table, (USER + number * PAGE, code[number], data, *tables.entries)


def _map_kernel(random: Random, tables: PageTables) -> None:
    """Map memory one to one in the kernel's quadrant, by pages of one size, most of the time all of it."""
    privileged = 0x10F if random.random() < 0.95 else _flags(random) | 8
    kind = random.random()
    if kind < 0.6:
        tables.map(KERNEL, 0, 21, privileged)
    elif kind < 0.8:
        for real in range(0, SIZE, 1 << 16):
            if random.random() < 0.95:
                tables.map(KERNEL + real, real, 16, privileged)
    else:
        for real in (*range(0, 0x6000, PAGE), *range(TABLES_END, SIZE, PAGE), 0x2_0000, 0x5_0000):
            if random.random() < 0.95:
                tables.map(KERNEL + real, real, 12, privileged)


def _target(random: Random, usual: int) -> int:
    """A real page: the usual one, another page of data or code, tables, or one out of memory."""
    kind = random.random()
    if kind < 0.8:
        return usual
    other = (
        random.randrange(DATA, SIZE),
        random.randrange(CODE, CODE + CODE_PAGES * PAGE),
        random.randrange(0x2_0000, TABLES_END),
        random.randrange(0x5000),
        SIZE + random.getrandbits(20),
        random.getrandbits(56),
        SIZE - PAGE,
    )
    return random.choice(other) & -PAGE


def _malform(random: Random, tables: PageTables) -> None:
    """Damage an entry: a bit, a size, an address out of memory, a circle, another table's entry."""
    place = random.choice(tables.entries)
    entry = tables.memory.load(place, 8, False)
    kind = random.randrange(7)
    if kind == 0:
        tables.spoil(place, random)
        return
    if kind == 1:
        entry = (entry & ~0x1F) | random.randrange(32)
    elif kind == 2:
        entry = (entry & ~0x0FFF_FFFF_FFFF_F000) | (random.choice((SIZE, 1 << 50, SIZE - PAGE)))
    elif kind == 3:
        entry = (entry & ~0x0FFF_FFFF_FFFF_F000) | (place & -PAGE)
    elif kind == 4:
        entry = tables.memory.load(random.choice(tables.entries), 8, False)
    elif kind == 5:
        entry = random.getrandbits(64)
    else:
        entry ^= 1 << random.choice((61, 62, 5, 6, 7, 8, *range(12, 40)))
    tables.memory.store(place, 8, entry, False)


def _draw_data(random: Random, memory: GuestMemory, little: bool, tables: PageTables) -> None:
    """Data pages have addresses, instructions, page table entries and noise."""
    order = "<" if little else ">"
    instructions = random.choices(*pool(), k=40)
    for n in range(DATA_PAGES):
        at = DATA + n * PAGE
        for place in (at, at + PAGE - 128):
            code = [word for sequence in random.choices(instructions, k=8) for word in sequence][:16]
            entries = [memory.load(random.choice(tables.entries), 8, False) for _ in range(4)]
            numbers = [random.choice(tables.pages) for _ in range(3)] + [random.getrandbits(64)]
            data = struct.pack(f"{order}{len(code)}I", *code) + struct.pack(f"{order}8Q", *entries, *numbers)
            memory.write(place, data[:128])


_PENDING = int(FPSCR.ZX | FPSCR.ZE | FPSCR.FEX)
"""A floating-point exception that interrupts as soon as MSR lets it."""
_MODES = int(MSR.SF | MSR.ME | MSR.RI)
_KERNEL_STATE = _MODES | _TRANSLATED
_USER_STATE = _KERNEL_STATE | int(MSR.PR | MSR.EE)


def _machine_state(random: Random, little: bool) -> int:
    """A value of MSR: mostly one in which programs run."""
    msr = _MODES | (int(MSR.EE) if random.random() < 0.5 else 0)
    kind = random.random()
    if kind < 0.5:
        msr |= int(MSR.PR | MSR.EE) | _TRANSLATED
    elif kind < 0.85:
        msr |= _TRANSLATED
    elif kind < 0.95:
        msr |= random.choice((0, int(MSR.IR), int(MSR.DR)))
    else:
        msr = random.getrandbits(64)
    if random.random() < 0.12:
        msr &= ~int(MSR.SF)
    if random.random() < 0.2:
        msr |= random.choice((int(MSR.FE0), int(MSR.FE1)))
    if random.random() < 0.97:
        msr &= ~int(MSR.SE | MSR.BE | MSR.HV)
    if random.random() < 0.97:
        msr = (msr & ~int(MSR.LE)) | little
    return msr


def _address(random: Random, addresses: tuple[int, ...], places: tuple[int, ...]) -> int:
    """An address: in or at the edge of a page, of a table through the kernel's quadrant, or any."""
    kind = random.random()
    if kind < 0.35:
        return USER_DATA + random.randrange(DATA_PAGES * PAGE // 8) * 8
    if kind < 0.55:
        return random.choice(addresses) + random.choice((0, 8, PAGE - 8, PAGE - 4, PAGE - 1, PAGE, -1, 12))
    if kind < 0.7:
        return KERNEL + DATA + random.randrange(DATA_PAGES * PAGE // 8) * 8
    if kind < 0.8:
        return KERNEL + random.choice(places[1:])
    if kind < 0.9:
        return random.choice((KERNEL, 0)) + CODE + random.randrange(CODE_PAGES * PAGE // 4) * 4
    return random.choice(
        (random.getrandbits(64), SIZE - random.randrange(16), KERNEL + SIZE - 4, 1 << 62, 0, (1 << 64) - 8)
    )


def _inside(random: Random) -> int:
    """A place in the code: at the beginning or the end of a page, or any."""
    inside = random.choice((0, 64, PAGE - 8, PAGE - 64, random.randrange(PAGE // 4) * 4))
    return random.randrange(CODE_PAGES) * PAGE + inside


def _code(random: Random) -> int:
    base = random.choice((USER, USER, USER, KERNEL + CODE, KERNEL + CODE, CODE, USER_DATA))
    return base + _inside(random)


def _draw_start(
    random: Random, little: bool, table: int, addresses: tuple[int, ...], places: tuple[int, ...]
) -> Start:
    msr = _machine_state(random, little)
    mode = msr & (_TRANSLATED | int(MSR.PR))
    is_user = random.random() < 0.5
    in_kernel = KERNEL + CODE if random.random() < 0.6 else USER
    here = USER if mode & int(MSR.PR) else in_kernel if mode & int(MSR.IR) else CODE
    keys = [0 if random.random() < 0.6 else random.getrandbits(2) << 62 for _ in range(2)]
    cia = here + _inside(random) if random.random() < 0.9 else _code(random)
    if random.random() < 0.3:
        cia = cia & -(CODE_PAGES * PAGE) | (places[0] % (CODE_PAGES * PAGE)) | (cia % PAGE)
    registers = {
        "MSR": msr,
        "CIA": cia if msr & int(MSR.SF) else cia & 0xFFFF_FFFF,
        "LPCR": (_RADIX if random.random() < 0.98 else int(LPCR.TC))
        | (int(LPCR.AIL) if random.random() < 0.7 else 0)
        | (int(LPCR.ILE) if little else 0),
        "PATE1": table,
        "PIDR": PID if random.random() < 0.93 else random.choice((0, 6, 255, 256, random.getrandbits(32))),
        "AMR": keys[0],
        "IAMR": keys[1] if random.random() < 0.5 else 0,
        "UAMOR": random.choice((0, (1 << 64) - 1)),
        "FSCR": int(FSCR.SCV),
        "FPSCR": _PENDING if random.random() < 0.3 else 0,
        "LR": _code(random),
        "CTR": random.choice((3, _code(random))),
        "SRR0": _code(random),
        "SRR1": _machine_state(random, little),
        "CR": random.getrandbits(32),
        "SPRG1": (USER if is_user else KERNEL + CODE) + _inside(random),
        "SPRG2": _USER_STATE | little if is_user else _KERNEL_STATE | little,
    }
    gpr = [random.choice((random.getrandbits(8), random.getrandbits(64), 0)) for _ in range(32)]
    gpr[0] = gpr[13] = random.choice((0, 8, PAGE, PAGE - 2))
    for n in _ADDRESSES:
        gpr[n] = _address(random, addresses, places) & ((1 << 64) - 1)
    gpr[1], gpr[2] = PID << 32, random.choice((USER, USER_DATA)) | random.choice((0, 0x400, 0xC00, 0xA0))
    gpr[22], gpr[24] = (KERNEL + place for place in places[1:3])
    gpr[23] = places[0] + random.randrange(PAGE // 8) * 8
    gpr[25] = USER_DATA + random.randrange(PAGE // 8) * 8
    gpr[26], gpr[27], gpr[28], gpr[29] = (
        _code(random),
        _machine_state(random, little),
        PID,
        random.randrange(1, 4) << 62,
    )
    count = random.choice((1, 1, 2, 3))
    budgets = tuple(random.choice((1, 5, 17, 40, 60)) for _ in range(count))
    names = ("EXTERNAL", "DECREMENTER", "DOORBELL", None, None)
    return Start(registers, tuple(gpr), budgets, tuple(random.choice(names) for _ in budgets))
