"""Machine code over unknown registers: paths fork, meet, end; time passes between instructions."""

from __future__ import annotations

from collections.abc import Sequence

import z3

from chronovisor.engine.symbolic import Ending, Reason, SymbolicRunner, SymbolicState
from chronovisor.engine.symbolic.passing_time import PassingTime
from chronovisor.isa.assembly import assemble
from chronovisor.isa.bits import DSISR, MSR

CODE = 0x1000
GUEST = int(MSR.SF | MSR.ME)


def run(
    text: str, known: dict[str, int] | None = None, bound: int = 64, longest: int | None = None
) -> tuple[list[Ending], SymbolicState, PassingTime]:
    """How `text` ends (REACHED: behind its last instruction), the state it began in, and its time."""
    code = assemble(text, CODE)
    words = {CODE + n: int.from_bytes(code[n : n + 4], "big") for n in range(0, len(code), 4)}
    state = SymbolicState.unknown(
        known={"CIA": CODE, "MSR": GUEST, "LPCR": 0} | (known or {}), memory_size=1 << 16
    )
    time = PassingTime(longest)
    time.begin(state)
    return SymbolicRunner(words, time, bound).run(state, {CODE + len(code)}), state, time


def always(claim: z3.BoolRef, given: z3.BoolRef) -> bool:
    solver = z3.Solver()
    solver.add(given, z3.Not(claim))
    answer = solver.check()
    assert answer != z3.unknown
    return answer == z3.unsat


def cover_all(endings: Sequence[Ending]) -> bool:
    """Whether the endings' paths are exclusive and leave no case out."""
    paths = [ending.state.path for ending in endings]
    exclusive = all(always(z3.Not(other), path) for n, path in enumerate(paths) for other in paths[n + 1 :])
    return exclusive and always(z3.Or(*paths), z3.BoolVal(True))


def test_paths_meet_behind_what_they_jumped_over() -> None:
    endings, before, _ = run("cmpdi r3,0; bge done; neg r3,r3; done: nop")
    (ending,) = endings
    assert ending.reason is Reason.REACHED
    r3 = before.gpr[3]
    assert always(ending.state.gpr[3] == z3.If(r3 < 0, -r3, r3), ending.state.path)
    assert not always(ending.state.gpr[3] == r3, ending.state.path)
    assert ending.state.executed == 4


def test_a_path_that_cannot_be_is_not_followed() -> None:
    endings, _, _ = run("ori r3,r3,1; cmpdi r3,0; bne done; sc 1; done: nop")
    assert [ending.reason for ending in endings] == [Reason.REACHED]


def test_a_loop_of_known_length() -> None:
    (ending,), before, _ = run("li r4,5; mtctr r4; loop: add r3,r3,r5; bdnz loop")
    assert ending.reason is Reason.REACHED
    assert always(ending.state.gpr[3] == before.gpr[3] + 5 * before.gpr[5], z3.BoolVal(True))


def test_a_loop_of_unknown_length_ends_at_the_bound() -> None:
    endings, _, _ = run("loop: addi r3,r3,1; bdnz loop", bound=3)
    assert sorted(ending.reason.name for ending in endings) == ["BOUND", "REACHED"]
    assert cover_all(endings)
    (bound,) = (ending for ending in endings if ending.reason is Reason.BOUND)
    ctr = z3.BitVec("CTR", 64)
    assert always(z3.And(*(ctr != n for n in (1, 2, 3))), bound.state.path)


def test_a_computed_jump_leaves_the_code() -> None:
    (ending,), before, _ = run("addi r3,r3,1; blr; nop")
    assert ending.reason is Reason.ELSEWHERE
    assert always(ending.state["CIA"] == before["LR"] & ~3, z3.BoolVal(True))


def test_a_choice_of_jumps_is_followed() -> None:
    choose = f"cmpdi r4,0; li r3,{CODE + 24}; li r5,{CODE + 28}; isel r3,r3,r5,2; mtctr r3; bctr"
    (ending,), before, _ = run(f"{choose}; addi r6,r6,1; addi r6,r6,1")
    added = z3.If(before.gpr[4] == 0, z3.BitVecVal(2, 64), z3.BitVecVal(1, 64))
    assert ending.reason is Reason.REACHED
    assert always(ending.state.gpr[6] == before.gpr[6] + added, z3.BoolVal(True))


