"""vCPUs side by side: native code runs without the interpreter's lock, on real threads of this machine."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest

from chronovisor.engine.concrete import ConcreteEngine, Reason
from chronovisor.engine.live_registers import ThreadTime
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.operations import has_wide_atomics
from chronovisor.engine.native.page_records import Records
from chronovisor.engine.native.state import NativeThread
from chronovisor.engine.state import Thread
from chronovisor.isa.bits import MSR

from .lines import instructions_in_lines, put_in_lines
from .native_guest import CODE, KERNEL, Guest, Time

DATA = 0x40000
RETIRED = Records.new()
OTHER = CODE + 0x4000


def side_by_side(*runs: Callable[[], None]) -> None:
    threads = [threading.Thread(target=run) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a guest's thread hangs"


def run_both(guest: Guest, first: Thread, second: Thread) -> None:
    side_by_side(lambda: guest.until_called(first), lambda: guest.until_called(second))


@contextmanager
def lines_again_and_again(guest: Guest) -> Iterator[list[int]]:
    """What is decoded becomes lines within this context; how many instructions had any is listed."""
    over, found = threading.Event(), [0]

    def look() -> None:
        while not over.wait(0.0005):
            put_in_lines(guest.engine)
            found.append(instructions_in_lines(guest.engine))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield found
    finally:
        over.set()
        looking.join()


def word(guest: Guest, address: int) -> int:
    return guest.memory.load(address, 8, False)


def test_a_request_ends_a_run_that_would_not_end() -> None:
    guest = Guest(NativeEngine, "b .")
    thread = guest.thread(real=True)
    guest.engine.run(thread, 1)  # whatever has to be compiled is
    stops = []
    runner = threading.Thread(target=lambda: stops.append(guest.engine.run(thread, 1 << 60)))
    runner.start()
    while thread.pieces < 3:  # type: ignore[attr-defined]
        assert runner.is_alive()
        time.sleep(0.001)
    thread.exit_request = 1
    runner.join(60)
    assert [stop.reason for stop in stops] == [Reason.BUDGET]
    assert thread.CIA == CODE
    assert thread.executed > 1000


@pytest.mark.parametrize(("ticks_ago", "natively"), [(1 << 20, True), ((1 << 31) + (1 << 20), False)])
def test_a_decrementer_that_expired_long_ago_may_be_positive_again(ticks_ago: int, natively: bool) -> None:
    """Its interrupt is entered natively while its sign is sure to be set; otherwise the caller is asked."""

    class Expired(Time):
        def lend(self, time_: ThreadTime) -> None:
            super().lend(time_)
            time_.dec_deadline = time.monotonic_ns() * 64 // 125 - ticks_ago

    # Once more if the machine stopped the test for so long that the sign has changed.
    took = 60.0
    while took > 4:
        guest = Guest(NativeEngine, "b .", msr=KERNEL | int(MSR.EE))
        guest.place(0x900, "b .")
        thread = guest.thread(real=True)
        guest.engine.run(thread, 1)
        thread.live = Expired(real=True)
        thread.live.thread = thread
        begun = time.monotonic()
        stop = guest.engine.run(thread, 1 << 16)
        took = time.monotonic() - begun
    assert (stop.reason, thread.CIA) == ((Reason.BUDGET, 0x900) if natively else (Reason.RESYNC, CODE))


def test_python_runs_while_a_guest_does() -> None:
    """Were the interpreter's lock held, nobody could ask for the end."""
    guest = Guest(NativeEngine, "b .")
    threads = [guest.thread(real=True) for _ in range(2)]

    def ask() -> None:
        while not all(t.begin for t in threads):  # type: ignore[attr-defined]
            time.sleep(0.001)
        for t in threads:
            t.exit_request = 1

    side_by_side(ask, *(lambda t=t: guest.engine.run(t, 1 << 60) for t in threads))


COUNT = """
again:
    lwarx r6,0,r5
    addi r6,r6,1
    stwcx. r6,0,r5
    bc 4,2,again
    bc 16,0,again
    sc 1
"""


def test_conditional_stores_lose_nothing() -> None:
    guest = Guest(NativeEngine, COUNT)
    rounds = 1_000_000
    run_both(guest, *(guest.thread(real=True, r5=DATA, CTR=rounds) for _ in range(2)))
    assert guest.memory.load(DATA, 4, False) == 2 * rounds


WIDE_COUNT = """
again:
    lqarx r6,0,r5
    addic r7,r7,1
    addze r6,r6
    stqcx. r6,0,r5
    bc 4,2,again
    bc 16,0,again
    sc 1
"""


@pytest.mark.skipif(not has_wide_atomics(), reason="this machine does not exchange 16 bytes at once")
def test_wide_conditional_stores_lose_nothing() -> None:
    guest = Guest(NativeEngine, WIDE_COUNT)
    rounds = 300_000
    guest.memory.store(DATA, 16, (1 << 64) - rounds, False)
    run_both(guest, *(guest.thread(real=True, r5=DATA, CTR=rounds) for _ in range(2)))
    assert guest.memory.load(DATA, 16, False) == (1 << 64) + rounds


