"""Hypercalls that programs answer within the guest: as Python answers them, in every engine, to the tick."""

from __future__ import annotations

import random
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import pytest

from chronovisor.engine.concrete import ConcreteEngine, Stop
from chronovisor.engine.hypercalls import HypercallProgram
from chronovisor.engine.interface import Engine
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.layout import PAGE_SHIFT
from chronovisor.engine.native.library import library
from chronovisor.engine.native.state import NativeThread
from chronovisor.engine.regions import placing
from chronovisor.engine.regions.compile import WantedRegion, compile_region
from chronovisor.engine.state import Thread
from chronovisor.hypervisor import virtual_machine
from chronovisor.hypervisor.device_programs import BUFFERS, IDLE_GATE, SIGNAL_MODES
from chronovisor.hypervisor.exits import Hypercall
from chronovisor.hypervisor.hypercall_programs import PROGRAMS
from chronovisor.hypervisor.hypervisor import EngineMaker, Hypervisor
from chronovisor.hypervisor.interrupt_programs import Presenter
from chronovisor.hypervisor.kernel_hypercalls import ANSWERS
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.hypervisor.virtual_machine import VirtualMachine
from chronovisor.hypervisor.xics import (
    CPPR_SHIFT,
    FIRST_SOURCE,
    IPI,
    LEAST_FAVORED,
    LENT,
    MFRR_SHIFT,
    NUMBER,
    PRESENTER_WORD,
    XISR,
    Source,
)
from chronovisor.isa.assembly import assemble
from chronovisor.isa.bits import MSR
from chronovisor.isa.hypercall_notation import HypercallMachine
from chronovisor.isa.verifier import verify
from chronovisor.machine.device_hypercalls import HANDLERS
from chronovisor.machine.vio.dma_window import ENTRIES, DmaWindow
from chronovisor.memory.gate import MOST_LENT, Place
from chronovisor.memory.gate import WORDS as GATE_WORDS
from chronovisor.memory.guest_memory import PAGE_SIZE, GuestMemory
from chronovisor.memory.word_queue import PLACES, WORDS, WordQueue
from chronovisor.memory.words import words
from chronovisor.papr.hcalls import Hcall, PageInit, Status
from chronovisor.timebase.clock import RealTime, VirtualTime

MODE: Final = (True, False)
MEMORY: Final = 1 << 18
CODE, LOG, PAGES = 0x1000, 0x20000, 0x30000
NUMBERS: Final = range(FIRST_SOURCE, FIRST_SOURCE + 4)
CALLS: Final = 40
END: Final = int(Hcall.RTAS)
OF_DEVICES: Final = (Hcall.PUT_TCE, Hcall.PUT_TCE_INDIRECT, Hcall.STUFF_TCE, Hcall.VIO_SIGNAL)
WITH_GATES: Final = (Hcall.SEND_CRQ, Hcall.SEND_LOGICAL_LAN)
BUILT_IN: Final = frozenset(
    {Hcall.SET_SPRG0, Hcall.PAGE_INIT, Hcall.ADD_LOGICAL_LAN_BUFFER, *OF_DEVICES, *WITH_GATES}
)
"""Those that Python answers in user space alone."""

_SAVE: Final = "".join(f"mr r{24 + number}, r{number}\n" for number in (3, 4, 5))
_RESTORE: Final = "".join(f"mr r{number}, r{24 + number}\n" for number in (3, 4, 5))
EXTERNAL_HANDLER: Final = f"""
    {_SAVE}
    li r3, {Hcall.XIRR:#x}
    sc 1
    mr r21, r4
    std r4, 0(r20)
    addi r20, r20, 8
    li r3, {Hcall.IPI:#x}
    li r4, 0
    li r5, 0xff
    sc 1
    li r3, {Hcall.EOI:#x}
    mr r4, r21
    sc 1
    {_RESTORE}
    rfid
"""
DECREMENTER_HANDLER: Final = f"""
    {_SAVE}
    li32 r3, 0x7fffffff
    mtdec r3
    {_RESTORE}
    rfid
"""


