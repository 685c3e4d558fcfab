"""A vCPU in H_CEDE naps in native code, on its core, and whatever is wanted of it ends the nap."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from little_guests import (
    LARGE_POWER8,
    RFID,
    WEEKS,
    Guest,
    a_minute,
    branch,
    hcall,
    ld,
    li,
    mr,
    mtdec,
    mtmsrd_ee,
    power8,
    std,
    user_call,
)
from little_guests import addi as add_immediate

from chronovisor.engine.choice import engine_named
from chronovisor.engine.native.library import library
from chronovisor.hypervisor import virtual_cpu
from chronovisor.hypervisor.exits import Hypercall, Kicked
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.hypervisor.xics import Source
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.papr.hcalls import Hcall
from chronovisor.timebase.clock import RealTime
from chronovisor.timebase.types import Ticks

SOURCE, COUNT = 0x1100, 0x4000
ROUNDS = 400
LONG = Ticks.from_ns(900_000_000).value
"""A nap that nobody ends takes so many ticks: ROUNDS of them would be six minutes."""
ALL = 60
"""Seconds that a test may take."""


class _Deadline:
    at = 0.0


@pytest.fixture(autouse=True)
def _long_naps(monkeypatch: pytest.MonkeyPatch) -> None:
    library((True, True)).ensure()
    monkeypatch.setattr(virtual_cpu, "MOST_NAP", LONG)
    _Deadline.at = time.monotonic() + ALL


def _guest(cores: int = 2) -> Guest:
    host = power8(RealTime(), threads=1, cores=cores, cpu_model=LARGE_POWER8, engine=engine_named("threaded"))
    return Guest(host)


def _sleeper(guest: Guest, number: int = 0) -> VirtualCpu:
    """A vCPU that does nothing but cede; it counts the interrupts of its presenter's."""
    at = 0x1000 * (number + 1)
    code = [mtdec(7), *hcall(Hcall.CEDE), branch(-2)]
    handler = [*hcall(Hcall.XIRR), mr(21, 4), ld(8, COUNT, 20), add_immediate(8, 8, 1), std(8, COUNT, 20)]
    guest.code(0x500, [*handler, mr(4, 21), *hcall(Hcall.EOI), RFID])
    vcpu = guest.vcpu(number, guest.code(at, code))
    vcpu.vcore.lpcr |= int(LPCR.LD)
    vcpu.state.gpr[7] = WEEKS
    return vcpu


def _until(holds: Callable[[], bool]) -> None:
    while not holds():
        assert time.monotonic() < _Deadline.at, "it never came, or naps took their whole time"
        time.sleep(0)


@contextmanager
def _running(vcpu: VirtualCpu) -> Iterator[None]:
    """Run it on another thread; it is kicked out at the end."""
    ended: list[object] = []
    thread = threading.Thread(target=lambda: ended.append(vcpu.run()), daemon=True)
    thread.start()
    try:
        yield
    finally:
        vcpu.kick()
        thread.join(60)
    assert not thread.is_alive()
    assert ended == [Kicked()]


def _asleep(vcpu: VirtualCpu) -> bool:
    return bool(vcpu.state.napping)  # type: ignore[attr-defined]  # a native thread's


def test_an_interrupt_ends_it_without_python() -> None:
    """Interrupts that come just before the nap, at its begin and in its midst."""
    guest, draw = _guest(), random.Random(3)
    xics = guest.machine.make_xics()
    vcpu = _sleeper(guest)
    xics.connect(0, vcpu)
    xics.set_priority(xics.presenters[0], 0xFF)
    xics.set_source(SOURCE, Source(0, 5))
    naps = 0
    with _running(vcpu):
        # Until it has napped, Python may answer.
        _until(lambda: _asleep(vcpu))
        answered = vcpu.state.hypercalls_answered
        for number in range(ROUNDS):
            if draw.random() < 0.5:
                _until(lambda: _asleep(vcpu))
                naps += 1
            with guest.host.scheduler.monitor:
                xics.set_line(SOURCE, True)
            _until(lambda wanted=number + 1: guest.word(COUNT) == wanted)
        answered = vcpu.state.hypercalls_answered - answered
    # H_XIRR and H_EOI, and the H_CEDE of each nap. Who is late to wake it, or to lend the source, may
    # leave a few to Python.
    assert answered >= 2 * ROUNDS + naps - ROUNDS // 10
    assert naps > ROUNDS // 4


