"""Machine code in files, proven: our own switch, the original change's, and what is wrong with one edit."""

from dataclasses import replace

import pytest
from machine.elf_files import program

from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.state import Thread
from chronovisor.isa.assembly import Assembler
from chronovisor.memory.guest_memory import GuestMemory
from chronovisor.proof import machine_code
from chronovisor.proof.code.assumptions import parse_assumption, parse_place
from chronovisor.proof.code.case import CaseMemory, CaseTime, run_case
from chronovisor.proof.code.claim import ENDS, CodeClaim, CodeFinding, broken, place_value
from chronovisor.proof.code.image import CodeImage, parse_code
from chronovisor.proof.code.properties import prove_code
from chronovisor.proof.code.story import assumed, story
from chronovisor.proof.prover import Outcome

ORIGIN = 0x10000
TIMEOUT = 120.0

# The original change's sequences, told with other registers and words: the offset at 72(r4), no check of the
# words written but of the two readings.
ADD = """
        ld      r14, 72(r4)
        cmpdi   r14, 0
        beq     done
        mfspr   r15, TB
        add     r14, r14, r15
        mtspr   TBU40, r14
        mfspr   r16, TB
        clrldi  r15, r15, 40
        clrldi  r16, r16, 40
        cmpld   r16, r15
        bge     done
        addis   r14, r14, 0x100
        mtspr   TBU40, r14
done:   nop
"""
SUBTRACT = ADD.replace("add     r14, r14, r15", "subf    r14, r14, r15")
WHOLE = "72(r4) & 0xffffff = 0"


def image_of(text: str, little: bool = False) -> tuple[CodeImage, dict[str, int]]:
    """The code in an ELF file, and its labels."""
    assembler = Assembler(ORIGIN, little)
    assembler.assemble(text)
    return parse_code(program(text, little, ORIGIN), "code"), assembler.symbols


def prove(
    text: str,
    *assume: str,
    by: str = "72(r4)",
    little: bool = False,
    end: str = "done",
    timeout: float = TIMEOUT,
    **claimed: object,
) -> tuple[CodeImage, CodeFinding]:
    image, labels = image_of(text, little)
    claim = CodeClaim(
        ORIGIN, labels[end], parse_place(by), assumptions=tuple(map(parse_assumption, assume)), **claimed
    )  # type: ignore[arg-type]
    return image, prove_code(image, claim, timeout)


@pytest.mark.parametrize(("little", "subtracts"), [(True, False), (False, True)])
def test_the_original_changes_sequences_are_proven(little: bool, subtracts: bool) -> None:
    _, finding = prove(SUBTRACT if subtracts else ADD, WHOLE, little=little, subtracts=subtracts)
    assert (finding.outcome, finding.instructions, finding.stores) == (Outcome.PROVEN, 13, ())


@pytest.mark.parametrize(
    ("text", "label", "little"),
    [(machine_code.ADD_OFFSET, "added", False), (machine_code.TAKE_OFFSET_AWAY, "taken", True)],
)
def test_our_own_sequences_are_proven_in_a_file(text: str, label: str, little: bool) -> None:
    _, finding = prove(
        text + "nop",
        "0(r3) & 0xffffff = 0",
        by="0(r3)",
        end=label,
        little=little,
        subtracts=text is machine_code.TAKE_OFFSET_AWAY,
    )
    assert finding.outcome is Outcome.PROVEN


def test_one_tick_longer_and_it_is_refuted() -> None:
    image, finding = prove(ADD, WHOLE, limit=(1 << 24) + 1)
    assert finding.outcome is Outcome.REFUTED
    assert finding.run is not None
    assert finding.run.live.elapsed == 1 << 24
    assert list(story(image, finding))[-1].endswith("it is off by -16777216 ticks")


