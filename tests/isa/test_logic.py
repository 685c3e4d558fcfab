"""Rotates, shifts, counts, comparisons, traps and branches by formulas of the book over strings of bits."""

# ruff: noqa: SIM300 - a register's name looks like a constant's

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronovisor.engine.endings import GuestInterrupt
from chronovisor.isa.bits import MSR, XER, ProgramCause

from .numbers import bits, modes, numbers
from .single import ALL, HERE, execute, flags, relation, signed

fives = st.integers(0, 31)
sixes = st.integers(0, 63)


def string(number: int, width: int = 64) -> str:
    return f"{number & ((1 << width) - 1):0{width}b}"


def rotated(text: str, by: int) -> str:
    by %= len(text)
    return text[by:] + text[:by]


def masked(text: str, first: int, last: int, background: str = "0" * 64) -> int:
    """``text`` from bit ``first`` through ``last``, round the end where last < first; else the background."""
    inside = [first <= n <= last if first <= last else n >= first or n <= last for n in range(64)]
    return int("".join(t if i else b for t, b, i in zip(text, background, inside, strict=True)), 2)


@given(rs=numbers, ra=numbers, rb=numbers, sh=fives, mb=fives, me=fives, sixty_four=modes)
def test_rotate_word(rs: int, ra: int, rb: int, sh: int, mb: int, me: int, sixty_four: bool) -> None:
    word = string(rs, 32)
    by_sh, by_rb = rotated(word * 2, sh), rotated(word * 2, rb & 31)
    for text, result in (
        (f"rlwinm. r3,r4,{sh},{mb},{me}", masked(by_sh, mb + 32, me + 32)),
        (f"rlwnm. r3,r4,r5,{mb},{me}", masked(by_rb, mb + 32, me + 32)),
        (f"rlwimi. r3,r4,{sh},{mb},{me}", masked(by_sh, mb + 32, me + 32, string(ra))),
    ):
        state = execute(text, {3: ra, 4: rs, 5: rb}, sixty_four)
        assert state.gpr[3] == result, text
        assert state.CR >> 28 == relation(signed(result, 64 if sixty_four else 32), 0)


@given(rs=numbers, ra=numbers, rb=numbers, sh=sixes, mb=sixes)
def test_rotate_doubleword(rs: int, ra: int, rb: int, sh: int, mb: int) -> None:
    by_sh, by_rb = rotated(string(rs), sh), rotated(string(rs), rb & 63)
    for text, result in (
        (f"rldicl r3,r4,{sh},{mb}", masked(by_sh, mb, 63)),
        (f"rldicr r3,r4,{sh},{mb}", masked(by_sh, 0, mb)),
        (f"rldic r3,r4,{sh},{mb}", masked(by_sh, mb, 63 - sh)),
        (f"rldimi r3,r4,{sh},{mb}", masked(by_sh, mb, 63 - sh, string(ra))),
        (f"rldcl r3,r4,r5,{mb}", masked(by_rb, mb, 63)),
        (f"rldcr r3,r4,r5,{mb}", masked(by_rb, 0, mb)),
    ):
        assert execute(text, {3: ra, 4: rs, 5: rb}).gpr[3] == result, text


@given(rs=numbers, rb=st.one_of(numbers, st.integers(0, 140)), sh=sixes)
def test_shifts(rs: int, rb: int, sh: int) -> None:
    low, word, double = rs & 0xFFFFFFFF, rb & 63, rb & 127
    for text, result in (
        ("slw r3,r4,r5", low << word & 0xFFFFFFFF),
        ("srw r3,r4,r5", low >> word),
        ("sld r3,r4,r5", rs << double),
        ("srd r3,r4,r5", rs >> double),
        (f"extswsli r3,r4,{sh}", signed(rs, 32) << sh),
    ):
        assert execute(text, {4: rs, 5: rb}).gpr[3] == result & ALL, text
    for text, value, by in (
        ("sraw r3,r4,r5", signed(rs, 32), word),
        ("srad r3,r4,r5", signed(rs), double),
        (f"srawi r3,r4,{sh & 31}", signed(rs, 32), sh & 31),
        (f"sradi r3,r4,{sh}", signed(rs), sh),
    ):
        state = execute(text, {4: rs, 5: rb}, XER=int(XER.CA | XER.SO))
        assert state.gpr[3] == value >> by & ALL, text
        lost_ones = value < 0 and value % (1 << by) != 0
        assert flags(state) == ({"CA", "CA32", "SO"} if lost_ones else {"SO"}), text


