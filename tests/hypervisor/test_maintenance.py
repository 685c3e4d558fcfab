"""A core's timebase fails: it is repaired before anybody reads it, and no offset is taken for damage."""

from __future__ import annotations

import random
import re
import threading
import time
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little_guests import (
    GRANULE,
    RFID,
    Guest,
    Log,
    WrongTimeError,
    branch,
    hcall,
    li,
    lis,
    mftb,
    mtdec,
    power8,
    run_together,
    spin,
    user_call,
    watch_readings,
)

from chronovisor.engine.choice import engine_named
from chronovisor.hypervisor.exits import Exit, Hypercall
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.maintenance import Maintenance
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.kvm.embedded.system import EmbeddedSystem
from chronovisor.machine.host import Host as Machine
from chronovisor.papr.hcalls import Hcall
from chronovisor.papr.vpa import VPA_DTL_ENABLE_MASK
from chronovisor.processor.core import Core
from chronovisor.processor.cpu_model import POWER8, PPC970, CpuModel
from chronovisor.report.switch_trace import line
from chronovisor.timebase.clock import HostClock, RealTime, SteppingTime, VirtualTime
from chronovisor.timebase.facility import TB_ERRORS, Tfmr, TimerFacility
from chronovisor.timebase.tbu40 import CoreTimebase
from chronovisor.timebase.trace import DispatchLogged, Event, OffsetApplied, TimebaseReloaded
from chronovisor.timebase.types import MASK64, GuestTime, Offset, Ticks

DAMAGES = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-100, 100), st.integers(0, 63).map(lambda n: 1 << n)
)
OFFSETS = st.sampled_from([Offset(0), Offset(7 * GRANULE), Offset((-9 * GRANULE) & MASK64), Offset(1 << 63)])
ORIGIN = 0x1234_5678_9ABC
ENOUGH_DISPATCHES = r"entries=([6-9]\d|\d{3})"
"""What the demonstration's guest prints once its log had at least 60 entries."""


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    watch_readings(monkeypatch)


# The facility alone


@given(damage=DAMAGES, adjust=st.integers(-(1 << 39), (1 << 39) - 1).map(lambda n: n << 24))
def test_a_timebase_is_loaded_only_when_its_errors_are_cleared(damage: int, adjust: int) -> None:
    timebase = CoreTimebase(HostClock(VirtualTime(77), ORIGIN))
    facility = TimerFacility(timebase)
    timebase.adjust = adjust
    facility.fail(Tfmr.RESIDUE_ERROR, Ticks(damage))
    wrong = timebase.read()
    assert (wrong - 77 - ORIGIN - adjust - damage) & MASK64 == 0
    for early in (Tfmr.MOVE_CHIP_TOD_TO_TB, Tfmr.LOAD_TOD_MOD, Tfmr.MOVE_CHIP_TOD_TO_TB):
        facility.write_tfmr(early)
        assert (timebase.read(), facility.errors) == (wrong, Tfmr.RESIDUE_ERROR)
        assert not facility.tfmr & Tfmr.TB_VALID
    facility.write_tfmr(Tfmr.CLEAR_TB_ERRORS)
    assert not facility.tfmr & Tfmr.TB_VALID, "errors forgotten make no timebase right"
    facility.write_tfmr(Tfmr.LOAD_TOD_MOD)
    facility.write_tfmr(Tfmr.MOVE_CHIP_TOD_TO_TB)
    assert timebase.read() == timebase.tod().value
    assert facility.tfmr & Tfmr.TB_VALID


@pytest.mark.parametrize("errors", [Tfmr(0), Tfmr.TB_VALID, Tfmr.MISSING_SYNC | Tfmr.LOAD_TOD_MOD])
def test_what_is_no_error_is_refused_and_changes_nothing(errors: Tfmr) -> None:
    host = power8(VirtualTime())
    with pytest.raises(ValueError, match="no error of a timebase"):
        host.maintenance.fail_timebase(0, Ticks(5), errors)
    assert host.cores[0].facility.tfmr == Tfmr.TB_VALID | Tfmr.SYNC_OCCURRED
    assert (host.cores[0].timebase.adjust, host.cores[0].hmer) == (0, 0)