# Slow enough that a conditional store of the concrete evaluator, which takes microseconds, can succeed.
SLOW_COUNT = """
again:
    lwarx r6,0,r5
    addi r6,r6,1
    stwcx. r6,0,r5
    bc 4,2,again
    mtspr CTR,r12
spin:
    bc 16,0,spin
    addic. r10,r10,-1
    bc 4,2,again
    sc 1
"""


def test_the_concrete_evaluators_conditional_stores_lose_nothing_to_native_code() -> None:
    """As while handlers are compiled, and for instructions that have none."""
    guest = Guest(NativeEngine, SLOW_COUNT)
    native, concrete = (
        guest.thread(real=True, r5=DATA, r10=rounds, r12=spins)
        for rounds, spins in ((100_000, 1_500), (6_000, 1))
    )

    def run_concretely() -> None:
        while ConcreteEngine.run(guest.engine, concrete, 512).reason is not Reason.HYPERCALL:
            pass

    side_by_side(lambda: guest.until_called(native), run_concretely)
    assert guest.memory.load(DATA, 4, False) == 106_000


def test_records_that_are_replaced_are_kept_while_others_are_let_go() -> None:
    """Whoever is in native code may be among each of them."""
    guest = Guest(NativeEngine, "nop")
    engine, thread = guest.engine, guest.thread(real=True)
    assert isinstance(engine, NativeEngine)
    assert isinstance(thread, NativeThread)
    thread.inside = 1
    gone, count = 2, 3_000
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def replace() -> None:
        for _ in range(count):
            engine._retire([RETIRED])

    def leave() -> None:
        while len(engine._retired) < count:
            engine._leave_retired(gone)

    try:
        replacing = threading.Thread(target=replace)
        leaving = threading.Thread(target=leave, daemon=True)
        replacing.start()
        leaving.start()
        replacing.join(60)
        leaving.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert len(engine._retired) == count


LOCK = """
take:
    lwarx r6,0,r5
    cmpi 0,0,r6,0
    bc 4,2,take
    stwcx. r7,0,r5
    bc 4,2,take
    isync
    ld r8,8(r5)
    addi r8,r8,1
    std r8,8(r5)
    sync 1
    stw r0,0(r5)
    bc 16,0,take
    sc 1
"""


def test_a_lock_keeps_others_out() -> None:
    guest = Guest(NativeEngine, LOCK)
    rounds = 200_000
    run_both(guest, *(guest.thread(real=True, r5=DATA, r7=1, CTR=rounds) for _ in range(2)))
    assert word(guest, DATA + 8) == 2 * rounds


# Each round, begun together, each thread stores to its own word, then loads the other's. That both see the
# old one is what stores which wait in a buffer look like; the heavy barrier rules it out.
STORE_THEN_LOAD = """
round:
    addi r3,r3,1
    std r3,0(r7)
meet:
    ld r6,0(r8)
    cmpl 0,1,r6,r3
    bc 12,0,meet
    std r3,0(r9)
    sync 0
    ld r4,0(r10)
    std r4,0(r11)
    std r3,0(r12)
wait:
    ld r6,0(r13)
    cmpl 0,1,r6,r3
    bc 12,0,wait
    ld r15,0(r14)
    cmpl 0,1,r4,r3
    bc 4,0,good
    cmpl 0,1,r15,r3
    bc 4,0,good
    addi r16,r16,1
good:
    bc 16,0,round
    sc 1
"""


@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="two threads that spin for each other need two cores"
)
def test_sync_orders_a_store_and_a_later_load() -> None:
    guest = Guest(NativeEngine, STORE_THEN_LOAD)
    own = {"r7": 0, "r9": 1, "r11": 2, "r12": 3}
    others = {"r8": 0, "r10": 1, "r14": 2, "r13": 3}

    def thread(number: int) -> Thread:
        mine = {name: DATA + 0x1000 * number + 256 * place for name, place in own.items()}
        theirs = {name: DATA + 0x1000 * (1 - number) + 256 * place for name, place in others.items()}
        return guest.thread(real=True, CTR=10_000, **mine, **theirs)

    threads = thread(0), thread(1)
    run_both(guest, *threads)
    assert [thread.gpr[16] for thread in threads] == [0, 0]


