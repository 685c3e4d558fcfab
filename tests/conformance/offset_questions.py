"""Questions about the timebase offset: set between runs, around runs, during runs, and on several vCPUs."""

from __future__ import annotations

import threading
from typing import Final

from chronovisor.kvm.exits import Interrupted
from chronovisor.kvm.interface import System
from chronovisor.timebase.types import GRANULE, MASK64
from conformance.questions import Answers, question
from conformance.rig import READ_TIME, WATCH_TIME, Running, between, rig, rounded_up

OFFSETS: Final = (
    *(0, 1, GRANULE - 1, GRANULE, GRANULE + 1, 5 << 40, 0x0123_4567_89AB_CDEF),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - GRANULE, (1 << 64) - GRANULE + 1, MASK64, 0),
)
_TIMES: Final = 30


@question
def offset_between_runs(system: System) -> Answers:
    """An offset is set between two runs: the value kept, and a guest's reading between two host readings."""
    answers: Answers = {}
    with rig(system) as r:
        answers["at first"] = r.get("TB_OFFSET")
        r.enter(READ_TIME)
        host = r.host_time()
        for offset in OFFSETS:
            r.set("TB_OFFSET", offset)
            kept = r.get("TB_OFFSET")
            before = r.host_time()
            ended = r.run()
            after = r.host_time()
            answers[f"{offset:#x} kept as"] = f"{kept:#x}"
            answers[f"{offset:#x} rounded up"] = kept == rounded_up(offset)
            answers[f"{offset:#x} read as host + offset"] = between(before, ended.args[0] - kept, after)
            answers[f"{offset:#x} host's time goes on"] = between(host, before, after)
            host = after
    return answers


@question
def time_never_goes_back(system: System) -> Answers:
    """A guest reads its time over many exits, with one offset, and with offsets that grow."""
    with rig(system) as r:
        r.enter(READ_TIME)
        r.set("TB_OFFSET", 0x7F00_0000_0000_0000)
        last, forward = r.guest_time(), True
        for _ in range(_TIMES):
            ended = r.run()
            forward &= between(last, ended.args[0], ended.args[2])
            last = ended.args[2]
        growing = True
        for step in range(_TIMES):
            r.set("TB_OFFSET", r.get("TB_OFFSET") + 1 + step)
            ended = r.run()
            growing &= between(last, ended.args[0], ended.args[2])
            last = ended.args[2]
        return {"with one offset": forward, "with growing offsets": growing}


@question
def offset_set_around_a_running_guest(system: System) -> Answers:
    """Another thread kicks the vCPU, sets an offset, and runs it again. The guest reads its time for ever."""
    answers: Answers = {}
    with rig(system) as r:
        r.enter(WATCH_TIME)
        kept = r.get("TB_OFFSET")
        for number, offset in enumerate((3 * GRANULE, 1 << 50, (1 << 64) - (1 << 40), 7 * GRANULE)):
            before = r.host_time()
            running = Running(r.vcpus[0])
            seen = r.wait_for_change()
            after = r.host_time()
            answers[f"run {number} in the guest's time"] = between(before, seen - kept, after)
            r.vcpus[0].kick()
            answers[f"run {number} ended by"] = type(running.ended()).__name__
            r.set("TB_OFFSET", offset)
            kept = r.get("TB_OFFSET")
            answers[f"run {number} offset kept"] = f"{kept:#x}"
    return answers


@question
def offset_set_during_a_run_waits(system: System) -> Answers:
    """Another thread sets the offset while the vCPU runs: it waits until the vCPU has left the guest."""
    with rig(system) as r:
        r.enter(WATCH_TIME)
        running = Running(r.vcpus[0])
        r.wait_for_change()
        done = threading.Event()

        def set_it() -> None:
            r.set("TB_OFFSET", 9 * GRANULE)
            done.set()

        setter = threading.Thread(target=set_it, daemon=True)
        setter.start()
        waited = not done.wait(0.2)
        before = r.host_time()
        seen = r.wait_for_change()
        old_until_then = between(before, seen, r.host_time())
        r.vcpus[0].kick()
        ended = isinstance(running.ended(), Interrupted)
        done.wait(30)
        return {
            "waits": waited,
            "the guest's time is the old one until then": old_until_then,
            "the kick ends the run": ended,
            "it is set then": r.get("TB_OFFSET") == 9 * GRANULE,
        }


@question
def offsets_of_several_vcpus(system: System) -> Answers:
    """Two vCPUs of one machine, on a processor whose threads are independent: each has its own offset."""
    answers: Answers = {}
    for smt in (1, 4):
        with rig(system, vcpus=2, smt=smt) as r:
            r.set("TB_OFFSET", 5 * GRANULE, 0)
            answers[f"{smt} threads: the sibling's"] = r.get("TB_OFFSET", 1)
            r.set("TB_OFFSET", 1 << 45, 1)
            answers[f"{smt} threads: both"] = [r.get("TB_OFFSET", 0), r.get("TB_OFFSET", 1)]
            for vcpu in (0, 1):
                r.enter(READ_TIME, vcpu)
                before = r.host_time()
                ended = r.run(vcpu)
                own = between(before, ended.args[0] - r.get("TB_OFFSET", vcpu), r.host_time())
                answers[f"{smt} threads: vCPU {vcpu} reads its own"] = own
            r.vcpus.append(r.add_vcpu(2))
            answers[f"{smt} threads: a new vCPU's"] = r.get("TB_OFFSET", 2)
    return answers


@question
def two_vcpus_at_once(system: System) -> Answers:
    """Two vCPUs with the same offset run at once: both read the same time."""
    with rig(system, vcpus=2) as r:
        for vcpu in (0, 1):
            r.set("TB_OFFSET", 1 << 44, vcpu)
            r.enter(WATCH_TIME.replace("0(r9)", f"{8 * vcpu}(r9)"), vcpu)
        before = r.host_time()
        both = [Running(vcpu) for vcpu in r.vcpus]
        seen = [r.wait_for_change(0x8000 + 8 * vcpu) for vcpu in (0, 1)]
        after = r.host_time()
        for vcpu in r.vcpus:
            vcpu.kick()
        ends = [type(running.ended()).__name__ for running in both]
        return {
            "both read host + offset": all(between(before, time - (1 << 44), after) for time in seen),
            "both are kicked": ends,
        }