@given(rs=numbers, rb=numbers)
def test_logic_and_counts(rs: int, rb: int) -> None:
    text = string(rs)
    words, octets = [text[n : n + 32] for n in (0, 32)], [text[n : n + 8] for n in range(0, 64, 8)]

    def parity(part: str) -> int:
        return part[7::8].count("1") & 1

    formulas: dict[str, int] = {
        "and r3,r4,r5": rs & rb,
        "or r3,r4,r5": rs | rb,
        "xor r3,r4,r5": rs ^ rb,
        "nand r3,r4,r5": ~(rs & rb),
        "nor r3,r4,r5": ~(rs | rb),
        "eqv r3,r4,r5": ~(rs ^ rb),
        "andc r3,r4,r5": rs & ~rb,
        "orc r3,r4,r5": rs | ~rb,
        "andi. r3,r4,0x8765": rs & 0x8765,
        "andis. r3,r4,0x8765": rs & 0x8765_0000,
        "ori r3,r4,0x8765": rs | 0x8765,
        "oris r3,r4,0x8765": rs | 0x8765_0000,
        "xori r3,r4,0x8765": rs ^ 0x8765,
        "xoris r3,r4,0x8765": rs ^ 0x8765_0000,
        "extsb r3,r4": signed(rs, 8),
        "extsh r3,r4": signed(rs, 16),
        "extsw r3,r4": signed(rs, 32),
        "cntlzd r3,r4": len(text) - len(text.lstrip("0")),
        "cntlzw r3,r4": 32 - len(words[1].lstrip("0")),
        "cnttzd r3,r4": len(text) - len(text.rstrip("0")),
        "cnttzw r3,r4": 32 - len(words[1].rstrip("0")),
        "popcntd r3,r4": text.count("1"),
        "popcntw r3,r4": words[0].count("1") << 32 | words[1].count("1"),
        "popcntb r3,r4": int.from_bytes(bytes(octet.count("1") for octet in octets), "big"),
        "prtyd r3,r4": parity(text),
        "prtyw r3,r4": parity(words[0]) << 32 | parity(words[1]),
        "cmpb r3,r4,r5": int.from_bytes(
            bytes(255 * (x == y) for x, y in zip(rs.to_bytes(8, "big"), rb.to_bytes(8, "big"), strict=True)),
            "big",
        ),
        "bpermd r3,r4,r5": int(
            "".join(string(rb)[int(octet, 2)] if int(octet, 2) < 64 else "0" for octet in octets), 2
        ),
    }
    for instruction, result in formulas.items():
        assert execute(instruction, {4: rs, 5: rb}).gpr[3] == result & ALL, instruction


@given(digits=st.lists(st.integers(0, 999), min_size=4, max_size=4), sums=st.tuples(numbers, numbers))
def test_decimal_assists(digits: list[int], sums: tuple[int, int]) -> None:
    packed = [int(f"{number:03}", 16) for number in digits]
    bcd = packed[0] << 44 | packed[1] << 32 | packed[2] << 12 | packed[3]
    declets = execute("cbcdtd r3,r4", {4: bcd}).gpr[3]
    assert declets & ~0x000F_FFFF_000F_FFFF == 0
    assert execute("cdtbcd r3,r4", {4: declets}).gpr[3] == bcd
    small = [n for n in digits if all(digit < "8" for digit in f"{n:03}")]
    for number in small:  # small digits keep their bits: pqr stu 0 wxy
        a, b, c = (int(digit) for digit in f"{number:03}")
        assert execute("cbcdtd r3,r4", {4: int(f"{number:03}", 16)}).gpr[3] == a << 7 | b << 4 | c
    a, b = sums
    sixes_ = sum(
        6 << 4 * n for n in range(16) if (a & ((16 << 4 * n) - 1)) + (b & ((16 << 4 * n) - 1)) < 16 << 4 * n
    )
    assert execute("addg6s r3,r4,r5", {4: a, 5: b}).gpr[3] == sixes_


