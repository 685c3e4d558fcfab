"""The concrete engine's loop: why it stops, self-modified code, narrow addresses, crashes, tracing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronovisor.engine import concrete
from chronovisor.engine.concrete import ConcreteEngine, Crash, Reason
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.isa.bits import DSISR, MSR, ProgramCause
from chronovisor.isa.interrupts import TRACE_CAUSE, TRACE_LOAD, TRACE_STORE

from .guest import CODE, MEMORY_SIZE, Guest

SF, ME, LE, SE, BE = (int(bit) for bit in (MSR.SF, MSR.ME, MSR.LE, MSR.SE, MSR.BE))


@given(budget=st.integers(1, 50))
def test_a_budget_is_that_many_instructions(budget: int) -> None:
    guest = Guest("loop: addi r3,r3,1; b loop")
    stop = guest.run(budget)
    assert stop.reason is Reason.BUDGET
    assert guest.state.executed == budget
    assert guest["r3"] == (budget + 1) // 2
    assert guest["CIA"] == CODE + 4 * (budget % 2)


def test_a_hypercall_stops_behind_the_call() -> None:
    guest = Guest("addi r3,r3,1; sc 1; addi r3,r3,1")
    assert guest.run().reason is Reason.HYPERCALL
    assert (guest["CIA"], guest["r3"], guest.state.executed) == (CODE + 8, 1, 2)


def test_a_system_call_goes_to_the_guest() -> None:
    guest = Guest("sc 0")
    assert guest.run().reason is Reason.RESYNC
    assert (guest["CIA"], guest["SRR0"], guest["SRR1"]) == (0xC00, CODE + 4, SF | ME)


@pytest.mark.parametrize("text", ["mtspr DEC,r3", "mtmsrd r4,1", "mtmsr r4,0", "rfid"])
def test_what_changes_interrupts_stops_the_run(text: str) -> None:
    guest = Guest(f"{text}; nop", r4=SF | ME | int(MSR.EE), SRR0=CODE + 4, SRR1=SF | ME)
    assert guest.run().reason is Reason.RESYNC
    assert (guest["CIA"], guest.state.executed) == (CODE + 4, 1)


def test_leaving_interrupts_off_does_not_stop_the_run() -> None:
    guest = Guest("mtmsrd r4,1; b .", r4=int(MSR.RI))
    assert guest.run(5).reason is Reason.BUDGET
    assert guest["MSR"] == SF | ME | int(MSR.RI)


def test_changed_code_is_seen_after_icbi() -> None:
    guest = Guest("loop: addi r3,r3,1; b loop", r5=CODE)
    guest.run(2)
    changed = Guest("addi r3,r3,100").memory.read(CODE, 4)
    guest.memory.write(CODE, changed)
    guest.run(2)
    assert guest["r3"] in (2, 101)  # the processor may have kept either
    before = guest["r3"]
    guest.place(CODE + 0x1000, "icbi 0,r5; isync; b . - 0x1008")
    guest.state.CIA = CODE + 0x1000
    guest.run(4)
    assert guest["r3"] == before + 100


def test_forget_all_sees_code_changed_from_outside() -> None:
    guest = Guest("loop: addi r3,r3,1; b loop")
    guest.run(2)
    guest.place(CODE, "addi r3,r3,100")
    guest.engine.forget_all()
    guest.run(2)
    assert guest["r3"] == 101


def test_code_at_an_address_with_ignored_bits_is_forgotten_too() -> None:
    """Real mode ignores an address's first four bits (Book III 5.7.3): it is the same code."""
    guest = Guest("addi r3,r3,1; b . - 4", r5=CODE)
    guest.state.CIA = CODE | (0xC << 60)
    guest.run(2)
    assert guest["CIA"] == CODE | (0xC << 60)
    guest.place(CODE, "addi r3,r3,100")
    guest.engine.forget(CODE)
    guest.run(1)
    assert guest["r3"] == 101


