"""No wake is lost, whatever the order in which a cede, a prod, an interrupt, an expiry and an offset come."""

from __future__ import annotations

import ctypes
import random
import sys
import threading
import time
from itertools import permutations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from little_guests import (
    GRANULE,
    LARGE_POWER8,
    WEEKS,
    Guest,
    a_minute,
    hcall,
    li,
    mtdec,
    power8,
    run_together,
    spin,
    std,
    user_call,
)

from chronovisor.engine.choice import engine_named
from chronovisor.hypervisor.exits import Exit, Hypercall, Kicked
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.scheduler import QUANTUM, Parallel
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.papr.hcalls import Hcall
from chronovisor.timebase.clock import RealTime, VirtualTime
from chronovisor.timebase.types import Offset

INSTRUCTION = 256
SLOT = 100 * INSTRUCTION
CEDED = 400
"""Instructions before the H_CEDE."""
TIMER = 40 * SLOT
"""DEC, set at the start."""
SLACK = 40 * INSTRUCTION
"""What an entry, an interrupt and a handler's first instructions take, with a sibling's turn between."""

FORWARD = Offset(1 << 40)
"""Past any expiry here."""


def test_a_wake_up_between_the_look_and_the_wait_is_not_lost() -> None:
    """A change that is made without the monitor, right after a waiter looked in vain."""
    waits = Parallel(RealTime())
    there: list[int] = []

    def change() -> None:
        there.append(1)
        waits.changed()

    changes = threading.Thread(target=change, daemon=True)

    def ready() -> bool:
        found = bool(there)
        if not changes.ident:
            changes.start()
            # It either waits for the monitor, which this thread has, or has found that nobody waits.
            changes.join(0.1)
        return found

    def wait() -> None:
        with waits.monitor:
            waits.wait(ready)

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    waiter.join(60)
    assert not waiter.is_alive(), "the wake-up was lost"


class Sleeper:
    """A vCPU that works for a while and cedes, on a core that a sibling may keep busy."""

    def __init__(self, busy: bool = False) -> None:
        self.source = VirtualTime()
        self.host: Hypervisor = power8(self.source, threads=4, origin=1 << 50)
        self.guest = Guest(self.host, stride=4)
        for vector in (0x500, 0x900):
            self.guest.code(vector, user_call())
        wait = [mtdec(7), *spin(CEDED), *hcall(Hcall.CEDE), *user_call()]
        self.vcpu = self.guest.vcpu(0, self.guest.code(0x1000, wait))
        self.vcpu.state.gpr[7] = TIMER
        self.worker = (
            self.guest.vcpu(1, self.guest.code(0x2000, [*spin(12_000), *user_call()])) if busy else None
        )
        self.sibling = self.guest.vcpu(2, 0)
        self.before = Offset(7 * GRANULE)
        self.vcpu.set_offset(self.before)

    def come(self, what: str, tick: int) -> None:
        """Have it come at this tick."""
        call = {
            "prod": self.vcpu.prod,
            "external": lambda: self.vcpu.set_external(True),
            "kick": self.vcpu.kick,
            "forward": lambda: self._set(FORWARD),
            "back": lambda: self._set(self.before - Offset(GRANULE)),
        }[what]
        self.source.call_at(tick, call)

    def woken_at(self) -> int:
        """Run it until its H_CEDE is over; return the tick of the clock then."""
        over: list[int] = []

        def one_run(vcpu: VirtualCpu, ended: Exit) -> bool:
            if vcpu is self.vcpu:
                assert isinstance(ended, Hypercall | Kicked)
                over.append(self.source.ticks())
            return False

        run_together([self.vcpu] if self.worker is None else [self.vcpu, self.worker], one_run)
        assert not self.host.check_sync()
        return over[0]

    def _set(self, offset: Offset) -> None:
        with self.sibling.access():
            self.sibling.set_offset(offset)


def due(events: dict[str, int]) -> int:
    """The tick at which the sleeper is to wake: at the first cause, and not before it sleeps."""
    expiry = TIMER
    # An offset that is set moves the expiry, which stays in guest time; of two the last counts from then on.
    causes = [events[what] for what in ("prod", "external", "kick") if what in events]
    for tick, what in sorted((events[what], what) for what in ("forward", "back") if what in events):
        # DEC is 0 at its expiry; its exception comes one tick later.
        if min(causes, default=expiry + 1) <= tick or expiry < tick:
            break
        expiry = tick if what == "forward" else TIMER + GRANULE
    return max(min([*causes, expiry]), CEDED * INSTRUCTION)


# A kick before the sleep ends the run before it; a thread that runs has the offset that it was entered with;
# and what is due is a level: it may be gone before anybody looks, if an offset is taken back at once.
ANY_TIME = st.integers(0, 60).map(lambda slot: slot * SLOT)
ASLEEP = st.integers(6, 60).map(lambda slot: slot * SLOT)
EVENTS = st.fixed_dictionaries(
    {},
    optional={"prod": ANY_TIME, "external": ANY_TIME, "kick": ASLEEP, "forward": ASLEEP, "back": ASLEEP},
).filter(lambda events: "forward" not in events or events["forward"] != events.get("back"))