@pytest.mark.parametrize(("bcd", "declet"), [(0x999, 0x0FF), (0x080, 0x00A), (0x888, 0x06E), (0x909, 0x0AF)])
def test_declets_of_the_standard(bcd: int, declet: int) -> None:
    assert execute("cbcdtd r3,r4", {4: bcd}).gpr[3] == declet


@given(
    a=numbers, b=numbers, bf=st.integers(0, 7), cr=st.integers(0, (1 << 32) - 1), so=bits, sixty_four=modes
)
def test_compare(a: int, b: int, bf: int, cr: int, so: int, sixty_four: bool) -> None:
    si, ui = signed(b, 16), b & 0xFFFF
    low = 0xFFFFFFFF
    octets = a & 255, b >> 24 & 255, b >> 16 & 255, b >> 8 & 255, b & 255
    near = octets[4] <= octets[0] <= octets[3]
    far = octets[2] <= octets[0] <= octets[1]
    for text, field in (
        (f"cmpd cr{bf},r4,r5", relation(signed(a), signed(b), so)),
        (f"cmpld cr{bf},r4,r5", relation(a, b, so)),
        (f"cmpw cr{bf},r4,r5", relation(signed(a, 32), signed(b, 32), so)),
        (f"cmplw cr{bf},r4,r5", relation(a & low, b & low, so)),
        (f"cmpdi cr{bf},r4,{si}", relation(signed(a), si, so)),
        (f"cmpwi cr{bf},r4,{si}", relation(signed(a, 32), si, so)),
        (f"cmpldi cr{bf},r4,{ui}", relation(a, ui, so)),
        (f"cmplwi cr{bf},r4,{ui}", relation(a & low, ui, so)),
        (f"cmprb cr{bf},0,r4,r5", near << 2),
        (f"cmprb cr{bf},1,r4,r5", (near or far) << 2),
        (f"cmpeqb cr{bf},r4,r5", (a & 255 in b.to_bytes(8, "big")) << 2),
    ):
        state = execute(text, {4: a, 5: b}, sixty_four, CR=cr, XER=so << 31)
        shift = 28 - 4 * bf
        assert state.CR == cr & ~(15 << shift) | field << shift, text


@given(a=numbers, b=numbers, to=fives)
def test_traps(a: int, b: int, to: int) -> None:
    def chosen(x: int, y: int, width: int) -> bool:
        sx, sy, low = signed(x, width), signed(y, width), (1 << width) - 1
        ux, uy = x & low, y & low
        return bool(to & (16 * (sx < sy) | 8 * (sx > sy) | 4 * (sx == sy) | 2 * (ux < uy) | (ux > uy)))

    si = signed(b, 16)
    for text, traps in (
        (f"tw {to},r4,r5", chosen(a, b, 32)),
        (f"td {to},r4,r5", chosen(a, b, 64)),
        (f"twi {to},r4,{si}", chosen(a, si, 32)),
        (f"tdi {to},r4,{si}", chosen(a, si, 64)),
    ):
        raised = None
        try:
            execute(text, {4: a, 5: b})
        except GuestInterrupt as interrupt:
            raised = interrupt.name, interrupt.cause
        assert raised == (("PROGRAM", ProgramCause.TRAP) if traps else None), text


