"""How interrupts are entered and left, and what system instructions may do (Book III chapters 3, 4, 6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronovisor.engine.concrete import ConcreteEngine, Reason
from chronovisor.isa.bits import FPSCR, FSCR, LPCR, MSR, MSR_BITS, ProgramCause
from chronovisor.isa.interrupts import AIL3_OFFSET, INTERRUPTS, SRR1_CAUSE

from . import native_guest
from .guest import CODE, Guest
from .native_guest import ENGINES

SF, ME, LE, PR, HV, EE, RI = (int(b) for b in (MSR.SF, MSR.ME, MSR.LE, MSR.PR, MSR.HV, MSR.EE, MSR.RI))
IR_DR = int(MSR.IR | MSR.DR)
ILLEGAL, PRIVILEGED = int(ProgramCause.ILLEGAL), int(ProgramCause.PRIVILEGED)
GUEST = SF | ME

states = st.integers(0, (1 << 64) - 1).map(lambda bits: bits & MSR_BITS)
to_the_guest = st.sampled_from([i for i in INTERRUPTS.values() if not i.hypervisor])


@given(interrupt=to_the_guest, msr=states, ile=st.booleans(), cause=st.sampled_from([0, 0x40000, SRR1_CAUSE]))
def test_entry(interrupt: object, msr: int, ile: bool, cause: int) -> None:
    guest = Guest("nop", LPCR=int(LPCR.ILE) if ile else 0)
    guest.state.set_msr(msr)
    guest.engine.interrupt(guest.state, interrupt.name, cause)
    assert guest["CIA"] == interrupt.vector
    assert guest["SRR0"] == CODE
    assert guest["SRR1"] == (msr & ~SRR1_CAUSE) | cause
    kept = HV if interrupt.name == "MACHINE_CHECK" else HV | ME
    assert guest["MSR"] == SF | (msr & kept) | (LE if ile else 0)


@given(interrupt=to_the_guest, msr=states)
def test_entry_with_relocation(interrupt: object, msr: int) -> None:
    """LPCR[AIL] = 3 moves the vectors where translation was on, but for two of them (Book III 6.2.4)."""
    guest = Guest("nop", LPCR=int(LPCR.AIL))
    guest.state.set_msr(msr)
    guest.engine.interrupt(guest.state, interrupt.name)
    stays = interrupt.name in ("SYSTEM_RESET", "MACHINE_CHECK") or msr & IR_DR != IR_DR
    assert guest["CIA"] == (interrupt.vector if stays else AIL3_OFFSET + interrupt.vector)
    assert guest["MSR"] & IR_DR == (0 if stays else IR_DR)


def test_hypervisor_decrementer_goes_to_the_hypervisor() -> None:
    guest = Guest("nop", msr=GUEST | RI | LE, SRR0=1, SRR1=2, LPCR=int(LPCR.ILE))
    guest.engine.interrupt(guest.state, "HYPERVISOR_DECREMENTER")
    assert (guest["CIA"], guest["HSRR0"], guest["HSRR1"]) == (0x980, CODE, GUEST | RI | LE)
    assert (guest["SRR0"], guest["SRR1"], guest["MSR"]) == (1, 2, GUEST | HV | RI)


@given(saved=st.integers(0, (1 << 64) - 1), msr=states, target=st.integers(0, (1 << 64) - 1))
def test_rfid(saved: int, msr: int, target: int) -> None:
    """Book III 3.3.1: HV cannot be entered, ME not changed without it; PR brings EE, IR and DR."""
    msr = (msr & ~(PR | IR_DR | LE | int(MSR.SE | MSR.BE))) | SF
    guest = Guest("rfid", SRR0=target, SRR1=saved)
    guest.state.set_msr(msr)
    guest.step()
    expected = saved & MSR_BITS
    if not msr & HV:
        expected = (expected & ~(HV | ME)) | (msr & ME)
    if expected & PR:
        expected |= EE | IR_DR
    assert guest["MSR"] == expected
    assert guest["CIA"] == target & (~3 if expected & SF else 0xFFFF_FFFC) & ((1 << 64) - 1)


@given(wanted=st.integers(0, (1 << 64) - 1), msr=states, instruction=st.sampled_from(["mtmsr", "mtmsrd"]))
def test_mtmsr(wanted: int, msr: int, instruction: str) -> None:
    msr = (msr & ~(PR | IR_DR | LE | int(MSR.SE | MSR.BE))) | SF
    guest = Guest(f"{instruction} r3,0", r3=wanted)
    guest.state.set_msr(msr)
    guest.step()
    changes = MSR_BITS & ~(HV | ME | LE)
    if instruction == "mtmsr":
        changes &= 0xFFFF_FFFF
    expected = (msr & ~changes) | (wanted & changes)
    if expected & PR:
        expected |= EE | IR_DR
    assert guest["MSR"] == expected
    assert guest["CIA"] == CODE + 4


ENABLED, OVERFLOWED = int(FPSCR.OE), int(FPSCR.OX)
PENDING = ENABLED | OVERFLOWED | int(FPSCR.FEX)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("status", "modes"),
    [
        *((PENDING, int(modes)) for modes in (0, MSR.FE0, MSR.FE1, MSR.FE0 | MSR.FE1)),
        *((status, int(MSR.FE0 | MSR.FE1)) for status in (OVERFLOWED, ENABLED)),
    ],
)
@pytest.mark.parametrize("instruction", ["mtmsr r3,0", "mtmsrd r3,0", "rfid", "hrfid", "rfscv"])
def test_a_change_of_msr_lets_an_exception_interrupt_that_is_there(
    engine: type[ConcreteEngine], instruction: str, status: int, modes: int
) -> None:
    """Book III 6.5.9: then SRR0 has the address of the next instruction, and SRR1 the new state.

    An external interrupt that the change lets in, too, comes after it. QEMU does not do this.
    """
    new, target = GUEST | HV | EE | modes, CODE + 0x40
    guest = native_guest.Guest(engine, instruction, msr=GUEST | HV)
    thread = guest.thread(FPSCR=status, r3=new, LR=target, CTR=new)
    thread.SRR0, thread.SRR1, thread.HSRR0, thread.HSRR1 = (target, new) * 2
    guest.engine.run(thread, 1)
    next_address = CODE + 4 if instruction.startswith("mt") else target
    expected = {"CIA": next_address, "MSR": new}
    if modes and status == PENDING:
        cause = ProgramCause.FP_ENABLED | ProgramCause.LATER
        expected = {"CIA": 0x700, "MSR": GUEST | HV, "SRR0": next_address, "SRR1": new | cause}
    assert {name: thread.get(name) for name in expected} == expected
    assert thread.executed == 1


@pytest.mark.parametrize("instruction", ["mtmsr", "mtmsrd"])
def test_mtmsr_of_two_bits(instruction: str) -> None:
    guest = Guest(f"{instruction} r3,1", r3=(1 << 64) - 1)
    assert guest.run().reason is Reason.RESYNC
    assert guest["MSR"] == GUEST | EE | RI


@pytest.mark.parametrize(
    "text",
    [
        *("rfid", "mfmsr r3", "mtmsr r3,0", "mtmsrd r3,1", "tlbie r3,r4,0,0,0", "slbia 0", "hrfid", "stop"),
        *("mfspr r3,SRR0", "mtspr DEC,r3", "mfspr r3,LPCR", "mtspr 1008,r3", "mfspr r3,1008", "sync 2"),
        *("msgsnd r3", "msgsndp r3", "slbmte r3,r4", "lwzcix r3,r4,r5", "rfscv"),
    ],
)
def test_problem_state_is_refused(text: str) -> None:
    guest = Guest(text)
    guest.state.MSR |= PR  # without translation, which problem state would need
    guest.step()
    assert (guest["CIA"], guest["SRR0"]) == (0x700, CODE)
    assert guest["SRR1"] & (PRIVILEGED | ILLEGAL) == PRIVILEGED


@pytest.mark.parametrize(
    "text",
    [
        *("hrfid", "stop", "mfspr r3,LPCR", "mtspr TBU40,r3", "mtspr HDEC,r3", "mtspr PURR,r3", "msgsnd r3"),
        *("mfspr r3,HSRR0", "stdcix r3,r4,r5", "tlbie r3,r4,0,0,0", "msgsync"),
    ],
)
def test_a_guest_is_refused_what_is_the_hypervisors(text: str) -> None:
    guest = Guest(text)
    guest.step()
    assert (guest["CIA"], guest["SRR1"]) == (0x700, GUEST | PRIVILEGED)


@pytest.mark.parametrize(("number", "mfspr_illegal", "mtspr_illegal"), [(0, 1, 1), (4, 1, 0), (7, 0, 0)])
def test_numbers_without_a_register(number: int, mfspr_illegal: bool, mtspr_illegal: bool) -> None:
    """Book III 4.4.4: without effect in privileged state, but for a few; illegal in problem state."""
    for text, illegal in (
        (f"mfspr r3,{number}", mfspr_illegal),
        (f"mtspr {number},r3", mtspr_illegal),
    ):
        guest = Guest(text, r3=5)
        guest.step()
        assert guest["CIA"] == (0x700 if illegal else CODE + 4)
        assert guest["r3"] == 5
        guest = Guest(text)
        guest.state.MSR |= PR
        guest.step()
        assert guest["SRR1"] & (PRIVILEGED | ILLEGAL) == ILLEGAL


def test_aliases_share_storage() -> None:
    guest = Guest(
        "mtspr SPRG3,r3; mfspr r4,259; mtspr 3,r3; mfspr r5,DSCR; mtspr 898,r6; mfspr r7,PPR; mtspr CTRL,r3;"
        "mfspr r8,136; mtspr AMR,r3; mfspr r9,13",
        r3=0x1234_5678_9ABC_DEF0,
        r6=0xFFFF_FFFF_000C_0000,
        PPR=0x1111_1111_2222_2222,
    )
    guest.run(10)
    assert guest["r4"] == guest["r5"] == guest["r9"] == 0x1234_5678_9ABC_DEF0
    assert guest["r7"] == 0x000C_0000_2222_2222
    assert guest["r8"] == 0x9ABC_DEF0


def test_the_hypervisor_and_the_kernel_keep_key_bits() -> None:
    """AMOR masks what the guest's kernel changes, UAMOR what problem state does (Book III 5.7.9)."""
    guest = Guest("mtspr AMR,r3", r3=(1 << 64) - 1, AMR=0, AMOR=0xF0)
    guest.step()
    assert guest["AMR"] == 0xF0
    guest = Guest("mtspr 13,r3", r3=(1 << 64) - 1, AMR=0, UAMOR=0x3C)
    guest.state.MSR |= PR
    guest.step()
    assert guest["AMR"] == 0x3C