@pytest.mark.parametrize("what", ["kick", "prod", "external"])
def test_what_the_hypervisor_wants_ends_it(what: str) -> None:
    guest = _guest()
    guest.code(0x500, [li(4, 0x500), *user_call()])
    sleep = guest.code(0x1000, [mtdec(7), *hcall(Hcall.CEDE), li(4, 1), *user_call()])
    vcpu = guest.vcpu(0, sleep)
    vcpu.vcore.lpcr |= int(LPCR.LD)
    draw = random.Random(4)
    expected = {"prod": 1, "external": 0x500}
    naps = 0
    for _ in range(ROUNDS):
        vcpu.state.CIA, vcpu.state.gpr[7] = sleep, WEEKS
        vcpu.state.set_msr(int(MSR.SF | MSR.ME | MSR.LE))
        waits = draw.random() < 0.5

        def cause(waits: bool = waits) -> None:
            if waits:
                _until(lambda: _asleep(vcpu))
            if what == "external":
                vcpu.set_external(True)
            else:
                getattr(vcpu, what)()

        comes = threading.Thread(target=cause)
        comes.start()
        with a_minute(vcpu):
            ended = vcpu.run()
        comes.join()
        _until(lambda: True)
        naps += waits
        if what == "kick":
            assert ended == Kicked()
        else:
            assert isinstance(ended, Hypercall)
            assert ended.args[0] == expected[what]
        vcpu.set_external(False)
    assert naps > ROUNDS // 4


def test_a_decrementer_ends_it() -> None:
    guest = _guest()
    guest.code(0x900, [li(4, 0x900), *user_call()])
    sleep = guest.code(0x1000, [mtdec(7), *hcall(Hcall.CEDE), li(4, 1), *user_call()])
    vcpu = guest.vcpu(0, sleep)
    for ticks in (0, 1, 10_000, 20_000, 100_000, 600_000):
        vcpu.state.CIA, vcpu.state.gpr[7] = sleep, ticks
        vcpu.state.set_msr(int(MSR.SF | MSR.ME | MSR.LE))
        begun = vcpu.host.source.ticks()
        with a_minute(vcpu):
            ended = vcpu.run()
        assert isinstance(ended, Hypercall)
        assert ended.args[0] == 0x900
        assert vcpu.host.source.ticks() - begun > ticks


def test_it_does_not_keep_the_core_from_who_waits_for_one() -> None:
    guest = _guest(cores=1)
    napping = _sleeper(guest)
    busy = guest.vcpu(1, guest.code(0x3000, [*user_call(), branch(-2)]))
    seen = 0
    with _running(napping):
        _until(lambda: _asleep(napping))
        for _ in range(ROUNDS):
            with a_minute(busy):
                assert isinstance(busy.run(), Hypercall)
            _until(lambda: True)
            # Who was woken for it naps again once nobody waits.
            napping.prod()
            if seen < 50:
                _until(lambda: _asleep(napping))
                seen += 1
    assert seen == 50


def test_who_is_traced_does_not_nap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace tells of each H_CEDE."""
    guest = _guest()
    vcpu = _sleeper(guest)
    told: list[str] = []

    class Trace:
        told = False

        def __getattr__(self, name: str) -> Callable[..., object]:
            return lambda *_: told.append(name)

    vcpu.trace = Trace()  # type: ignore[assignment]  # only as much of one as is used
    with _running(vcpu):
        for number in range(20):
            _until(lambda before=number: _asleep(vcpu) or told.count("ceding") > before)
            assert not _asleep(vcpu)
            vcpu.prod()
    assert told.count("woken") >= 20


def test_a_line_that_was_raised_before_the_guest_lets_it_in_is_seen_without_python() -> None:
    guest = _guest()
    guest.code(0x500, [li(4, 0x500), *user_call()])
    enable = guest.code(0x1000, [li(9, -1), mtmsrd_ee(9), branch(0)])
    vcpu = guest.vcpu(0, enable)
    vcpu.set_external(True)
    with a_minute(vcpu):
        ended = vcpu.run()
    assert isinstance(ended, Hypercall)
    assert ended.args[0] == 0x500
    assert vcpu.state.entered_natively("EXTERNAL") == 1