@pytest.mark.parametrize("core", [-1, 2])
def test_a_core_that_is_not_there(core: int) -> None:
    host = power8(VirtualTime(), cores=2)
    with pytest.raises(IndexError, match="cores 0 to 1"):
        host.maintenance.fail_timebase(core, Ticks(5))
    with pytest.raises(IndexError, match="cores 0 to 1"):
        host.maintenance.trigger_debug(core)


# A host in virtual time


class Story:
    """Two virtual cores of two threads on two cores, of which one fails: what was told, and what was executed
    between a failure and its repair.
    """

    def __init__(self, offset: Offset, maintenance: type[Maintenance] = Maintenance, **more: Any) -> None:
        self.log = Log()
        self.source = VirtualTime()
        self.failed: dict[int, list[int]] = {}
        self.executed_meanwhile = 0
        self.where = ""
        self.others_disturbed = False
        self.wrong_dispatches = 0
        self.reloaded_under_a_thread = False
        self.host = power8(self.source, origin=ORIGIN, cores=2, observer=self._see, **more)
        self.host.maintenance = maintenance(self.host)
        self.stays = self.host.run_queue.stays
        self.guest = Guest(self.host, stride=2)
        self.guest.code(0x900, [lis(11, 0x7FFF), mtdec(11), RFID])
        self.vcpus = []
        for number in range(4):
            nap = [li(7, 5000), mtdec(7), *hcall(Hcall.CEDE)] if number == 0 else [*spin(30)]
            code = [mftb(4), *nap, mftb(5), *spin(3), mftb(6), *user_call()]
            vcpu = self.guest.vcpu(number, self.guest.code(0x1000 * (number + 1), code))
            vcpu.decrementer_expiry = GuestTime(self.host.clock.now().value + (1 << 30))
            vpa = 0x8000 + 0x1000 * number
            self.guest.memory.write(vpa + VPA_DTL_ENABLE_MASK.offset, VPA_DTL_ENABLE_MASK.pack(7))
            vcpu.areas.set_vpa(vpa)
            vcpu.areas.set_dispatch_trace_log(0xC000 + 0x1000 * number, 48 * 8)
            self.vcpus.append(vcpu)
        self.vcpus[0].set_offset(offset)
        self.vcpus[2].set_offset(Offset(3 * GRANULE))

    def fail_at(self, tick: int, damage: int, errors: Tfmr = Tfmr.MISSING_SYNC, core: int = 0) -> None:
        def fail() -> None:
            self.failed[core] = self._executed(core)
            self.where = self._state(self.host.cores[core])
            others = self._others(core)
            self.host.maintenance.fail_timebase(core, Ticks(damage), errors)
            self.others_disturbed |= self._others(core) != others

        self.source.call_at(tick, fail)

    def run(self) -> dict[int, tuple[int, ...]]:
        """Run every vCPU to its end; return the readings of each."""
        ends: dict[int, tuple[int, ...]] = {}

        def one_run(vcpu: VirtualCpu, ended: Exit) -> bool:
            assert isinstance(ended, Hypercall)
            ends[vcpu.number] = ended.args[:3]
            return False

        run_together(self.vcpus, one_run)
        return ends

    def entries(self, core: int) -> int:
        """How often a core was entered."""
        return sum(event.core == core for event in self.log.of(OffsetApplied))

    def _state(self, core: Core) -> str:
        stay = self.stays[core.number]
        if stay is None or stay.host_timebase is not None:
            return "host"
        if stay.applied is None or core.timebase.adjust != stay.applied.signed:
            return "switch"
        return "nap" if any(vcpu.ceded for vcpu in stay.inside) else "guest"

    def _others(self, core: int) -> list[object]:
        return [
            (other.timebase.adjust, other.facility.tfmr, other.hmer, stay and stay.leaving)
            for other, stay in zip(self.host.cores, self.stays, strict=True)
            if other.number != core
        ]

    def _executed(self, core: int) -> list[int]:
        stay = self.stays[core]
        return [vcpu.state.executed for vcpu in stay.inside] if stay is not None else []

    def _see(self, event: Event) -> None:
        self.log(event)
        if isinstance(event, DispatchLogged):
            stay = self.vcpus[event.vcpu].vcore.stay
            assert stay is not None
            self.wrong_dispatches += event.timebase != self.host.clock.now() + stay.entered_with
        if isinstance(event, TimebaseReloaded):
            stay = self.stays[event.core]
            self.reloaded_under_a_thread |= stay is not None and (
                stay.applied is not None or not stay.all_out
            )
        if isinstance(event, TimebaseReloaded) and self.failed.get(event.core) is not None:
            before, now = self.failed.pop(event.core), self._executed(event.core)
            self.executed_meanwhile += sum(now[: len(before)]) - sum(before)