@settings(max_examples=150, deadline=None)
@given(EVENTS)
@example({})
@example({"prod": 0, "external": 10 * SLOT})
@example({"back": 10 * SLOT, "forward": 20 * SLOT})
@example({"forward": 10 * SLOT, "back": 20 * SLOT})
@example({"back": 39 * SLOT, "prod": 41 * SLOT})
def test_it_wakes_at_the_first_cause_and_not_before(events: dict[str, int]) -> None:
    sleeper = Sleeper()
    for what, tick in events.items():
        sleeper.come(what, tick)
    assert 0 <= sleeper.woken_at() - due(events) <= SLACK


@pytest.mark.parametrize("order", list(permutations(("prod", "external", "forward", "back"))), ids="-".join)
@pytest.mark.parametrize("first", [0, 5, 38])
def test_in_every_order(order: tuple[str, ...], first: int) -> None:
    """Closely one after another: before the sleep if possible, around the expiry, and in the midst."""
    tick, events = first * SLOT, {}
    for what in order:
        if what in ("forward", "back"):
            tick = max(tick, 6 * SLOT)
        events[what] = tick
        tick += 3 * INSTRUCTION
    sleeper = Sleeper()
    for what, at in events.items():
        sleeper.come(what, at)
    assert 0 <= sleeper.woken_at() - due(events) <= SLACK


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_while_a_sibling_keeps_the_core_it_naps_by_the_offset_that_was_applied(
    events: dict[str, int],
) -> None:
    """A new offset holds from the next entry on, so until the sibling leaves the timer is where it was."""
    sleeper = Sleeper(busy=True)
    for what, tick in events.items():
        sleeper.come(what, tick)
    inside = {what: tick for what, tick in events.items() if what in ("prod", "external", "kick")}
    # The sibling has its turns, the last on the way out.
    assert 0 <= sleeper.woken_at() - due(inside) <= SLACK + 2 * QUANTUM * INSTRUCTION


def test_a_sleep_without_a_timer_ends_with_the_decrementers_own_range() -> None:
    sleeper = Sleeper()
    sleeper.vcpu.state.gpr[7] = 0x7FFF_FFFF
    assert 0 <= sleeper.woken_at() - 0x7FFF_FFFF <= SLACK


@pytest.mark.parametrize("engine", ["concrete", "regions"])
def test_on_real_threads(engine: str) -> None:
    """Causes that come just before the sleep, in the midst of falling asleep, and after: each one wakes."""
    if engine == "regions":
        pytest.importorskip("llvmlite")
    host = power8(RealTime(), cpu_model=LARGE_POWER8, engine=engine_named(engine))
    guest = Guest(host, stride=2)
    for vector in (0x500, 0x900):
        guest.code(vector, [li(4, vector), *user_call()])
    # At 0x4000 it says that its timer is set.
    say = [li(9, 0x4000), std(9, 0, 9)]
    sleep = guest.code(0x1000, [mtdec(7), *say, *spin(20), *hcall(Hcall.CEDE), li(4, 1), *user_call()])
    vcpu = guest.vcpu(0, sleep)
    vcpu.vcore.lpcr |= int(LPCR.LD)
    sibling = guest.vcpu(1, 0)
    choose = random.Random(6)
    expected = {"prod": 1, "external": 0x500, "offset": 0x900}

    def cause(what: str, offset: Offset, pause: float | None) -> None:
        if pause is not None:
            while not guest.word(0x4000):
                time.sleep(0)
            time.sleep(pause)
        if what == "prod":
            vcpu.prod()
        elif what == "external":
            vcpu.set_external(True)
        else:
            with sibling.access():
                sibling.set_offset(offset)

    for number in range(600):
        what = choose.choice(sorted(expected))
        # Each offset takes the guest's time past whatever the timer was before.
        offset = Offset((number + 1) * 2 * WEEKS)
        vcpu.state.CIA, vcpu.state.gpr[7] = sleep, WEEKS
        vcpu.state.set_msr(int(MSR.SF | MSR.ME | MSR.LE))
        guest.memory.store(0x4000, 8, 0, little=True)
        # An offset that is set before the timer is no cause.
        pause = choose.choice([0, 0, 1e-4, 5e-4] if what == "offset" else [None, 0, 1e-4, 5e-4])
        comes = threading.Thread(target=cause, args=(what, offset, pause))
        comes.start()
        with a_minute(vcpu):
            ended = vcpu.run()
        comes.join()
        assert isinstance(ended, Hypercall)
        assert ended.args[0] == expected[what]
        vcpu.set_external(False)
    assert not host.check_sync()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a timer slack")
def test_the_machine_wakes_who_waits_in_real_time_without_slack() -> None:
    """Else a wait would be up to 50 µs longer than asked for."""
    get_timer_slack = 30
    slack: list[int] = []

    def wait() -> None:
        scheduler = Parallel(RealTime())
        with scheduler.monitor:
            scheduler.wait(lambda: True)
        slack.append(ctypes.CDLL(None).prctl(get_timer_slack, 0, 0, 0, 0))

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    assert slack == [1]