def _machine(engine: EngineMaker, source: RealTime | VirtualTime) -> tuple[VirtualMachine, VirtualCpu]:
    """A machine of two vCPUs with presenters, and the first of them at CODE."""
    machine = VirtualMachine(Hypervisor(source, engine=engine))
    machine.give_memory(GuestMemory(MEMORY))
    xics = machine.make_xics()
    vcpus = [machine.add_vcpu(number) for number in (0, 1)]
    for vcpu in vcpus:
        xics.connect(vcpu.number, vcpu)
    for number in BUILT_IN:
        machine.hypercalls.enable(number, True)
    for vector, text in ((0x500, EXTERNAL_HANDLER), (0x900, DECREMENTER_HANDLER)):
        machine.memory.write(vector, assemble(text, origin=vector, little=False))
    state = vcpus[0].state
    state.CIA = CODE
    state.gpr[20] = LOG
    return machine, vcpus[0]


def _arguments(number: int, draw: random.Random) -> tuple[int, int, int]:
    page = PAGES + 0x1000 * draw.randrange(4) + draw.choice([0, 0, 0, 8])
    match number:
        case Hcall.CPPR:
            return draw.choice([0, 2, 4, 6, LEAST_FAVORED]), 0, 0
        case Hcall.EOI:
            interrupt = draw.choice([0, IPI, IPI, *NUMBERS])
            return draw.choice([0, 2, 4, 6, LEAST_FAVORED]) << 24 | interrupt, 0, 0
        case Hcall.IPI:
            return draw.choice([0, 0, 0, 1, 7]), draw.choice([3, 5, LEAST_FAVORED, LEAST_FAVORED]), 0
        case Hcall.IPOLL | Hcall.PROD:
            return draw.choice([0, 0, 1, 7]), 0, 0
        case Hcall.PAGE_INIT:
            flags = draw.choice([PageInit.ZERO, PageInit.COPY, PageInit.ZERO | PageInit.COPY])
            where = draw.choice([page, page, page, MEMORY])
            return int(flags), where, PAGES + 0x1000 * draw.randrange(5)
        case _:
            return draw.getrandbits(31), 0, 0


def _course(draw: random.Random) -> str:
    """A guest that makes calls, logs what they return, and changes its interrupts and its timer between."""
    lines = []
    numbers = [int(one.number) for one in PROGRAMS if one.number not in BUILT_IN] + [int(Hcall.PROD)]
    for _ in range(CALLS):
        match draw.randrange(6):
            case 0:
                lines += [f"li32 r7, {draw.choice([0, 0x8000])}", "mtmsrd r7, 1"]
            case 1:
                lines += [f"li32 r7, {draw.choice([1, 20_000, 0xFFFF_FFFF])}", "mtdec r7"]
        number = draw.choice(numbers)
        first, second, third = _arguments(number, draw)
        lines += [
            f"li32 r6, {third}",
            f"li32 r5, {second}",
            f"li32 r4, {first}",
            f"li32 r3, {number}",
            "sc 1",
        ]
        lines += ["std r3, 0(r20)", "std r4, 8(r20)", "std r5, 16(r20)", "addi r20, r20, 24"]
    return "\n".join([*lines, f"li32 r3, {END}", "sc 1"])


def _set_up(machine: VirtualMachine, draw: random.Random) -> None:
    xics = machine.xics
    assert xics is not None
    for number in NUMBERS:
        xics.set_source(number, Source(draw.choice([0, 0, 1]), draw.randrange(7)))
    for _ in range(6):
        presenter = xics.presenters[draw.choice([0, 0, 1])]
        match draw.randrange(4):
            case 0:
                xics.set_priority(presenter, draw.choice([0, 2, 4, 6, LEAST_FAVORED]))
            case 1:
                xics.request(presenter, draw.choice([3, 5, LEAST_FAVORED]))
            case 2:
                xics.accept(presenter)
            case 3:
                xics.set_line(draw.choice(NUMBERS), True)


class _End(NamedTuple):
    """All that a course can leave behind."""

    gpr: list[int]
    registers: tuple[int, ...]
    memory: bytes
    presenters: tuple[int, ...]
    sources: tuple[Source, ...]
    executed: int
    ticks: int


class _Endless(Exception):
    """A course has not come to its end."""