MOMENTS = range(0, 250 * 256, 256 - 32)
"""From before the first entry until after the last exit; a switch has four accesses, 256 ticks each."""


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("offset", [0, 7 * GRANULE, (-9 * GRANULE) & MASK64], ids=["none", "ahead", "behind"])
def test_at_whatever_moment_it_fails_nobody_reads_a_wrong_time(offset: int) -> None:
    """In the host, inside a switch, in a guest that runs or naps, on the way out: nobody runs on meanwhile,
    and no other core leaves for it.
    """
    where: set[str] = set()
    for tick in MOMENTS:
        story = Story(Offset(offset))
        story.fail_at(tick, damage=0x12_3456_789A)
        ends = story.run()
        story.source.advance(MOMENTS.stop)
        (reloaded,) = story.log.of(TimebaseReloaded)
        assert (reloaded.core, reloaded.errors) == (0, Tfmr.MISSING_SYNC)
        assert not story.executed_meanwhile, f"a guest went on after the failure at {tick}"
        assert not story.host.check_sync()
        assert [(core.timebase.adjust, core.hmer, story.stays[core.number]) for core in story.host.cores] == [
            (0, 0, None)
        ] * 2
        for number, readings in ends.items():
            assert list(readings) == sorted(readings), f"vCPU {number} saw time go back"
        assert not story.others_disturbed
        assert not story.wrong_dispatches
        assert not story.reloaded_under_a_thread
        where.add(story.where)
    assert where == {"host", "guest", "nap", "switch"}


@pytest.mark.usefixtures("watched")
@settings(max_examples=60, deadline=None)
@given(
    offset=OFFSETS,
    failures=st.lists(
        st.tuples(
            st.integers(0, MOMENTS.stop), DAMAGES, st.sampled_from(list(TB_ERRORS)), st.sampled_from([0, 1])
        ),
        max_size=6,
    ),
)
def test_however_often_it_fails(offset: Offset, failures: list[tuple[int, int, Tfmr, int]]) -> None:
    story = Story(offset)
    for tick, damage, errors, core in failures:
        story.fail_at(tick, damage, errors, core)
    ends = story.run()
    story.source.advance(MOMENTS.stop)
    assert len(ends) == 4
    assert not story.host.check_sync()
    assert all(not core.timebase.adjust and not core.hmer for core in story.host.cores)
    assert bool(story.log.of(TimebaseReloaded)) == bool(failures)
    for vcpu in story.vcpus:
        assert vcpu.vcore.offset == (offset if vcpu.number < 2 else Offset(3 * GRANULE))


