"""Questions about the decrementer and DEC_EXPIRY."""

from __future__ import annotations

from typing import Final

from chronovisor.kvm.interface import System
from chronovisor.papr.hcalls import Hcall
from chronovisor.timebase.types import GRANULE, MASK64, signed64
from conformance.questions import Answers, question
from conformance.rig import MSR, MSR_EE, READ_TIME, STOP, between, rig

_OFFSETS: Final = (0, 3 * GRANULE, 1 << 50, (1 << 64) - (1 << 40), 1 << 63)
_SOON: Final = 200_000
"""Ticks until an interrupt for which the guest waits."""
_FAR: Final = 0x4000_0000
_WAIT_BUSY: Final = "mtdec r30; mftb r29; b .\n"
_CEDE: Final = f"mtdec r30; mftb r29; li r3, {int(Hcall.CEDE):#x}; sc 1; b .\n"
_EXITS: Final = 20


@question
def interrupt_on_time(system: System) -> Answers:
    """A guest sets its decrementer and waits for the interrupt, busy or with the processor ceded."""
    answers: Answers = {}
    for offset in _OFFSETS:
        for how, text in (("busy", _WAIT_BUSY), ("ceded", _CEDE)):
            with rig(system) as r:
                r.set("TB_OFFSET", offset)
                r.set("DEC_EXPIRY", r.guest_time() + _FAR)
                r.enter(text, msr=MSR | MSR_EE, r30=_SOON)
                before = r.guest_time()
                ended = r.run()
                after = r.guest_time()
                asked_at = r.vcpus[0].get_regs().gpr[29]
                # The guest set DEC before it read the time, so the interrupt may be early by the difference.
                early = signed64(ended.args[0] - (before + _SOON)) < 0
                answers[f"{offset:#x} {how}: comes, and not before its time"] = not early
                answers[f"{offset:#x} {how}: all in the guest's time"] = between(
                    before, asked_at, after
                ) and between(asked_at, ended.args[0], after)
                answers[f"{offset:#x} {how}: DEC is negative"] = bool((ended.args[1] >> 31) & 1)
    return answers


@question
def expiry_moved_after_an_interrupt(system: System) -> Answers:
    """The owner moves a past deadline into the future: the guest has no interrupt before the new deadline."""
    answers: Answers = {}
    for how, text in (("busy", _WAIT_BUSY), ("ceded", _CEDE)):
        for offset in (0, 3 * GRANULE):
            with rig(system) as r:
                r.set("DEC_EXPIRY", r.guest_time() + _FAR)
                r.enter(text, msr=MSR | MSR_EE, r30=_SOON)
                r.run()
                r.set("TB_OFFSET", offset)
                r.set("DEC_EXPIRY", r.guest_time() + _FAR)
                r.enter(f"li r4, 1; {STOP}", msr=MSR | MSR_EE)
                answers[f"{how}, then an offset of {offset:#x}: none comes"] = r.run().args[0] == 1
                r.enter(_WAIT_BUSY, msr=MSR | MSR_EE, r30=_SOON)
                before = r.guest_time()
                ended = r.run()
                on_time = signed64(ended.args[0] - before) >= _SOON and (ended.args[1] >> 31) & 1
                answers[f"{how}, then an offset of {offset:#x}: the next is on time"] = bool(on_time)
    return answers


@question
def expiry_and_offset(system: System) -> Answers:
    """The value of DEC_EXPIRY after an offset is set, and the guest's DEC then."""
    answers: Answers = {}
    with rig(system) as r:
        answers["at first"] = r.get("DEC_EXPIRY")
        before = r.host_time()
        r.set("TB_OFFSET", 1 << 40)
        first = r.get("DEC_EXPIRY")
        answers["now, in the guest's time, when an offset is first set"] = between(
            before + (1 << 40), first, r.guest_time()
        )
    with rig(system) as r:
        r.enter(READ_TIME)
        for offset in _OFFSETS:
            r.set("DEC_EXPIRY", 0x1234_5678_9ABC_DEF0)
            r.set("TB_OFFSET", offset)
            answers[f"{offset:#x}: reads as it was set"] = r.get("DEC_EXPIRY") == 0x1234_5678_9ABC_DEF0
            expiry = (r.guest_time() + _FAR) & MASK64
            r.set("DEC_EXPIRY", expiry)
            before = r.guest_time()
            ended = r.run()
            after = r.guest_time()
            # DEC is read between the two readings of the timebase. It is the expiry minus the timebase.
            answers[f"{offset:#x}: DEC is the expiry minus the time"] = between(
                expiry - after, ended.args[1], expiry - before
            )
    return answers


@question
def decrementer_over_a_change_of_offset(system: System) -> Answers:
    """The owner moves the guest's time and its deadline by the same amount: DEC counts on as before."""
    answers: Answers = {}
    with rig(system) as r:
        r.enter(READ_TIME)
        r.set("DEC_EXPIRY", r.guest_time() + _FAR)
        for offset in _OFFSETS[1:]:
            before = r.host_time()
            dec = r.run().args[1]
            expiry = r.get("DEC_EXPIRY") + offset - r.get("TB_OFFSET")
            r.set("TB_OFFSET", offset)
            r.set("DEC_EXPIRY", expiry)
            later = r.run().args[1]
            took = r.host_time() - before
            # What the kernel adds at each exit is less than the time that the exit took.
            answers[f"{offset:#x}: DEC goes on"] = abs(signed64(dec - later)) <= took
    with rig(system) as r:
        r.enter(READ_TIME)
        r.set("DEC_EXPIRY", r.guest_time() + _FAR)
        before = r.host_time()
        dec = r.run().args[1]
        r.set("TB_OFFSET", 2 * GRANULE)
        later = r.run().args[1]
        took = r.host_time() - before
        answers["an expiry that is not moved: DEC moves by the offset"] = (
            abs(signed64(dec - 2 * GRANULE - later)) <= took
        )
    return answers


@question
def expiry_over_exits(system: System) -> Answers:
    """A guest that does not write its decrementer: the expiry stays the same over many exits."""
    with rig(system) as r:
        r.enter(READ_TIME)
        r.set("TB_OFFSET", 11 * GRANULE)
        expiry = (r.guest_time() + _FAR) & MASK64
        r.set("DEC_EXPIRY", expiry)
        begun = r.host_time()
        for _ in range(_EXITS):
            r.run()
        moved = signed64(r.get("DEC_EXPIRY") - expiry)
        return {
            "the same to the tick": moved == 0,
            "never before its time": moved >= 0,
            "moved by less than the exits took": moved <= r.host_time() - begun,
        }


@question
def large_decrementer(system: System) -> Answers:
    """LPCR[LD]: a decrementer of more than 32 bits, and its readings."""
    answers: Answers = {}
    with rig(system) as r:
        r.set("LPCR_64", r.get("LPCR_64") | (1 << 17))
        r.enter(f"mtdec r30; mfdec r4; {STOP}", r30=1 << 40)
        ended = r.run()
        answers["2^40 stays"] = 0 <= (1 << 40) - ended.args[0] < 1 << 36
        r.enter(f"mtdec r30; mfdec r4; {STOP}", r30=-5 & MASK64)
        answers["-5 is sign-extended"] = signed64(r.run().args[0]) < 0
        r.set("LPCR_64", r.get("LPCR_64") & ~(1 << 17))
        r.enter(f"mtdec r30; mfdec r4; {STOP}", r30=-5 & MASK64)
        answers["32 bits: -5 is not"] = r.run().args[0] >> 32
    return answers