def test_xer_keeps_its_reserved_bits_clear() -> None:
    guest = Guest("mtspr XER,r3; mfspr r4,XER", r3=(1 << 64) - 1)
    guest.run(2)
    assert guest["r4"] == 0xE00C_007F


def test_time_is_read_where_it_moves() -> None:
    guest = Guest("mftb r3; mfspr r4,TB; .long 0x7CAD42E6; b .")  # mftb r5,269 in its old encoding
    guest.run(4)
    assert guest["r4"] == guest["r3"] + 1
    assert guest["r5"] == guest["r3"] >> 32


@pytest.mark.parametrize(
    ("name", "width"), [("TBU40", 64), ("TBL", 32), ("TBU", 32), ("DEC", 64), ("HDEC", 64), ("VTB", 64)]
)
def test_time_is_written_where_it_moves(name: str, width: int) -> None:
    guest = Guest(f"mtspr {name},r3", msr=GUEST | HV, r3=0xFEDC_BA98_7654_3210)
    assert guest.run().reason is Reason.RESYNC
    assert guest.state.executed == 1
    assert guest.clock.written == [(name, 0xFEDC_BA98_7654_3210 & ((1 << width) - 1))]


@pytest.mark.parametrize(
    ("word", "bit", "vector"),
    [
        (0xC064_0000, MSR.FP, 0x800),  # lfs f3,0(r4)
        (0xFC60_2090, MSR.FP, 0x800),  # fmr f3,f4
        (0x1064_2C84, MSR.VEC, 0xF20),  # vor v3,v4,v5
        (0x7C60_20CE, MSR.VEC, 0xF20),  # lvx v3,0,r4
        (0xF064_2C90, MSR.VSX, 0xF40),  # xxlor vs3,vs4,vs5
        (0xF464_0001, MSR.VSX, 0xF40),  # lxv vs3,0(r4)
        (0xF464_0009, MSR.VEC, 0xF20),  # lxv vs35,0(r4)
        (0x7C60_0166, MSR.FP, 0x800),  # mtvsrd f3,r0
    ],
)
def test_facilities_that_are_off(word: int, bit: MSR, vector: int) -> None:
    guest = Guest(f".long {word}")
    guest.step()
    assert (guest["CIA"], guest["SRR0"], guest["SRR1"]) == (vector, CODE, GUEST)
    guest = Guest(f".long {word}", msr=GUEST | int(bit))
    guest.step()
    assert (guest["CIA"], guest["SRR1"]) == (CODE + 4, 0), "it executes with the facility on"