def _run(engine: EngineMaker, seed: int, answers: bool, count: Callable[[Any], None]) -> tuple[_End, int]:
    """Run a course; what it leaves behind, and how many of its calls programs have answered."""
    draw = random.Random(seed)
    source = VirtualTime()
    machine, vcpu = _machine(engine, source)
    machine.memory.write(CODE, assemble(_course(draw), origin=CODE, little=False))
    _set_up(machine, draw)
    count(machine.engine)
    if not answers:
        vcpu.state.answers = 0
    _limit(machine.engine)
    ended = vcpu.run()
    assert isinstance(ended, Hypercall), ended
    assert ended.nr == END
    state, xics = vcpu.state, machine.xics
    assert xics is not None
    registers = (state.CIA, state.MSR, state.get("SPRG0"), state.get("SRR0"), state.get("SRR1"))
    end = _End(
        list(state.gpr),
        registers,
        machine.memory.read(0, MEMORY),
        tuple(xics.state(server) for server in (0, 1)),
        tuple(xics.sources.values()),
        state.executed,
        source.ticks(),
    )
    return end, state.hypercalls_answered


@pytest.fixture(scope="module", autouse=True)
def _handlers() -> None:
    library(MODE).ensure()


MOST: Final = 100_000
"""Instructions of a course that has an end."""


def _limit(engine: Any) -> None:
    """Have an engine give up a course that has no end."""
    run = engine.run

    def limited(state: Thread, budget: int) -> Stop:
        if state.executed > MOST:
            raise _Endless
        stop: Stop = run(state, min(budget, MOST))
        return stop

    engine.run = limited


class _Counted:
    """What the concrete evaluator's programs do, by their names."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.declined: Counter[str] = Counter()

    def attach(self, engine: Any) -> None:
        """Count an engine's programs."""
        names = {one.number: one.program.name for one in PROGRAMS}
        answer = engine._hypercall

        def counted(state: Thread) -> Stop | None:
            name, before = names.get(state.gpr[3]), state.hypercalls_answered
            stop: Stop | None = answer(state)
            if name is not None:
                answered = state.hypercalls_answered > before
                (self.answered if answered else self.declined)[name] += 1
            return stop

        engine._hypercall = counted


def _nothing(engine: Any) -> None:
    """Leave an engine as it is."""


COURSES: Final = 12


def test_programs_answer_as_python_does_to_the_tick_in_every_engine() -> None:
    counted = compare_courses(range(COURSES))
    by_python = {one.program.name for one in PROGRAMS if one.number in ANSWERS}
    assert all(counted.answered[name] > 3 for name in by_python)
    # H_XIRR declines only if another thread is faster.
    assert all(counted.declined[name] > 3 for name in by_python - {"h_xirr"})


def compare_courses(seeds: Sequence[int]) -> _Counted:
    """Compare the courses of these seeds; return how often programs answered."""
    counted = _Counted()
    for seed in seeds:
        expected, none = _run(ConcreteEngine, seed, False, _nothing)
        assert none == 0
        found, by_programs = _run(ConcreteEngine, seed, True, counted.attach)
        assert found == expected, f"seed {seed}"
        assert _run(NativeEngine, seed, True, _nothing) == (expected, by_programs), f"seed {seed}"
    return counted


def _wrong_xirr(m: HypercallMachine) -> None:
    presenter = Presenter(m)
    cleared = presenter.word & ~(XISR | (0xFF << CPPR_SHIFT)) | (presenter.pending_priority << CPPR_SHIFT)
    presenter.become(m.select(presenter.shows, cleared, presenter.word))
    m.gpr[4], m.gpr[3] = presenter.xirr, 0


def _wrong_cppr(m: HypercallMachine) -> None:
    presenter = Presenter(m)
    hole = ~(0xFF << CPPR_SHIFT)
    presenter.become((presenter.word & hole) | ((m.gpr[4] & 0xFF) << CPPR_SHIFT))
    m.gpr[3] = 0


def _wrong_eoi(m: HypercallMachine) -> None:
    Presenter(m).set_priority((m.gpr[4] >> 24) & 0xFF)
    m.gpr[3] = 0


def _wrong_eoi_of_a_source(m: HypercallMachine) -> None:
    number = m.gpr[4] & (XISR >> 32)
    with m.when((number & ~3).ne(FIRST_SOURCE) | (m.word(m.value(LENT), number) & NUMBER).ne(number)):
        m.decline()
    Presenter(m).set_priority((m.gpr[4] >> 24) & 0xFF)
    m.gpr[3] = 0