def test_an_offset_of_other_bits_is_refuted_and_told() -> None:
    image, finding = prove(ADD)
    assert finding.requirement == finding.claim.shift_words
    told = list(story(image, finding))
    assert told[0] == "before: the timebase is 0x100000000, 72(r4) is 0x1"
    assert told[1].split() == ["0x10000", "ld", "r14,72(r4)", "r14", "is", "0x1"]
    assert told[-1] == "it should be 0x100000001: it is off by -1 ticks"


MUTANTS = {
    "no check": ("bge     done", "b       done"),
    "the wrong branch": ("bge     done", "blt     done"),
    "also where equal": ("bge     done", "bgt     done"),
    "compared signed, of bits moved up": (
        "cmpld   r16, r15",
        "sldi r15,r15,40; sldi r16,r16,40; cmpd r16,r15",
    ),
    "compared the other way round": ("cmpld   r16, r15", "cmpld   r15, r16"),
    "24 bits compared with 32": ("clrldi  r15, r15, 40", "clrldi  r15, r15, 32"),
    "23 bits of one reading": ("clrldi  r16, r16, 40", "clrldi  r16, r16, 41"),
    "25 bits of one reading": ("clrldi  r16, r16, 40", "clrldi  r16, r16, 39"),
    "a carry of 2^23": ("r14, 0x100\n", "r14, 0x80\n"),
    "a carry of 2^25": ("r14, 0x100\n", "r14, 0x200\n"),
    "a carry taken off": ("r14, 0x100\n", "r14, -0x100\n"),
    "the carry in the low half": ("addis   r14, r14, 0x100", "addi    r14, r14, 0x100"),
    "the carry on the reading": ("addis   r14, r14, 0x100", "addis   r14, r15, 0x100"),
    "the sum subtracted": ("add     r14, r14, r15", "subf    r14, r14, r15"),
    "the offset twice": ("add     r14, r14, r15", "add     r14, r14, r14"),
    "32 bits of the offset": ("ld      r14, 72(r4)", "lwz     r14, 76(r4)"),
    "another word": ("ld      r14, 72(r4)", "ld      r14, 80(r4)"),
    "compared 32 bits wide with 0": ("cmpdi   r14, 0", "cmpwi   r14, 0"),
    "only offsets ahead": ("beq     done", "ble     done"),
    "written to the upper half": ("mtspr   TBU40, r14\n        mfspr", "mtspr   TBU, r14\n        mfspr"),
    "written once": ("mtspr   TBU40, r14\ndone", "nop\ndone"),
    "read again before the write": (
        "mtspr   TBU40, r14\n        mfspr   r16, TB",
        "mfspr   r16, TB\n        mtspr   TBU40, r14",
    ),
    "the offset read again for the carry": ("addis   r14, r14, 0x100", "ld      r14, 72(r4)"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_one_wrong_edit_is_refuted_and_the_case_goes_the_same_way_natively(name: str) -> None:
    right, wrong = MUTANTS[name]
    little = len(name) % 2 == 0
    assert ADD.count(right) == 1
    image, finding = prove(ADD.replace(right, wrong), WHOLE, little=little)
    assert finding.outcome is Outcome.REFUTED
    goes_the_same_way_natively(image, finding)


def goes_the_same_way_natively(image: CodeImage, finding: CodeFinding) -> None:
    concrete = finding.run
    assert concrete is not None
    touched = concrete.thread.memory
    assert isinstance(touched, CaseMemory)

    def native(live: CaseTime) -> tuple[NativeEngine, Thread]:
        memory = GuestMemory(1 << 20)
        for section in image.sections:
            memory.write(section.address, section.data)
        for address, byte in touched.first.items():
            memory.write(address, bytes([byte]))
        engine = NativeEngine(memory)
        return engine, engine.thread(live)

    # What else is known of the case goes the same way without z3.
    run = run_case(concrete.case, image, native)
    assert finding.requirement in broken(image, finding.claim, run)
    assert broken(image, finding.claim, run) == broken(image, finding.claim, concrete)
    assert (run.reached, run.timebase) == (concrete.reached, concrete.timebase)
    assert list(run.thread.gpr) == list(concrete.thread.gpr)
    assert [(step.address, step.ticks, step.note) for step in run.steps] == [
        (step.address, step.ticks, step.note) for step in concrete.steps
    ]


APART = "apart(72(r4), 80(r4), 0(r5))"


def test_a_sum_that_is_kept_is_found_to_be_ahead_after_a_repaired_wrap() -> None:
    kept = ADD.replace("beq     done", "beq     kept").replace("bge     done", "bge     kept")
    kept = kept.replace("done:   nop", "kept:   std r14, 0(r5)\ndone:   nop")
    image, finding = prove(kept, WHOLE, APART, "72(r4) != 0", keeps=(parse_place("0(r5)"),))
    assert finding.requirement == finding.claim.kept_words(parse_place("0(r5)"))
    assert finding.run is not None
    ahead = place_value(image, parse_place("0(r5)"), finding.run) - finding.run.timebase
    assert 0 < ahead < 1 << 24
    assert list(story(image, finding))[-1].endswith(f"{ahead} ticks ahead of it")
    goes_the_same_way_natively(image, finding)


def test_a_time_read_anew_is_kept_rightly() -> None:
    kept = ADD.replace("done:   nop", "done:   mfspr r17, TB; std r17, 0(r5)\nend: nop")
    _, finding = prove(kept, WHOLE, APART, end="end", keeps=(parse_place("0(r5)"),))
    assert finding.outcome is Outcome.PROVEN
    assert finding.stores == ("0(r5)",)


FROM_MEMORY = ADD.replace("mfspr   r15, TB", "ld      r15, 0(r5)")


def test_a_reading_made_before_is_as_good_within_its_age() -> None:
    _, finding = prove(FROM_MEMORY, WHOLE, APART, "age(0(r5)) <= 1000")
    assert finding.outcome is Outcome.PROVEN
    assert "including the age of earlier readings" in assumed(finding)[0]
    _, finding = prove(FROM_MEMORY, WHOLE, APART)
    assert finding.requirement == finding.claim.shift_words


TWICE = ADD.replace("done:   nop", "done:   ld r17, 72(r4); std r17, 80(r4)\nend: nop")


def test_an_offset_loaded_twice_is_remembered_wrongly_if_it_changes_meanwhile() -> None:
    image, finding = prove(TWICE, WHOLE, end="end", remembers=parse_place("80(r4)"))
    assert finding.requirement == finding.claim.remembered_words
    told = "\n".join(story(image, finding))
    assert "before it another thread sets the word" in told
    goes_the_same_way_natively(image, finding)
    _, steady = prove(TWICE, WHOLE, "steady(72(r4))", end="end", remembers=parse_place("80(r4)"))
    assert steady.outcome is Outcome.PROVEN
    once = TWICE.replace("ld r17, 72(r4); std r17", "std r18").replace("cmpdi", "mr r18, r14; cmpdi")
    _, finding = prove(once, WHOLE, end="end", remembers=parse_place("80(r4)"))
    assert finding.outcome is Outcome.PROVEN


def test_an_exit_that_takes_away_what_the_offset_is_by_now_is_refuted() -> None:
    """The original change's exit, against what was applied at the entry: P2."""
    applied = parse_place("80(r4)")
    _, finding = prove(SUBTRACT, WHOLE, "80(r4) & 0xffffff = 0", by="80(r4)", subtracts=True)
    assert finding.requirement == replace(finding.claim, shifts_by=applied).shift_words


def test_a_store_through_a_pointer_of_which_nothing_is_said_may_hit_the_offset() -> None:
    through = ADD.replace("mfspr   r15, TB", "std r0, 0(r6); ld r14, 72(r4); mfspr r15, TB")
    _, finding = prove(through, WHOLE, "steady(72(r4))")
    assert finding.outcome is Outcome.REFUTED
    assert finding.stores == ("0(r6)",)
    _, finding = prove(through, WHOLE, "steady(72(r4))", "apart(72(r4), 0(r6))")
    assert finding.outcome is Outcome.PROVEN


def test_an_offset_in_a_register_and_a_bounded_loop() -> None:
    text = "li r7,3; mtctr r7; again: add r8,r8,r9; bdnz again; " + ADD.replace(
        "ld      r14, 72(r4)", "mr      r14, r8"
    )
    _, finding = prove(text, "r8 & 0xffffff = 0", "r9 = 0", by="r8")
    assert finding.outcome is Outcome.PROVEN
    _, finding = prove(text, "r8 & 0xffffff = 0", "r9 = 0x1000000", by="r8")
    assert finding.outcome is Outcome.REFUTED


@pytest.mark.parametrize(
    ("text", "outcome", "why"),
    [
        (
            "again: addi r3,r3,1; bdnz again; done: nop",
            Outcome.UNDECIDED,
            "passed one address more often|passes",
        ),
        (".long 0x00000001; done: nop", Outcome.UNDECIDED, "is no instruction that has a meaning here"),
        ("mtspr 317,r3; done: nop", Outcome.UNDECIDED, "special purpose register 317 has no meaning here"),
        ("mtlr r3; blr; done: nop", Outcome.REFUTED, ENDS),
        ("tw 31,0,0; done: nop", Outcome.REFUTED, ENDS),
        ("b .; done: nop", Outcome.UNDECIDED, "64 times"),
        ("mtmsrd r3,0; nop; done: nop", Outcome.UNDECIDED, "MSR must say which mode"),
    ],
)
def test_what_cannot_be_followed_is_said(text: str, outcome: Outcome, why: str) -> None:
    _, finding = prove(text, "72(r4) = 0")
    assert finding.outcome is outcome
    assert any(word in str(finding.limit or finding.requirement) for word in why.split("|"))


def test_a_return_to_the_caller_is_an_end_as_well() -> None:
    early = ADD.replace("beq     done", "beqlr")
    _, finding = prove(early, WHOLE)
    assert finding.outcome is Outcome.PROVEN
    image, finding = prove(early.replace("beqlr", "bnelr"), WHOLE)
    assert finding.requirement == finding.claim.shift_words
    goes_the_same_way_natively(image, finding)


def test_assumptions_that_never_hold_say_nothing() -> None:
    _, finding = prove(ADD, WHOLE, "72(r4) = 1")
    assert finding.outcome is Outcome.VACUOUS


def test_no_time_is_undecided() -> None:
    _, finding = prove(ADD, WHOLE, timeout=0.001)
    assert (finding.outcome, finding.limit) == (Outcome.UNDECIDED, "time-out of 0.001 s")


def test_writing_a_half_of_the_timebase_is_refuted_even_where_it_changes_nothing() -> None:
    _, finding = prove("mfspr r3,TB; srdi r3,r3,32; mtspr TBU,r3; done: nop", "72(r4) = 0", limit=1)
    assert finding.requirement == "it writes neither TBU nor TBL"


@pytest.mark.parametrize("register", ["DEC", "HDEC", "VTB", "PURR", "SPURR", "TBU"])
@pytest.mark.parametrize("written", [True, False])
def test_every_register_of_time_means_the_same_to_all_evaluators(register: str, written: bool) -> None:
    set_before = f"li r3,-77; sldi r3,r3,20; mtspr {register},r3; " if written else ""
    text = f"{set_before}nop; mfspr r14,{register}; mfspr r15,TB; add r16,r14,r15; mtspr TBU40,r16; done: nop"
    image, finding = prove(text, "72(r4) = 0")
    assert finding.outcome is Outcome.REFUTED
    goes_the_same_way_natively(image, finding)
