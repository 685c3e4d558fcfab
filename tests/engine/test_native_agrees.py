"""Native code does what the concrete evaluator does: instruction by instruction, and to the instruction."""

from __future__ import annotations

from random import Random

import pytest
from handlers import ensure
from hypothesis import given, settings
from hypothesis import strategies as st
from isa.every import of_every_instruction

from chronovisor.engine.concrete import ConcreteEngine
from chronovisor.engine.native.encoding import encoding
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.operations import CONCRETE_ALONE, IN_RECORD, LOWERINGS, is_native
from chronovisor.engine.native.sets import EVERYDAY, everyday_keys
from chronovisor.engine.native.state_layout import STORED
from chronovisor.engine.python_source import source
from chronovisor.engine.state import Thread
from chronovisor.isa.assembly import assemble
from chronovisor.isa.bits import MSR
from chronovisor.isa.decode import decode
from chronovisor.isa.instruction import INSTRUCTIONS, Instruction
from chronovisor.isa.operations import OPERATIONS
from chronovisor.isa.registers import FILES

from .drawn import ALL, MEMORY_SIZE, Drawn, drawn
from .native_guest import CODE, ENGINES, KERNEL, Guest, registers

LE, SF = int(MSR.LE), int(MSR.SF)


def test_every_operation_is_native_or_named_as_concrete() -> None:
    assert not LOWERINGS.keys() & CONCRETE_ALONE
    assert LOWERINGS.keys() | CONCRETE_ALONE | IN_RECORD == OPERATIONS.keys()


def test_hardly_an_instruction_is_left_to_the_concrete_evaluator() -> None:
    left = {
        one.mnemonic
        for one in INSTRUCTIONS
        if "SPR" not in one.statics
        and not is_native(program := one.program(tuple(0 for _ in one.statics), True, True))
        and "ieee" not in {statement.op for statement in program.statements()}
    }
    assert left == {"darn"}


#: What every kernel and compiler uses, in forms that are easy to forget.
COMMON = """
    bc 4,2,. + 8; bc 5,2,. + 8; bc 6,2,. + 8; bc 7,2,. + 8; bc 12,2,. + 8; bc 13,2,. + 8; bc 14,2,. + 8
    bc 15,2,. + 8; bc 16,0,. + 8; bc 24,0,. + 8; bc 25,0,. + 8; bc 18,0,. + 8; bc 26,0,. + 8; bc 27,0,. + 8
    bclr 20,0,0; bclrl 20,0,0; bclr 12,2,0; bclr 13,2,0; bcctr 20,0,0; bcctrl 20,0,0; bl . + 8; b . + 8
    mftb r3; mfspr r3,TB; mfspr r3,LR; mtspr LR,r3; mtspr CTR,r3; mfspr r3,SPRG3; mfspr r3,DEC; mtspr DEC,r3
    icbi 0,r3; isync; sync 0; sync 1; eieio; dcbz 0,r3; dcbst 0,r3; dcbt 0,r3,0
    lwarx r3,0,r4; stwcx. r3,0,r4; ldarx r3,0,r4; stdcx. r3,0,r4
    add r3,r4,r5; add. r3,r4,r5; divd r3,r4,r5; divdu r3,r4,r5; mulhdu r3,r4,r5; rldicl. r3,r4,0,32
    andi. r3,r4,1; cmpl 0,1,r3,r4; isel r3,r4,r5,2; mfcr r3; mtcrf 255,r3; mtocrf 128,r3
    ld r3,8(r4); ldu r3,8(r4); stdu r3,-8(r4); lwa r3,4(r4); lhzx r3,r4,r5; sc 0; sc 1; rfid
    mfmsr r3; mtmsrd r3,0; mtmsrd r3,1; tdi 31,r3,0; twi 31,r3,0; tdi 24,r3,0; extsw r3,r4; cntlzd r3,r4
"""