def test_thirty_two_bit_mode_ignores_the_upper_half() -> None:
    guest = Guest("lwz r3,8(r4); bl . + 8", msr=ME, r4=0xFFFF_FFFF_0002_0000)
    guest.memory.store(0x20008, 4, 0x89AB_CDEF, little=False)
    guest.step()
    assert guest["r3"] == 0x89AB_CDEF
    guest.state.set("CIA", 0xFFFF_FFFC)
    guest.run(1)
    assert (guest["CIA"], guest["SRR0"]) == (0x400, 0xFFFF_FFFC)


def test_thirty_two_bit_addresses_wrap() -> None:
    guest = Guest("nop", msr=ME)
    guest.state.CIA = 1 << 32
    guest.place(0, "addi r3,r3,1")
    guest.run(1)
    assert (guest["CIA"], guest["r3"]) == (4, 1)


def test_thirty_two_bit_storage_interrupt_has_a_narrow_address() -> None:
    guest = Guest("lwz r3,0(r4)", msr=ME, r4=0xFFFF_FFFF_8000_0000)
    guest.step()
    assert (guest["CIA"], guest["DAR"]) == (0x300, 0x8000_0000)
    assert guest["MSR"] == SF | ME


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("lwz r3,0(r4)", DSISR.PROTECTION),
        ("stw r3,0(r4)", DSISR.PROTECTION | DSISR.STORE),
        ("dcbz 0,r4", DSISR.PROTECTION | DSISR.STORE),
        ("icbi 0,r4", DSISR.PROTECTION),
        ("ldarx r3,0,r4", DSISR.PROTECTION),
        ("stdcx. r3,0,r4", DSISR.PROTECTION | DSISR.STORE),
    ],
)
def test_no_memory(text: str, why: int) -> None:
    guest = Guest(text, r4=MEMORY_SIZE)
    guest.step()
    assert (guest["CIA"], guest["SRR0"], guest["SRR1"]) == (0x300, CODE, SF | ME)
    assert (guest["DAR"], guest["DSISR"]) == (MEMORY_SIZE, int(why))


def test_an_access_may_not_cross_the_end_of_memory() -> None:
    guest = Guest("ld r3,-7(r4); nop".replace("-7", "-4"), r4=MEMORY_SIZE)
    guest.step()
    assert (guest["CIA"], guest["DAR"]) == (0x300, MEMORY_SIZE)


@pytest.mark.parametrize("bit", [MSR.IR, MSR.DR])
def test_translation_finds_nothing(bit: MSR) -> None:
    """Even where the code ran before without it."""
    guest = Guest("loop: lwz r3,0(r4); b loop", r4=CODE)
    guest.run(4)
    guest.state.set_msr(SF | ME | int(bit))
    guest.run(1)
    if bit is MSR.IR:
        assert (guest["CIA"], guest["SRR0"]) == (0x400, CODE)
        assert guest["SRR1"] == SF | ME | int(bit) | int(DSISR.NO_TRANSLATION)
    else:
        assert (guest["CIA"], guest["DSISR"]) == (0x300, int(DSISR.NO_TRANSLATION))


@pytest.mark.parametrize("engine", [ConcreteEngine, NativeEngine])
def test_a_crash_loop_says_what_began_it(engine: type[ConcreteEngine]) -> None:
    guest = Guest(
        "lwz r3,0(r4)", engine=engine, r4=MEMORY_SIZE
    )  # the handler at 0x300 is zeros: no instruction
    reasons = [guest.run().reason for _ in range(3)]
    stop = guest.run()
    assert Reason.CRASH_LOOP not in reasons[:2]
    assert stop.reason is Reason.CRASH_LOOP
    assert stop.crash == Crash("DATA_STORAGE", CODE, MEMORY_SIZE, 0x300)


@pytest.mark.parametrize("engine", [ConcreteEngine, NativeEngine])
def test_a_handler_that_changes_the_state_is_no_crash_loop(engine: type[ConcreteEngine]) -> None:
    guest = Guest(".long 0", engine=engine)
    guest.place(0x700, "mfspr r3,SRR0; addi r3,r3,4; mtspr SRR0,r3; rfid")
    guest.place(CODE + 4, ".long 0; b .")
    assert Reason.CRASH_LOOP not in {guest.run().reason for _ in range(20)}
    assert guest["CIA"] == CODE + 8