@pytest.mark.parametrize("model", [POWER8, PPC970])
def test_a_host_without_offsets_is_repaired_too(model: CpuModel) -> None:
    source = VirtualTime()
    host = Hypervisor(source, origin=ORIGIN, cpu_model=model)
    host.maintenance.fail_timebase(0, Ticks(-5), Tfmr.RESIDUE_ERROR)
    assert not host.check_sync()
    guest = Guest(host)
    vcpu = guest.vcpu(0, guest.code(0, [*spin(50), mftb(4), *user_call()]))
    source.call_at(20 * 256, lambda: host.maintenance.fail_timebase(0, Ticks(1 << 50), Tfmr.CORRUPT))
    ended = vcpu.run()
    assert isinstance(ended, Hypercall)
    assert ended.args[0] == (source.ticks() - 3 * 256 + ORIGIN) & MASK64
    assert not host.check_sync()


def test_decrementers_and_what_user_space_set_stay() -> None:
    story = Story(Offset(7 * GRANULE))
    before = [vcpu.decrementer_expiry for vcpu in story.vcpus]
    story.fail_at(20 * 256, damage=1 << 40)
    story.run()
    napped = 0
    assert [v.decrementer_expiry for n, v in enumerate(story.vcpus) if n != napped] == [
        expiry for n, expiry in enumerate(before) if n != napped
    ]


def test_a_debug_trigger_interrupts_and_leaves_the_timebase_alone() -> None:
    story = Story(Offset(7 * GRANULE))
    core = story.host.cores[0]
    loaded: list[str] = []
    core.timebase.load_from_tod = lambda: loaded.append("loaded")  # type: ignore[method-assign]
    story.source.call_at(30 * 256, lambda: story.host.maintenance.trigger_debug(0))
    story.run()
    assert not loaded
    assert not story.log.of(TimebaseReloaded)
    assert not core.hmer
    undisturbed = Story(Offset(7 * GRANULE))
    undisturbed.run()
    assert story.entries(0) > undisturbed.entries(0), "the interrupt never came"


def test_a_failure_in_the_midst_of_a_reading_comes_before_it() -> None:
    """The clock steps over the moment of the failure while the instruction reads it."""
    for reading in range(1, 60):
        source = SteppingTime()
        host = Hypervisor(source, origin=ORIGIN)
        guest = Guest(host)
        vcpu = guest.vcpu(0, guest.code(0, [*[mftb(n) for n in range(4, 12)], *user_call()]))
        vcpu.set_offset(Offset(7 * GRANULE))
        source.call_at(1 << 20, partial(host.maintenance.fail_timebase, 0, Ticks(1 << 40)))
        source.inject([*[0] * reading, 1 << 20])
        ended = vcpu.run()
        assert isinstance(ended, Hypercall)
        readings = [*ended.args[:8], (host.clock.now() + vcpu.vcore.offset).value]
        assert readings == sorted(readings)
        assert not host.check_sync()


def test_it_is_told_in_words() -> None:
    story = Story(Offset(7 * GRANULE))
    story.fail_at(20 * 256, 99, Tfmr.MISSING_STEP | Tfmr.RESIDUE_ERROR)
    story.run()
    (told,) = (line(event) for event in story.log.of(TimebaseReloaded))
    assert "core 0" in told
    assert "missing step, residue error" in told


# What it would be without: each guard taken out


class NeverRepaired(Maintenance):
    def handle(self, core: Core) -> None:
        core.hmer = 0


class NobodyInterrupted(Maintenance):
    """The error is there, and who runs goes on."""

    def _interrupt(self, core: Core) -> None:
        core.hmer = 0


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("maintenance", [NeverRepaired, NobodyInterrupted])
def test_without_the_repair_or_the_interrupt_a_guest_reads_a_wrong_time(
    maintenance: type[Maintenance],
) -> None:
    story = Story(Offset(7 * GRANULE), maintenance)
    story.fail_at(12 * 256, damage=0x12_3456_789A)
    with pytest.raises(WrongTimeError):
        story.run()


# Real time