def _wrong_ipi(m: HypercallMachine) -> None:
    with m.when((m.gpr[5] & 0xFF).ne(LEAST_FAVORED)):
        m.decline()
    presenter = Presenter(m)
    presenter.become(presenter.word | (LEAST_FAVORED << MFRR_SHIFT))
    m.gpr[3] = 0


def _wrong_cede(m: HypercallMachine) -> None:
    with m.when((m.shared(PRESENTER_WORD) & XISR).eq(0)):
        m.decline()
    m.gpr[3] = 0
    m.resync()


MUTANTS: Final = {
    "H_XIRR leaves the priority of what it accepted": (Hcall.XIRR, _wrong_xirr),
    "H_CPPR lets nothing in that waits": (Hcall.CPPR, _wrong_cppr),
    "H_EOI forgets the source": (Hcall.EOI, _wrong_eoi),
    "H_EOI leaves the interrupt of a source lent": (Hcall.EOI, _wrong_eoi_of_a_source),
    "H_IPI takes every target for the caller": (Hcall.IPI, _wrong_ipi),
    "H_CEDE does not let interrupts in": (Hcall.CEDE, _wrong_cede),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_program_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    number, meaning = MUTANTS[name]
    m = HypercallMachine()
    meaning(m)
    wrong = verify(m.trace.program("wrong", ()))
    programs = tuple(
        HypercallProgram(one.number, one.place, wrong) if one.number == number else one for one in PROGRAMS
    )
    monkeypatch.setattr(virtual_machine, "PROGRAMS", programs)
    for seed in range(COURSES):
        try:
            found, _ = _run(ConcreteEngine, seed, True, _nothing)
        except _Endless:
            return
        if found != _run(ConcreteEngine, seed, False, _nothing)[0]:
            return
    pytest.fail("nothing differs")


def _put_region_in(engine: Engine, state: Thread, hot: int) -> None:
    """Compile a region around the code at an address and put it in."""
    assert isinstance(engine, NativeEngine)
    assert isinstance(state, NativeThread)
    pages = engine.pages_of(state)
    page, offset = divmod(hot, 1 << PAGE_SHIFT)
    snapshots = {0: pages.snapshot(page)}
    contents = {0: snapshots[0].content}
    region = placing.load(compile_region(WantedRegion(pages.library.mode, contents, offset)))
    assert placing.put_in(pages, snapshots, region)
    assert region.handlers


def test_hypercalls_between_regions() -> None:
    """A loop that is a region, and around it a loop of calls of H_SET_SPRG0, each of which counts once."""
    text = (
        f"outer: li r3, {Hcall.SET_SPRG0:#x}; li r9, 10; mtctr r9; "
        "inner: addi r4, r4, 1; addi r5, r5, 1; addi r6, r6, 1; bdnz inner; "
        "sc 1; add r7, r7, r3; addi r8, r8, -1; cmpldi r8, 0; bne outer; "
        f"li32 r3, {END}; sc 1"
    )
    made = {}
    for name, engine in {"regions": NativeEngine, "concrete": ConcreteEngine}.items():
        machine, vcpu = _machine(engine, VirtualTime())
        machine.memory.write(CODE, assemble(text, origin=CODE, little=False))
        state = vcpu.state
        state.gpr[8] = 100
        if name == "regions":
            _put_region_in(machine.engine, state, CODE + 12)
        ended = vcpu.run()
        assert isinstance(ended, Hypercall)
        assert state.hypercalls_answered == 100
        made[name] = (list(state.gpr), state.get("SPRG0"), state.executed)
    assert made["regions"] == made["concrete"]
    assert made["regions"][1] == 1000


@pytest.mark.parametrize("engine", [ConcreteEngine, NativeEngine])
def test_pages_are_filled_as_user_space_fills_them(engine: EngineMaker) -> None:
    draw = random.Random(7)
    source = VirtualTime()
    machine, vcpu = _machine(engine, source)
    memory, statuses = machine.memory, Counter[Status]()
    memory.write(CODE, assemble("again: sc 1; li32 r3, 0x58; sc 1; b again", origin=CODE, little=False))
    for _ in range(60):
        before = random.Random(draw.random()).randbytes(MEMORY - PAGES)
        memory.write(PAGES, before)
        memory.dirty.take()
        flags, page, origin = _arguments(Hcall.PAGE_INIT, draw)
        vcpu.state.gpr[3:7] = [int(Hcall.PAGE_INIT), flags, page, origin]
        vcpu.state.CIA = CODE
        answered = vcpu.state.hypercalls_answered
        vcpu.run()
        assert vcpu.state.hypercalls_answered == answered + 1
        written = memory.dirty.take()
        model, expected = _page_init(before, flags, page, origin)
        status = Status.SUCCESS if expected else Status.PARAMETER
        statuses[status] += 1
        assert memory.read(PAGES, MEMORY - PAGES) == model
        # r3 was overwritten by the second call's number.
        assert bool(written) == expected
    assert min(statuses.values()) > 5
    assert len(statuses) == 2


def _page_init(before: bytes, flags: int, page: int, origin: int) -> tuple[bytes, bool]:
    """What H_PAGE_INIT makes of the memory from PAGES on, and whether it does anything."""
    copies = bool(flags & PageInit.COPY)
    for address in (page, *([origin] if copies else [])):
        if address % 0x1000 or address >= MEMORY:
            return before, False
    after = bytearray(before)
    content = before[origin - PAGES :][:0x1000] if copies else bytes(0x1000)
    after[page - PAGES : page - PAGES + 0x1000] = content
    return bytes(after), True


@pytest.mark.parametrize("engine", [ConcreteEngine, NativeEngine])
def test_what_is_not_for_a_program_comes_up(engine: EngineMaker) -> None:
    """In problem state, or if user space wants the call."""
    machine, vcpu = _machine(engine, VirtualTime())
    text = f"li r3, {Hcall.SET_SPRG0:#x}; li r4, 7; sc 1; li32 r3, {END}; sc 1"
    machine.memory.write(CODE, assemble(text, origin=CODE, little=False))
    machine.memory.write(0x700, assemble(f"li32 r3, {END}; sc 1", origin=0x700, little=False))
    machine.hypercalls.enable(Hcall.SET_SPRG0, False)
    ended = vcpu.run()
    assert isinstance(ended, Hypercall)
    assert (ended.nr, ended.args[0]) == (Hcall.SET_SPRG0, 7)
    machine.hypercalls.enable(Hcall.SET_SPRG0, True)
    vcpu.state.CIA = CODE
    vcpu.state.set_msr(vcpu.state.MSR | int(MSR.PR))
    ended = vcpu.run()
    assert isinstance(ended, Hypercall)
    assert (ended.nr, vcpu.state.get("SPRG0"), vcpu.state.get("SRR0")) == (END, 0, CODE + 8)
    assert vcpu.state.hypercalls_answered == 0


@pytest.mark.parametrize("engine", [ConcreteEngine, NativeEngine])
def test_a_sources_interrupt_is_ended_by_a_program_unless_another_waits(engine: EngineMaker) -> None:
    machine, vcpu = _machine(engine, VirtualTime())
    xics, state = machine.xics, vcpu.state
    assert xics is not None
    text = f"sc 1; li32 r3, {END}; sc 1"
    machine.memory.write(CODE, assemble(text, origin=CODE, little=False))

    def call(number: Hcall, argument: int) -> bool:
        """Make a call; whether a program has answered it."""
        before = state.hypercalls_answered
        state.gpr[3:5] = [int(number), argument]
        state.CIA = CODE
        vcpu.run()
        return state.hypercalls_answered > before

    first, second = NUMBERS[0], NUMBERS[0] + 256
    for number in (first, second):
        xics.set_source(number, Source(0, 5))
    call(Hcall.CPPR, LEAST_FAVORED)
    for comes_again in (False, True, False):
        xics.set_line(first, True)
        assert call(Hcall.XIRR, 0)
        assert state.gpr[4] == LEAST_FAVORED << 24 | first
        # Another source at the same place of the table.
        assert not call(Hcall.EOI, LEAST_FAVORED << 24 | second)
        assert call(Hcall.CPPR, 5)
        if comes_again:
            xics.set_line(first, True)
        assert call(Hcall.EOI, LEAST_FAVORED << 24 | first) != comes_again
        assert xics.presenters[0].xisr == (first if comes_again else 0)
        if comes_again:
            assert call(Hcall.XIRR, 0)
            assert state.gpr[4] & 0xFFFFFF == first
            assert call(Hcall.EOI, LEAST_FAVORED << 24 | first)
        # Once is enough.
        assert not call(Hcall.EOI, LEAST_FAVORED << 24 | first)
        assert not xics.source(first).presented


def test_one_thread_accepts_while_another_sends() -> None:
    """The guest's calls run without any lock of Python's. No interrupt is lost, and none comes twice."""
    machine, vcpu = _machine(NativeEngine, RealTime())
    memory, xics, monitor = machine.memory, machine.xics, machine.host.scheduler.monitor
    assert xics is not None
    memory.write(CODE, assemble(_RECEIVER, origin=CODE, little=False))
    for number in NUMBERS:
        xics.set_source(number, Source(0, 3 + number % 3))
    thread = threading.Thread(target=vcpu.run)
    thread.start()
    presenter, sent = xics.presenters[0], Counter[int]()
    draw, end = random.Random(5), time.monotonic() + 300

    def counted(number: int) -> int:
        return memory.load(LOG + 8 * number, 8, False)

    try:
        while sum(sent.values()) < SENT and time.monotonic() < end:
            number = draw.choice([IPI, IPI, *NUMBERS])
            if counted(number) < sent[number]:
                continue
            with monitor:
                if number == IPI and presenter.mfrr == LEAST_FAVORED:
                    xics.request(presenter, draw.choice([3, 5]))
                elif number != IPI and not xics.sources[number].presented:
                    xics.set_line(number, True)
                else:
                    continue
            sent[number] += 1
        while any(counted(number) != sent[number] for number in sent) and time.monotonic() < end:
            time.sleep(0.001)
        received = Counter({number: counted(number) for number in sent})
    finally:
        vcpu.kick()
        thread.join()
    print(f"received {received}; {vcpu.state.hypercalls_answered} calls were answered without Python")
    assert received == sent
    assert sum(sent.values()) == SENT
    assert vcpu.state.hypercalls_answered > SENT


SENT: Final = 400
_RECEIVER: Final = f"""
again:
    li r3, {Hcall.CPPR:#x}
    li r4, 0xff
    sc 1
    li r3, {Hcall.XIRR:#x}
    sc 1
    mr r21, r4
    clrldi r5, r4, 40
    cmpldi r5, 0
    beq again
    sldi r6, r5, 3
    ldx r7, r20, r6
    addi r7, r7, 1
    stdx r7, r20, r6
    cmpldi r5, {IPI}
    bne ended
    li r3, {Hcall.IPI:#x}
    li r4, 0
    li r5, 0xff
    sc 1
ended:
    li r3, {Hcall.EOI:#x}
    mr r4, r21
    sc 1
    li r3, {Hcall.CPPR:#x}
    li r4, 4
    sc 1
    b again
"""


UNIT: Final = 0x7100_0010
WINDOW: Final = UNIT | 1 << 31


def _device_call(draw: random.Random) -> tuple[int, ...]:
    """A call for the device, the odd one out of order: its number and its arguments."""
    number = draw.choice(OF_DEVICES)
    named = draw.choice([UNIT, UNIT, UNIT + 1, UNIT | 1 << 32] if number == Hcall.VIO_SIGNAL else
                        [WINDOW, WINDOW, WINDOW, WINDOW, WINDOW + 1, WINDOW | 1 << 32, UNIT])  # fmt: skip
    if number == Hcall.VIO_SIGNAL:
        return int(number), named, draw.choice([0, 1, 1, 2, 1 << 63]), 0, 0
    last = (ENTRIES - 1) * PAGE_SIZE
    place = draw.choice([0, 0x5000, last - PAGE_SIZE, last, last + PAGE_SIZE, (1 << 64) - PAGE_SIZE, 0x5008])
    word = draw.getrandbits(64)
    count = draw.choice([0, 1, 2, 3, 512, 513, 1 << 16, (1 << 16) + 1, (1 << 64) - 1])
    if number == Hcall.PUT_TCE_INDIRECT:
        word = draw.choice([PAGES, PAGES, PAGES + 8, MEMORY - PAGE_SIZE, MEMORY, 0xFFFF_FFFF_FFFF_F000])
    return int(number), named, place, word, count


@pytest.mark.parametrize("engine", [ConcreteEngine, NativeEngine])
def test_programs_set_a_devices_words_as_user_space_does(engine: EngineMaker) -> None:
    """And they leave to user space what it refuses."""
    draw = random.Random(11)
    machine, vcpu = _machine(engine, VirtualTime())
    entries = memoryview(bytearray(8 * ENTRIES)).cast("Q")
    mode = memoryview(bytearray(8)).cast("Q")
    machine.share_words(WINDOW, entries)
    machine.share_words(UNIT | SIGNAL_MODES, mode)
    memory = machine.memory
    memory.write(CODE, assemble("again: sc 1; li32 r3, 0x58; sc 1; b again", origin=CODE, little=False))
    model = _Device(memory)
    seen = Counter[tuple[int, Status]]()
    for _ in range(4000):
        memory.write(PAGES, draw.randbytes(PAGE_SIZE))
        number, *arguments = _device_call(draw)
        vcpu.state.gpr[3:8] = [number, *arguments]
        vcpu.state.CIA = CODE
        answered = vcpu.state.hypercalls_answered
        ended = vcpu.run()
        assert isinstance(ended, Hypercall)
        answer = HANDLERS[number](model, None, (*arguments, *[0] * 5))  # type: ignore[arg-type]
        by_program = vcpu.state.hypercalls_answered > answered
        assert by_program == (answer.status is Status.SUCCESS), (hex(number), list(map(hex, arguments)))
        assert by_program or ended.nr == number
        assert entries.tobytes() == model.table.tobytes()
        assert bool(mode[0]) == model.signals
        seen[number, answer.status] += 1
    assert len(seen) == 2 * len(OF_DEVICES)
    assert min(seen.values()) > 3


def _buffer(draw: random.Random) -> int:
    """A descriptor, the odd one out of order."""
    if draw.random() < 0.1:
        return draw.getrandbits(64)
    return 1 << 63 | draw.choice([0, 8, *[9, 2048, 0xFF_FFFF] * 6]) << 32 | draw.getrandbits(30) << 2


@pytest.mark.parametrize("engine", [ConcreteEngine, NativeEngine])
def test_buffers_are_left_in_a_cards_queue_while_it_takes_them(engine: EngineMaker) -> None:
    draw = random.Random(12)
    machine, vcpu = _machine(engine, VirtualTime())
    table = words(WORDS)
    machine.share_words(UNIT | BUFFERS, table)
    queue, model, is_open, taken = WordQueue(table), list[int](), False, 0
    machine.memory.write(CODE, assemble(f"sc 1; li32 r3, {END}; sc 1", origin=CODE, little=False))
    seen = Counter[str]()
    for number in range(1600):
        if number % 800 == 20:
            assert queue.take() == model
            taken, model = taken + len(model), []
            queue.open()
            is_open = True
        elif number % 800 == 790:
            queue.close()
            is_open = False
        unit, word = draw.choice([UNIT] * 9 + [UNIT + 1, UNIT | 1 << 32]), _buffer(draw)
        vcpu.state.gpr[3:6] = [int(Hcall.ADD_LOGICAL_LAN_BUFFER), unit, word]
        vcpu.state.CIA = CODE
        answered = vcpu.state.hypercalls_answered
        ended = vcpu.run()
        assert isinstance(ended, Hypercall)
        makes_sense = bool(word >> 63) and word >> 32 & 0xFF_FFFF > 8 and not word & 3
        why = (
            "no card" if unit != UNIT
            else "no sense" if not makes_sense
            else "closed" if not is_open
            else "full" if len(model) == PLACES
            else "taken"
        )  # fmt: skip
        seen[why] += 1
        assert (vcpu.state.hypercalls_answered > answered) == (why == "taken"), why
        assert ended.nr == (END if why == "taken" else Hcall.ADD_LOGICAL_LAN_BUFFER)
        if why == "taken":
            model.append(word)
    assert queue.take() == model
    assert taken == PLACES
    assert min(seen[why] for why in ("no card", "no sense", "closed", "full", "taken")) > 3


@pytest.mark.parametrize("engine", [ConcreteEngine, NativeEngine])
def test_a_buffer_is_lent_in_place_of_a_used_one_else_left_in_the_queue(engine: EngineMaker) -> None:
    draw = random.Random(13)
    machine, vcpu = _machine(engine, VirtualTime())
    gate, table = words(GATE_WORDS), words(WORDS)
    machine.share_words(IDLE_GATE, gate)
    machine.share_words(UNIT | BUFFERS, table)
    queue = WordQueue(table)
    queue.open()
    machine.memory.write(CODE, assemble(f"sc 1; li32 r3, {END}; sc 1", origin=CODE, little=False))
    lent, most, seen = deque[int](), 0, Counter[str]()
    for number in range(3000):
        if number % 500 == 0:
            # Another unit's every now and then.
            gate[Place.UNIT] = UNIT + (number == 1000)
            most = draw.choice((1, 7, MOST_LENT))
            lent = deque(1 << 63 | 512 << 32 | 4 * place for place in range(most))
            gate[Place.LENT], gate[Place.ADDED], gate[Place.USED] = most, 0, 0
            gate[Place.BUFFER : Place.BUFFER + most] = array("Q", lent)
        gate[Place.OPEN], gate[Place.BUSY] = draw.random() < 0.9, draw.random() < 0.1
        for _ in range(draw.choice((0, 0, 1, 2))):
            if lent:
                used = gate[Place.USED]
                assert gate[Place.BUFFER + used % MOST_LENT] == lent.popleft()
                gate[Place.USED] = used + 1
        word = 1 << 63 | draw.choice((512, 512, 512, 511, 2048)) << 32 | 4 * number
        vcpu.state.gpr[3:6] = [int(Hcall.ADD_LOGICAL_LAN_BUFFER), UNIT, word]
        vcpu.state.CIA = CODE
        is_busy = gate[Place.BUSY]
        ended = vcpu.run()
        assert isinstance(ended, Hypercall)
        assert ended.nr == END
        why = (
            "another" if gate[Place.UNIT] != UNIT
            else "closed" if not gate[Place.OPEN]
            else "size" if word >> 32 & 0xFF_FFFF != 512
            else "all are there" if len(lent) == most
            else "busy" if is_busy
            else "lent"
        )  # fmt: skip
        seen[why] += 1
        if why == "lent":
            lent.append(word)
        assert queue.take() == ([] if why == "lent" else [word]), why
        assert gate[Place.BUSY] == is_busy
        assert gate[Place.LENT] + gate[Place.ADDED] - gate[Place.USED] == len(lent)
    assert len(seen) == 6
    assert min(seen.values()) > 50


def test_no_buffer_is_lost_while_a_card_takes_buffers_opens_and_closes() -> None:
    machine, vcpu = _machine(NativeEngine, RealTime())
    table, ended = words(WORDS), list[int]()
    machine.share_words(UNIT | BUFFERS, table)
    queue = WordQueue(table)
    text = "again: mr r3, r10; sc 1; addi r5, r5, 4; cmpld r5, r11; bne again; mr r3, r12; sc 1"
    machine.memory.write(CODE, assemble(text, origin=CODE, little=False))
    first = 1 << 63 | 2048 << 32
    behind = first + 4 * GIVEN
    vcpu.state.gpr[4:6] = [UNIT, first]
    vcpu.state.gpr[10:13] = [int(Hcall.ADD_LOGICAL_LAN_BUFFER), behind, END]

    def guest() -> None:
        while True:
            call = vcpu.run(0 if ended else None)
            assert isinstance(call, Hypercall)
            if call.nr == END:
                break
            ended.append(call.args[1])

    thread = threading.Thread(target=guest)
    thread.start()
    taken, draw = list[int](), random.Random(3)
    while thread.is_alive():
        if draw.random() < 0.5:
            queue.open()
        else:
            queue.close()
        taken += queue.take()
        time.sleep(0)
    thread.join()
    taken += queue.take()
    assert taken == sorted(taken)
    assert sorted(taken + ended) == list(range(first, behind, 4))
    assert len(taken) > 100


GIVEN: Final = 5000


class _Device:
    """A machine with one device, as far as user space's answers need one."""

    def __init__(self, memory: GuestMemory) -> None:
        self.memory = memory
        self.signals = False
        self.table = memoryview(bytearray(8 * ENTRIES)).cast("Q")
        self._window = DmaWindow(memory, lambda *_: None, self.table)
        self.vio = self

    def window(self, number: int) -> DmaWindow | None:
        return self._window if number == WINDOW else None

    def device(self, unit: int) -> _Device | None:
        return self if unit == UNIT else None