# One thread repeats an operation on two words. The other makes the second word forbid the operation: from
# then on the first word must not change. Then it lets the operation happen once.
ATOMIC = """
again:
    addi r3,r3,1
    {operation}
    lwz r6,0(r8)
    cmpi 0,0,r6,0
    bc 12,2,again
    sc 1
"""
# It goes on until the operation has happened: the other thread may get a processor late.
FORBID = """
round:
    {store} r7,{size}(r5)
    sync 0
    {load} r10,0(r5)
    ori r0,r0,0
    ori r0,r0,0
    {load} r11,0(r5)
    cmpl 0,1,r10,r11
    bc 12,2,good
    addi r12,r12,1
good:
    {store} r11,{size}(r5)
    sync 0
    bc 16,0,round
    cmpi 0,1,r11,0
    bc 4,2,done
    mtctr r14
    b round
done:
    stw r13,0(r8)
    sc 1
"""


@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2 or not has_wide_atomics(),
    reason="two threads side by side need two cores, and doublewords an exchange of 16 bytes",
)
@pytest.mark.parametrize(
    ("operation", "size"),
    [("lwat r16,r5,25", 4), ("ldat r16,r5,25", 8), ("stwat r3,r5,24", 4), ("stdat r3,r5,24", 8)],
)
def test_atomic_operations_on_two_words_are_one_step(operation: str, size: int) -> None:
    load, store = {4: ("lwz", "stw"), 8: ("ld", "std")}[size]
    guest = Guest(NativeEngine, ATOMIC.format(operation=operation))
    guest.place(OTHER, FORBID.format(load=load, store=store, size=size))
    common = {"r5": DATA, "r8": DATA + 256}
    atomic = guest.thread(real=True, **common)
    other = guest.thread(OTHER, real=True, CTR=3_000_000, r7=1 << 30, r13=1, r14=1, **common)
    run_both(guest, atomic, other)
    assert guest.memory.load(DATA, size, False) > 0, "the operation never happened"
    assert other.gpr[12] == 0, "the operation happened although the second word forbade it"


# The writer changes an instruction of the page that the reader is executing, and says so; the reader looks.
WRITER = """
round:
    addi r3,r3,1
    rlwimi r4,r3,0,16,31
    stw r4,0(r5)
    dcbst 0,r5
    sync 0
    icbi 0,r5
    sync 0
    isync
    std r3,0(r7)
wait:
    ld r6,0(r8)
    cmpl 0,1,r6,r3
    bc 4,2,wait
    bc 16,0,round
    sc 1
"""
READER = """
round:
    addi r3,r3,1
wait:
    ld r6,0(r7)
    cmpl 0,1,r6,r3
    bc 4,2,wait
    isync
changed:
    li r9,0
    cmpl 0,1,r9,r3
    bc 12,2,good
    addi r10,r10,1
good:
    std r3,0(r8)
    bc 16,0,round
    sc 1
"""


@pytest.mark.parametrize("in_lines", [False, True])
def test_code_that_another_thread_is_executing_changes(in_lines: bool) -> None:
    rounds = 1000 if in_lines else 100
    guest = Guest(NativeEngine, READER)
    guest.place(OTHER, WRITER)
    flags = {"r7": DATA, "r8": DATA + 256}
    reader = guest.thread(real=True, CTR=rounds, **flags)
    writer = guest.thread(OTHER, real=True, CTR=rounds, r5=CODE + 6 * 4, r4=(14 << 26) | (9 << 21), **flags)
    with lines_again_and_again(guest) if in_lines else nullcontext([1]) as found:
        run_both(guest, reader, writer)
    assert any(found)
    assert reader.gpr[3] == writer.gpr[3] == rounds
    assert reader.gpr[10] == 0, "old code was executed"
    assert not guest.engine._retired, "records that nobody executes are still there"  # type: ignore[attr-defined]


@pytest.mark.parametrize("in_lines", [False, True])
def test_a_thread_that_stays_in_native_code_comes_upon_changed_code(in_lines: bool) -> None:
    guest = Guest(NativeEngine, "loop: addi r3,r3,1; b loop")
    thread = guest.thread()
    guest.advance(thread, 4)
    if in_lines:
        put_in_lines(guest.engine)
        assert instructions_in_lines(guest.engine) >= 2
    stops = []
    runner = threading.Thread(target=lambda: stops.append(guest.engine.run(thread, 4 << 30)))
    runner.start()
    while thread.pieces < 3:  # type: ignore[attr-defined]
        time.sleep(0.001)
    guest.place(CODE + 4, "sc 1")
    guest.engine.forget(CODE + 4)
    runner.join(60)
    assert [stop.reason for stop in stops] == [Reason.HYPERCALL]


def test_many_threads_come_to_new_pages_at_once() -> None:
    """Both find the same pages undecoded, again and again."""
    guest = Guest(NativeEngine, "nop")
    pages = 60
    for page in range(pages):
        go_on = f"b {OTHER + (page + 1) * 0x1000:#x}" if page < pages - 1 else "sc 1"
        guest.place(OTHER + page * 0x1000, f"addi r3,r3,1; {go_on}")
    threads = [guest.thread(OTHER, real=True) for _ in range(2)]
    run_both(guest, *threads)
    assert [thread.gpr[3] for thread in threads] == [pages, pages]