@pytest.mark.parametrize(
    ("text", "facility", "problem_state"),
    [
        (".long 0x7C00051D", FSCR.TM, False),  # tbegin.
        ("scv 0", FSCR.SCV, False),
        ("mfspr r3,TAR", FSCR.TAR, True),
        ("mtspr 3,r3", FSCR.DSCR, True),
        ("mfspr r3,EBBHR", FSCR.EBB, True),
        ("bctar 20,0,0", FSCR.TAR, True),
    ],
)
def test_facility_unavailable(text: str, facility: FSCR, problem_state: bool) -> None:
    guest = Guest(text, FSCR=0xFF00_0000_0000_0000)
    guest.state.MSR |= PR if problem_state else 0
    guest.step()
    assert (guest["CIA"], guest["SRR0"]) == (0xF60, CODE)
    assert guest["FSCR"] == (int(facility).bit_length() - 1) << 56


def test_system_call_vectored() -> None:
    """Book III 3.3.1: LR and CTR take the place of SRR0 and SRR1; EE and RI stay."""
    msr = GUEST | EE | RI
    guest = Guest("scv 3", msr=msr, FSCR=int(FSCR.SCV))
    guest.step()
    assert (guest["CIA"], guest["LR"], guest["CTR"], guest["MSR"]) == (0x17060, CODE + 4, msr, msr)
    guest.place(0x17060, "rfscv")
    guest.step()
    assert (guest["CIA"], guest["MSR"]) == (CODE + 4, msr)


def test_random_numbers() -> None:
    guest = Guest("darn r3,0; darn r4,1; darn r5,3")
    guest.run(3)
    assert guest["r3"] < 1 << 32
    assert guest["r5"] == (1 << 64) - 1
    assert len({guest["r3"], guest["r4"], guest["r5"]}) == 3


@pytest.mark.parametrize("text", ["lharx r3,0,r4", "ldarx r3,0,r4", "stwcx. r3,0,r4", "lwat r3,r4,0"])
def test_alignment(text: str) -> None:
    guest = Guest(text, r4=0x20001)
    guest.step()
    assert (guest["CIA"], guest["SRR0"], guest["DAR"]) == (0x600, CODE, 0x20001)


@pytest.mark.parametrize("text", ["lmw r3,0(r4)", "stmw r3,0(r4)", "lswi r3,r4,4", "stswx r3,0,r4"])
def test_multiple_and_string_forms_are_big_endian(text: str) -> None:
    guest = Guest(text, msr=GUEST | LE, r4=0x20000)
    guest.step()
    assert (guest["CIA"], guest["DAR"]) == (0x600, 0x20000)