def test_common_instructions_have_handlers_from_the_start() -> None:
    texts = [text.strip() for line in COMMON.strip().splitlines() for text in line.split(";")]
    everyday = set(everyday_keys())
    for text in texts:
        word = int.from_bytes(assemble(text), "big")
        found = decode(word)
        assert found is not None
        key = (found, found.meaning_statics(word))
        assert key in everyday, text
        assert is_native(found.program(key[1])), text
    assert len(texts) == 70


def test_every_instruction_that_is_called_common_exists() -> None:
    assert {one.mnemonic for one in INSTRUCTIONS} >= EVERYDAY


def test_hints_make_no_difference() -> None:
    """Each of the 32 values of BO means what the value without its hint bits means."""
    chosen = set()
    for one in INSTRUCTIONS:
        if "BO" not in one.statics:
            continue
        for word in (one.encode(BO=BO, BI=2) for BO in range(32)):
            given, meant = one.decode_statics(word), one.meaning_statics(word)
            sources = [source(one.program(statics), False).split(":", 1)[1] for statics in (given, meant)]
            assert sources[0] == sources[1]
            chosen.add(meant[one.statics.index("BO")])
    assert chosen == {0, 2, 4, 8, 10, 12, 16, 18, 20}


@of_every_instruction
def test_operands_fit_a_record(one: Instruction) -> None:
    program = one.program(tuple(0 for _ in one.statics), True, True)
    if is_native(program):
        encoding(program)


def thread_of(guest: Guest, case: Drawn) -> Thread:
    """A thread in the state of a case."""
    little = case.mode[1]
    thread = guest.thread()
    for name in STORED:
        thread.set(name, case.registers[name])
    for file in FILES.values():
        values = [case.registers[f"{file.prefix}{n}"] for n in range(file.count)]
        getattr(thread, file.attribute)[: file.count] = values
    # Native code has no translation of its own; a trace interrupt's steps are the concrete evaluator's.
    thread.set_msr(thread.MSR & ~int(MSR.IR | MSR.SE | MSR.BE))
    reservation = case.reservation
    if reservation is not None and reservation[0] + 16 <= MEMORY_SIZE and reservation[2] & 1:
        address, size, _ = reservation
        thread.reservation = (address, size, guest.memory.load(address, size, little))
    else:
        thread.reservation = reservation
    return thread


class Engines:
    """Both engines, each over memory of its own."""

    def __init__(self, size: int = MEMORY_SIZE) -> None:
        self.guests = [Guest(engine, "nop", size=size) for engine in ENGINES]
        noise = Random(1).randbytes(size)
        for guest in self.guests:
            guest.memory.write(0, noise)

    def run(self, case: Drawn) -> list[dict[str, object]]:
        return [self._one(guest, case) for guest in self.guests]

    @staticmethod
    def _one(guest: Guest, case: Drawn) -> dict[str, object]:
        little = case.mode[1]
        cia = case.registers["CIA"]
        guest.memory.store(cia, 4, case.word, little)
        guest.engine.forget(cia)
        thread = thread_of(guest, case)
        guest.memory.dirty.take()
        guest.engine.run(thread, 1)
        found: dict[str, object] = {**registers(thread), "reservation": thread.reservation}
        dirty = guest.memory.dirty.take()
        found["memory"] = [(page, guest.memory.read(page << 12, 4096)) for page in dirty]
        return found


CASES = 1_500
"""So many in all, however many instructions there are."""


def compare(cases: list[Drawn]) -> int:
    """Compare all but IEEE arithmetic, which tests/oracle/test_native_floating_point.py compares.

    Return how many cases were compared.
    """
    cases = [case for case in cases if not _is_arithmetic(case)]
    engines = Engines()
    ensure((case.word, case.mode) for case in cases)
    for case in cases:
        concrete, native = engines.run(case)
        assert native == concrete, f"{case.instruction.mnemonic} {case.word:#010x} in mode {case.mode}"
    return len(cases)


def _is_arithmetic(case: Drawn) -> bool:
    one = case.instruction
    return any(s.op == "ieee" for s in one.program((0,) * len(one.statics)).statements())