def test_a_handler_that_runs_in_another_mode_is_no_crash_loop() -> None:
    """What is no instruction in little-endian mode is one in the mode that interrupts are entered in."""
    guest = Guest("nop", msr=SF | ME | LE)
    guest.memory.store(0x700, 4, 0x4800_0000, little=False)  # b .
    guest.state.CIA = 0x700
    assert guest.run().reason is Reason.RESYNC
    assert guest.run().reason is Reason.BUDGET


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("addi r3,r3,1", 0),
        ("lwz r3,0(r4)", TRACE_LOAD),
        ("stw r3,0(r4)", TRACE_STORE),
        ("icbi 0,r4", TRACE_LOAD),
        ("b . + 4", 0),
        ("mtmsr r5,0", 0),
    ],
)
def test_single_step(text: str, cause: int) -> None:
    """Book III 6.5.15: behind each instruction, with the load or store told."""
    guest = Guest(f"{text}; nop", msr=SF | ME | SE, r4=0x20000, r5=ME)
    assert guest.run().reason is Reason.RESYNC
    assert (guest["CIA"], guest["SRR0"], guest["SIAR"]) == (0xD00, CODE + 4, CODE)
    after = ME if "mtmsr" in text else ME | SE
    assert guest["SRR1"] == SF | after | TRACE_CAUSE | cause
    assert guest["MSR"] == SF | ME


def test_branch_trace_sees_branches_alone_taken_or_not() -> None:
    guest = Guest("nop; bdnz . + 8; nop; nop", msr=SF | ME | BE, CTR=1)
    guest.run()
    assert (guest["CIA"], guest["SRR0"], guest["CTR"]) == (0xD00, CODE + 8, 0)


def test_returning_is_not_traced_what_comes_after_is() -> None:
    guest = Guest("rfid; nop; nop", msr=SF | ME | SE, SRR0=CODE + 4, SRR1=SF | ME | SE)
    guest.run()
    assert guest["CIA"] == CODE + 4
    guest.run()
    assert (guest["CIA"], guest["SRR0"]) == (0xD00, CODE + 8)


def test_an_interrupted_instruction_is_not_traced() -> None:
    guest = Guest(".long 0", msr=SF | ME | SE)
    guest.run()
    assert guest["CIA"] == 0x700
    assert guest["SRR1"] == SF | ME | SE | int(ProgramCause.ILLEGAL)


def test_a_reservation_is_lost_when_another_thread_stores() -> None:
    guest = Guest("lwarx r3,0,r4; stwcx. r5,0,r4; lwarx r3,0,r4; stwcx. r5,0,r4", r4=0x20000, r5=7)
    guest.step()
    guest.memory.store(0x20000, 4, 1, little=False)
    guest.step()
    assert guest["CR"] >> 28 == 0
    assert guest.memory.load(0x20000, 4, little=False) == 1
    guest.step(2)
    assert guest["CR"] >> 28 == 0b0010
    assert guest.memory.load(0x20000, 4, little=False) == 7


def test_a_reservation_serves_once() -> None:
    guest = Guest("lwarx r3,0,r4; stwcx. r5,0,r4; stwcx. r6,0,r4", r4=0x20000, r5=7, r6=8)
    guest.step(3)
    assert guest["CR"] >> 28 == 0
    assert guest.memory.load(0x20000, 4, little=False) == 7


def test_little_endian_code() -> None:
    guest = Guest("lwz r3,0(r4); li r5,1", msr=SF | ME | LE, r4=0x20000)
    guest.memory.store(0x20000, 4, 0x1234_5678, little=True)
    guest.run(2)
    assert (guest["r3"], guest["r5"]) == (0x1234_5678, 1)


def test_a_guest_that_makes_endless_new_code_keeps_few_instructions_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(concrete, "MOST_DECODED", 50)
    guest = Guest("; ".join(["addi r3,r3,1"] * 300))
    guest.run(300)
    assert (guest["r3"], guest["CIA"]) == (300, CODE + 1200)
    assert sum(map(len, guest.engine._decoded.values())) <= 50