@pytest.mark.parametrize("engine", ["concrete", "regions"])
def test_failures_at_random_under_vcpus_that_run_in_parallel(engine: str) -> None:
    """Readings lie between the host's times around each run, plus the offset, and never go back."""
    if engine == "regions":
        pytest.importorskip("llvmlite")
    host = power8(RealTime(), threads=2, cores=2, origin=ORIGIN, engine=engine_named(engine))
    guest = Guest(host, stride=2)
    reader = guest.code(0x1000, [mftb(4), *spin(2000), mftb(5), *user_call()])
    guest.code(0x900, [branch(0)])
    vcpus = [guest.vcpu(number, reader) for number in range(4)]
    offsets = [Offset(5 * GRANULE), Offset((-1 << 40) & MASK64)]
    problems: list[str] = []
    over = threading.Event()
    runs = [0] * 4
    for vcpu in vcpus:
        vcpu.set_offset(offsets[vcpu.number // 2])
        vcpu.decrementer_expiry = GuestTime(vcpu.decrementer_expiry.value + (1 << 60))

    def drive(vcpu: VirtualCpu) -> None:
        while not over.is_set():
            before = host.clock.now()
            ended = vcpu.run()
            after = host.clock.now()
            if not isinstance(ended, Hypercall):
                problems.append(f"vCPU {vcpu.number}: {ended}")
                return
            first, second = (GuestTime(word) - vcpu.vcore.offset for word in ended.args[:2])
            if min((first - before).value, (second - first).value, (after - second).value) < 0:
                problems.append(f"vCPU {vcpu.number}: {first}, {second} between {before} and {after}")
            vcpu.state.CIA = reader
            runs[vcpu.number] += 1

    threads = [threading.Thread(target=drive, args=(vcpu,), daemon=True) for vcpu in vcpus]
    for thread in threads:
        thread.start()
    choose = random.Random(4)
    failures = 0
    while (failures < 150 or min(runs) < 20) and not problems:
        host.maintenance.fail_timebase(
            choose.randrange(2), Ticks(choose.getrandbits(64)), choose.choice(list(TB_ERRORS))
        )
        failures += 1
        problems += host.check_sync()
        time.sleep(0.001)
    over.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not problems
    assert not host.check_sync()
    assert all(not core.timebase.adjust and not core.hmer for core in host.cores)


@pytest.mark.parametrize("cpu", ["power8", "power9"])
def test_a_guest_that_checks_its_time_and_timers_notices_nothing(cpu: str) -> None:
    """The demonstration's guest, on two threads, over at least a hundred failures of whatever it runs on, and
    until it has been dispatched often.
    """
    with Machine(cpu=cpu, threads=2, tb_origin=ORIGIN) as host:
        assert isinstance(host.system, EmbeddedSystem)
        hypervisor = host.system.hypervisor
        guest = host.boot("demo-le.elf", "4M", smp=2, threads=2, tb_offset=1 << 50)
        choose = random.Random(5)
        guest.resume()
        failures, deadline = 0, time.monotonic() + 120
        while failures < 100 or not re.search(ENOUGH_DISPATCHES, guest.console_text):
            assert time.monotonic() < deadline, f"hardly ever dispatched:\n{guest.console_text}"
            time.sleep(0.005)
            core = choose.randrange(len(hypervisor.cores))
            hypervisor.maintenance.fail_timebase(core, Ticks(choose.getrandbits(64)))
            failures += 1
            if failures % 20 == 0:
                guest.console.type("r")
        guest.console.type("tq")
        assert guest.run(60).ok
        report = dict(re.findall(r"(\w+)=(\S+)", guest.console_text))
    # What a guest writes into DEC has too few bits if the machine stops it for 4.2 seconds before that.
    was_stopped = int(report["largest_step"]) >= 1 << 31
    for what in ("back", "back_between", "early", *(() if was_stopped else ("lost",)), "outside"):
        assert report[what] == "0", guest.console_text