def test_an_access_beyond_memory_raises_an_interrupt() -> None:
    endings, before, time = run("ld r3,0(r4); std r3,8(r4)")
    assert cover_all(endings)
    reached = [ending for ending in endings if ending.reason is Reason.REACHED]
    load, store = (ending for ending in endings if ending.reason is Reason.INTERRUPT)
    assert len(reached) == 1
    address = before.gpr[4] & ((1 << 60) - 1)
    assert always(z3.ULE(address, (1 << 16) - 16), reached[0].state.path)
    assert always(z3.UGT(address, (1 << 16) - 8), load.state.path)
    entered = SymbolicRunner({}, time).enter(store)
    assert z3.simplify(entered["CIA"]).as_long() == 0x300
    assert always(entered["SRR0"] == CODE + 4, entered.path)
    # An access that begins in memory and ends outside faults where the second page begins.
    begin = before.gpr[4] + 8
    begins_inside = z3.ULT(begin & ((1 << 60) - 1), 1 << 16)
    assert always(entered["DAR"] == z3.If(begins_inside, (begin | 0xFFF) + 1, begin), entered.path)
    assert always(entered["DSISR"] == int(DSISR.PROTECTION | DSISR.STORE), entered.path)


def test_what_was_stored_is_loaded_wherever_it_is() -> None:
    endings, before, _ = run("stw r3,0(r4); stb r5,1(r4); lwz r6,0(r4)")
    (ending,) = (ending for ending in endings if ending.reason is Reason.REACHED)
    r3, r5 = before.gpr[3], before.gpr[5]
    expected = z3.Concat(
        z3.BitVecVal(0, 32), z3.Extract(31, 24, r3), z3.Extract(7, 0, r5), z3.Extract(15, 0, r3)
    )
    assert always(ending.state.gpr[6] == expected, ending.state.path)
    assert not always(ending.state.gpr[6] == z3.ZeroExt(32, z3.Extract(31, 0, r3)), ending.state.path)


def test_a_hypercall_ends_behind_it() -> None:
    (ending,), _, _ = run("li r3,4; sc 1; nop")
    assert ending.reason is Reason.HYPERCALL
    assert z3.simplify(ending.state["CIA"]).as_long() == CODE + 8


def test_time_between_two_readings_is_what_passed() -> None:
    (ending,), _, time = run("mfspr r3,TB; nop; mfspr r4,TB")
    state = ending.state
    assert always(state.gpr[4] - state.gpr[3] == time.ticks[1] + time.ticks[2], state.path)


def test_reading_halves_again_until_the_upper_stands_still() -> None:
    """The book's way for a 32-bit program to read the timebase (Book II 6.2.1) gives a value that TB had."""
    text = "again: mfspr r3,TBU; mfspr r4,TB; mfspr r5,TBU; cmpw r5,r3; bne again; rldimi r4,r3,32,0"
    endings, before, time = run(text, bound=1, longest=1 << 30)
    (ending,) = (ending for ending in endings if ending.reason is Reason.REACHED)
    at_second = before.live["TB"] + time.ticks[0] + time.ticks[1]
    assert always(ending.state.gpr[4] == at_second, ending.state.path)
    hasty, before, time = run("mfspr r3,TBU; mfspr r4,TB; rldimi r4,r3,32,0", longest=1 << 30)
    at_second = before.live["TB"] + time.ticks[0] + time.ticks[1]
    assert not always(hasty[0].state.gpr[4] == at_second, hasty[0].state.path)


def test_tbu40_leaves_the_low_bits_ticking() -> None:
    (ending,), before, time = run("mtspr TBU40,r3", {"MSR": GUEST | int(MSR.HV)})
    was = before.live["TB"] + time.ticks[0]
    low = (1 << 24) - 1
    assert always(ending.state.live["TB"] == (before.gpr[3] & ~low) | (was & low), ending.state.path)


def test_a_narrow_decrementer_reads_without_its_sign() -> None:
    (ending,), before, time = run("mtspr DEC,r3; mfspr r4,DEC")
    left = z3.SignExt(32, z3.Extract(31, 0, before.gpr[3])) - time.ticks[1]
    assert always(ending.state.gpr[4] == left & 0xFFFF_FFFF, ending.state.path)
