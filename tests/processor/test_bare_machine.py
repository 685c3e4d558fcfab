"""A processor without a hypervisor: a program reads and sets its time, and a timebase fails under it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from chronovisor.engine.concrete import ConcreteEngine
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.library import library
from chronovisor.engine.state import Thread
from chronovisor.isa.assembly import assemble
from chronovisor.isa.bits import MSR
from chronovisor.memory.guest_memory import GuestMemory
from chronovisor.processor.core import HardwareThread
from chronovisor.processor.counters import RunningCounter, RunTime
from chronovisor.processor.cpu_model import POWER8, POWER9, CpuModel
from chronovisor.processor.live_registers import LiveRegisters
from chronovisor.processor.processor import Processor
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.facility import Hmer, Tfmr
from chronovisor.timebase.types import SourceTime, Ticks

TICKS = 256
PROGRAM = """
    mftb r4
    li r7, -5
    mtdec r7
    mfdec r5
    mfspr r6, 849
    mftb r8
"""
LEAVING = """
    mftb r4
    xsaddqp v1, v2, v3
    mftb r5
    nop
    xsaddqp v1, v2, v3
    xsaddqp v1, v2, v3
    mftb r6
"""
"""Native code leaves the arithmetic of binary128 to the concrete evaluator."""
SETS_DEC = """
    li r7, 12345
    mtdec r7
    mfdec r4
"""


def start(
    source: VirtualTime,
    thread: HardwareThread,
    program: str = PROGRAM,
    kind: type[ConcreteEngine] = ConcreteEngine,
) -> tuple[ConcreteEngine, Thread, Callable[[], None]]:
    """Put a program on a hardware thread; return the engine, its state, and what moves the clock."""
    memory = GuestMemory(1 << 16)
    memory.write(0x1000, assemble(program, origin=0x1000, little=True))
    engine = kind(memory)
    run_time, accounted = RunTime(source), 0

    def account() -> None:
        nonlocal accounted
        executed, accounted = state.executed - accounted, state.executed
        source.advance(executed * TICKS)

    line = SimpleNamespace(level=False)
    live = LiveRegisters(thread, {"VTB": RunningCounter(run_time)}, line, account, TICKS, lambda count: count)
    state = engine.thread(live)
    state.CIA = 0x1000
    state.set_msr(int(MSR.SF | MSR.LE | MSR.VEC | MSR.VSX))
    run_time.start(source.ticks())
    live.begin(thread, state)
    return engine, state, account


@pytest.mark.parametrize("model", [POWER8, POWER9], ids=lambda model: model.name)
def test_a_program_reads_the_time_of_its_core(model: CpuModel) -> None:
    source = VirtualTime()
    processor = Processor(source, origin=1 << 40, cores=2, threads_per_core=2, cpu_model=model)
    thread = processor.cores[1].threads[-1]
    source.advance(1000)
    engine, state, account = start(source, thread)
    while state.executed < 6:
        # A write to DEC ends a run, so that whoever runs the thread can look at what is due.
        engine.run(state, 6 - state.executed)
    account()
    assert state.gpr[4] == (1 << 40) + 1000
    assert state.gpr[5] == (-5 - TICKS) & 0xFFFF_FFFF
    assert thread.decrementer.asserted(thread.dec_width)
    assert state.gpr[6] == 4 * TICKS
    assert state.gpr[8] - state.gpr[4] == 5 * TICKS
    assert source.ticks() == SourceTime(1000 + 6 * TICKS)


@pytest.mark.parametrize("kind", [ConcreteEngine, NativeEngine])
def test_instructions_before_a_reading_count_whatever_executed_them(kind: type[ConcreteEngine]) -> None:
    source = VirtualTime()
    thread = Processor(source).cores[0].threads[0]
    library((True, True)).ensure()
    engine, state, _ = start(source, thread, LEAVING, kind)
    while state.executed < 7:
        engine.run(state, 7 - state.executed)
    assert [state.gpr[register] // TICKS for register in (4, 5, 6)] == [0, 2, 6]


@pytest.mark.parametrize("kind", [ConcreteEngine, NativeEngine])
def test_a_decrementer_that_is_set_back_from_outside_is_read_as_it_was_set(
    kind: type[ConcreteEngine],
) -> None:
    source = VirtualTime()
    thread = Processor(source).cores[0].threads[0]
    library((True, True)).ensure()
    engine, state, _ = start(source, thread, SETS_DEC, kind)
    before = thread.decrementer.deadline
    while state.executed < 2:
        engine.run(state, 2 - state.executed)
    assert thread.decrementer.deadline - before == 12345 + TICKS
    thread.decrementer.deadline = before
    engine.run(state, 1)
    assert state.gpr[4] == (before - 2 * TICKS) & 0xFFFF_FFFF


@pytest.mark.parametrize(
    ("model", "cores", "threads", "pirs"),
    [(POWER8, 2, 4, [[0, 1, 2, 3], [4, 5, 6, 7]]), (POWER9, 1, 4, [[0], [1], [2], [3]])],
    ids=lambda value: getattr(value, "name", None),
)
def test_threads_that_share_a_timebase_are_one_core(
    model: CpuModel, cores: int, threads: int, pirs: list[list[int]]
) -> None:
    processor = Processor(VirtualTime(), cores=cores, threads_per_core=threads, cpu_model=model)
    assert [[thread.pir for thread in core.threads] for core in processor.cores] == pirs
    assert (processor.physical_cores, processor.threads_per_physical_core) == (cores, threads)


def test_a_reading_of_a_timebase_that_failed_is_not_done() -> None:
    source = VirtualTime()
    processor = Processor(source)
    (core,) = processor.cores
    engine, state, _ = start(source, core.threads[0])
    core.fail_timebase(Tfmr.RESIDUE_ERROR, Ticks(12345))
    assert core.hmer == Hmer.TFAC_ERROR
    engine.run(state, 6)
    assert state.CIA == 0x1000
    assert state.gpr[4] == 0


def test_random_bits_repeat_themselves_in_virtual_time() -> None:
    drawn = [[Processor(VirtualTime(), origin=n).random_bits(64) for n in range(4)] for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 4