def test_each_instruction_does_the_same() -> None:
    cases = drawn(7, CASES)
    assert {case.instruction for case in cases} == set(ALL)
    compare(cases)


# Programs, stopped at any instruction

PROGRAM = """
start:
    li r3,0
    li r4,40
    mtspr CTR,r4
    li32 r9,0x20000
loop:
    addi r3,r3,7
    mulld r5,r3,r3
    stdx r5,r9,r3
    ldx r6,r9,r3
    cmpld cr1,r5,r6
    bc 4,6,bad
    andi. r7,r3,1
    bc 12,2,even
    xor r8,r8,r5
    b next
even:
    bl far
    subfc r8,r8,r5
next:
    mftb r10
    add r11,r11,r10
    sc 0
    bc 16,0,loop
    mfspr r12,DEC
    lwz r13,0(r30)
    li r4,100
    mtspr DEC,r4
    mfmsr r4
    ori r4,r4,0x8000
    mtmsrd r4,1
    b start
bad:
    trap
"""
FAR = "rlwinm r14,r5,3,4,20; adde r15,r14,r15; bclr 20,0,0"
HANDLERS = {
    0x300: "mfspr r16,SRR0; addi r16,r16,4; mtspr SRR0,r16; rfid",
    0x900: "addi r17,r17,1; li r18,300; mtspr DEC,r18; rfid",
    0xC00: "addi r19,r19,1; mfspr r20,SRR1; rfid",
}


def _whole(engine: type[ConcreteEngine], msr: int) -> tuple[Guest, Thread]:
    text = PROGRAM.replace("bl far", f"bl {CODE + 0x1FF8:#x}")
    guest = Guest(engine, text, msr)
    guest.place(CODE + 0x1FF8, FAR)  # it runs over the page's end
    for vector, handler in HANDLERS.items():
        guest.place(vector, handler)
    outside = 1 << 40 if msr & SF else 0xFFF0_0000
    return guest, guest.thread(r30=outside, LPCR=1 << 25 if msr & LE else 0)


def _deliver(guest: Guest, thread: Thread) -> None:
    """The decrementer's interrupt, at the very instruction where it is due."""
    time = thread.live
    if thread.MSR & MSR.EE and time.deadline < thread.executed:  # type: ignore[attr-defined]
        guest.engine.interrupt(thread, "DECREMENTER")


def _course(engine: type[ConcreteEngine], msr: int, budgets: list[int]) -> list[dict[str, int]]:
    guest, thread = _whole(engine, msr)
    seen = []
    for budget in budgets:
        end = thread.executed + budget
        while thread.executed < end:
            _deliver(guest, thread)
            left = end - thread.executed
            if thread.MSR & MSR.EE:
                left = min(left, max(1, thread.live.deadline + 1 - thread.executed))  # type: ignore[attr-defined]
            guest.engine.run(thread, left)
        seen.append(registers(thread))
    return seen


@pytest.mark.parametrize("msr", [KERNEL, KERNEL | LE, KERNEL & ~SF, (KERNEL & ~SF) | LE])
@settings(max_examples=25, deadline=None)
@given(budgets=st.lists(st.integers(1, 700), min_size=1, max_size=8))
def test_a_run_stops_at_the_same_instruction_in_the_same_state(msr: int, budgets: list[int]) -> None:
    assert _course(NativeEngine, msr, budgets) == _course(ConcreteEngine, msr, budgets)


def test_the_program_does_all_that_it_is_for() -> None:
    (last,) = _course(NativeEngine, KERNEL, [5000])
    assert last["r17"] > 3, "decrementer interrupts"
    assert last["r19"] > 50, "system calls"
    assert last["r16"] > CODE, "data storage interrupts"
    assert last["r15"], "calls"


# Memory's edges