@given(cr=st.integers(0, (1 << 32) - 1), a=numbers, b=numbers, bit=fives)
def test_select(cr: int, a: int, b: int, bit: int) -> None:
    bits_of_cr = string(cr, 32)
    chosen = bits_of_cr[bit] == "1"
    assert execute(f"isel r3,r4,r5,{bit}", {4: a, 5: b}, CR=cr).gpr[3] == (a if chosen else b)
    assert execute(f"isel r3,0,r5,{bit}", {0: a, 5: b}, CR=cr).gpr[3] == (0 if chosen else b)
    field = bits_of_cr[bit // 4 * 4 :][:2]
    assert signed(execute(f"setb r3,cr{bit // 4}", CR=cr).gpr[3]) == {"1": -1, "0": int(field[1])}[field[0]]


@given(bo=fives, bi=fives, cr=st.integers(0, (1 << 32) - 1), ctr=numbers, sixty_four=modes, lk=bits)
def test_branches(bo: int, bi: int, cr: int, ctr: int, sixty_four: bool, lk: int) -> None:
    counts = not bo & 4
    left = (ctr - counts) & ALL
    zero = (left & (ALL if sixty_four else 0xFFFFFFFF)) == 0
    counted = not counts or zero == bool(bo & 2)
    taken = counted and (bool(bo & 16) or (string(cr, 32)[bi] == "1") == bool(bo & 8))
    target = 0xFFFF_FFFF_1234_5677
    seen = target & ~3 & (ALL if sixty_four else 0xFFFFFFFF)
    ending = "l" if lk else ""
    for text, where in (
        (f"bc{ending} {bo},{bi},.-0x100", HERE - 0x100),
        (f"bc{ending}a {bo},{bi},0x100", 0x100),
        (f"bclr{ending} {bo},{bi}", seen),
        (f"bctar{ending} {bo},{bi}", seen),
    ):
        state = execute(text, None, sixty_four, CR=cr, CTR=ctr, LR=target, TAR=target)
        assert state.NIA == (where if taken else HERE + 4), text
        assert state.LR == (HERE + 4 if lk else target), text
        assert state.CTR == left, text
    if not counts:
        state = execute(f"bcctr{ending} {bo},{bi}", None, sixty_four, CR=cr, CTR=target, LR=1)
        assert state.NIA == (seen if taken else HERE + 4)
        assert state.LR == (HERE + 4 if lk else 1)


def test_branch_always() -> None:
    assert execute("b .+0x20").NIA == HERE + 0x20
    assert execute("ba -0x20").NIA == -0x20 & ALL
    assert execute("ba -0x20", sixty_four=False).NIA == -0x20 & 0xFFFFFFFF
    assert execute("bl .-4").LR == HERE + 4


def test_target_register_can_be_kept_from_programs() -> None:
    problem = int(MSR.SF | MSR.PR)
    with pytest.raises(GuestInterrupt, match="FACILITY_UNAVAILABLE"):
        execute("bctar 20,0", MSR=problem)
    assert execute("bctar 20,0", MSR=problem, FSCR=1 << 8, TAR=0x40).NIA == 0x40
    assert execute("bctar 20,0", TAR=0x40).NIA == 0x40


CR_LOGIC: dict[str, Callable[[int, int], int]] = {
    "crand": lambda a, b: a & b,
    "cror": lambda a, b: a | b,
    "crxor": lambda a, b: a ^ b,
    "crnand": lambda a, b: 1 - (a & b),
    "crnor": lambda a, b: 1 - (a | b),
    "creqv": lambda a, b: int(a == b),
    "crandc": lambda a, b: a & (1 - b),
    "crorc": lambda a, b: a | (1 - b),
}


@given(cr=st.integers(0, (1 << 32) - 1), bt=fives, ba=fives, bb=fives, rs=numbers)
def test_condition_register(cr: int, bt: int, ba: int, bb: int, rs: int) -> None:
    text = string(cr, 32)
    for name, of in CR_LOGIC.items():
        result = of(int(text[ba]), int(text[bb]))
        assert (
            string(execute(f"{name} {bt},{ba},{bb}", CR=cr).CR, 32)
            == text[:bt] + str(result) + text[bt + 1 :]
        )
    to, from_ = bt // 4, ba // 4
    moved = text[: 4 * to] + text[4 * from_ :][:4] + text[4 * to + 4 :]
    assert string(execute(f"mcrf cr{to},cr{from_}", CR=cr).CR, 32) == moved
    assert execute("mfcr r3", CR=cr).gpr[3] == cr
    field = 0xF << (28 - 4 * to)
    assert execute(f"mfocrf r3,{0x80 >> to}", CR=cr).gpr[3] == cr & field
    assert execute(f"mtocrf {0x80 >> to},r4", {4: rs}, CR=cr).CR == cr & ~field | rs & field
    assert execute("mtcrf 0xff,r4", {4: rs}, CR=cr).CR == rs & 0xFFFFFFFF


@given(st.integers(0, 15), st.integers(0, 7))
def test_carries_to_condition_field(chosen: int, bf: int) -> None:
    order = (XER.OV, XER.OV32, XER.CA, XER.CA32)
    xer = sum(int(flag) for n, flag in enumerate(order) if chosen >> (3 - n) & 1)
    assert execute(f"mcrxrx cr{bf}", XER=xer | int(XER.SO)).CR == chosen << (28 - 4 * bf)