@pytest.mark.parametrize(
    "access", ["ld r3,{}(r9)", "std r3,{}(r9)", "lbz r3,{}(r9)", "stw r3,{}(r9)", "sth r3,{}(r9)"]
)
@pytest.mark.parametrize("mode", [KERNEL, KERNEL | LE, KERNEL & ~SF])
def test_accesses_at_the_end_of_memory(access: str, mode: int) -> None:
    for displacement in range(-20, 8):
        if access.startswith(("ld", "std")) and displacement % 4:
            continue
        found = []
        for engine in ENGINES:
            guest = Guest(engine, access.format(displacement), mode)
            thread = guest.thread(r9=guest.memory.size, r3=0x1122334455667788)
            guest.advance(thread, 1)
            found.append(
                (registers(thread), guest.memory.dirty.take(), guest.memory.read(guest.memory.size - 32, 32))
            )
        assert found[0] == found[1], displacement


@pytest.mark.parametrize(
    ("mode", "ea"),
    [
        (KERNEL, 0xF000_0000_0002_0000),  # real mode ignores the first four bits
        (KERNEL, 0x0800_0000_0002_0000),  # but no others
        (KERNEL & ~SF, 0xDEAD_BEEF_0002_0000),  # 32-bit mode ignores the upper half
        (KERNEL, (1 << 64) - 4),
        (KERNEL & ~SF, 0xFFFF_FFFC),
    ],
)
def test_address_bits_that_are_ignored(mode: int, ea: int) -> None:
    found = []
    for engine in ENGINES:
        guest = Guest(engine, "stw r3,0(r9); lwz r4,0(r9); stwu r3,8(r9)", mode)
        thread = guest.thread(r9=ea, r3=0x55667788)
        guest.advance(thread, 3)
        found.append((registers(thread), guest.memory.dirty.take(), guest.memory.read(0x20000, 16)))
    assert found[0] == found[1]


@pytest.mark.parametrize("mode", [KERNEL & ~SF, (KERNEL & ~SF) | LE, KERNEL])
def test_the_upper_half_of_an_address_in_more_memory_than_it_reaches(mode: int) -> None:
    found = []
    for engine in ENGINES:
        guest = Guest(engine, "stw r3,0(r9); lwz r4,0(r9); dcbz 0,r10; lwarx r5,0,r11", mode, 5 << 30)
        thread = guest.thread(r3=0x55667788, r9=0x1_0004_0000, r10=0x1_0005_0000, r11=0x1_0004_0000)
        guest.advance(thread, 4)
        found.append((registers(thread), guest.memory.dirty.take(), thread.reservation))
    assert found[0] == found[1]
    above = (1 << 20) * bool(mode & SF)
    assert found[1][1] == [above + 0x40, above + 0x50]


def test_code_at_an_address_with_ignored_bits() -> None:
    found = []
    for engine in ENGINES:
        guest = Guest(engine, "nop; bl . + 8; nop; mfspr r3,LR; b . - 8")
        thread = guest.thread(CODE | (0xC << 60))
        guest.advance(thread, 10)
        found.append(registers(thread))
    assert found[0] == found[1]
    assert found[1]["r3"] == (CODE + 8) | (0xC << 60)


def test_code_runs_off_the_end_of_memory() -> None:
    found = []
    for engine in ENGINES:
        guest = Guest(engine, "nop")
        guest.place(guest.memory.size - 8, "addi r3,r3,1; addi r3,r3,1")
        thread = guest.thread(guest.memory.size - 8)
        guest.advance(thread, 3)
        found.append(registers(thread))
    assert found[0] == found[1]
    assert found[0]["CIA"] == 0x400


# Code that changes


@pytest.mark.parametrize("engine", ENGINES)
def test_code_that_changes_itself(engine: type[ConcreteEngine]) -> None:
    """Each round writes the next instruction anew, makes it visible as the book says, and runs it."""
    text = """
        lwz r6,0(r5)
    loop:
        addi r6,r6,1
        stw r6,0(r5)
        dcbst 0,r5
        sync 0
        icbi 0,r5
        isync
    changed:
        addi r3,r3,0
        bc 16,0,loop
        sc 1
    """
    guest = Guest(engine, text)
    thread = guest.thread(r5=CODE + 7 * 4, CTR=100)
    guest.until_called(thread)
    assert thread.gpr[3] == sum(range(1, 101))
