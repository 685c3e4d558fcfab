"""Threads in any order: wrong entries and exits are refuted, and what is merged is the same."""

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, cast

import pytest

from chronovisor.hypervisor.maintenance import Maintenance
from chronovisor.hypervisor.stay import Stay
from chronovisor.hypervisor.virtual_core import VirtualCore
from chronovisor.hypervisor.world_switch import Traveller, WorldSwitch
from chronovisor.processor.core import Core, HardwareThread
from chronovisor.proof.core_world import THREADS
from chronovisor.proof.interleaving import Actor, Interleaving
from chronovisor.proof.paths import Case, Path, explore
from chronovisor.proof.prover import Finding, Outcome, examine
from chronovisor.proof.terms import Integers
from chronovisor.proof.virtual_core import any_order, any_time
from chronovisor.timebase.tbu40 import HostTimebase
from chronovisor.timebase.types import Offset

GUEST = "P2: whoever runs the guest has T = H + o, with the offset that was set at the entry"
FOR_EVER = "no thread waits for ever"
TIMERS = "P7: each decrementer expires when it did, in guest time"


def refuted(world_switch: type[WorldSwitch], **world: Any) -> Finding:
    finding = examine(partial(any_order, world_switch=world_switch, **world))
    assert finding.outcome is Outcome.REFUTED
    return finding


class LeavesAlone(WorldSwitch):
    """The primary takes the offset away when it leaves, whoever is in the guest still."""

    def leave(self, vcpu: Traveller, stay: Stay) -> None:
        if stay.primary is vcpu:
            with self._scheduler.monitor:
                stay.leave_soon()
                self._restore_host_time(stay, vcpu.vcore)
        super().leave(vcpu, stay)


class AddsAtTheDoor(WorldSwitch):
    """Every thread that comes in switches the timebase."""

    def _enter_as_secondary(self, stay: Stay, thread: HardwareThread, vcpu: int) -> None:
        super()._enter_as_secondary(stay, thread, vcpu)
        self._enter_as_primary(stay, cast(VirtualCore, stay.contender))


class TellsNobody(WorldSwitch):
    """Does not say that anything changed."""

    def leave(self, vcpu: Traveller, stay: Stay) -> None:
        scheduler = self._scheduler
        changed, scheduler.changed = scheduler.changed, lambda: None  # type: ignore[method-assign]
        try:
            super().leave(vcpu, stay)
        finally:
            scheduler.changed = changed  # type: ignore[method-assign]


class ForgetsWhoWants(WorldSwitch):
    """Gives the core back without a look at who came meanwhile."""

    def _release(self, stay: Stay, vcore: VirtualCore) -> None:
        self._queue.stays[stay.core.number] = vcore.stay = None


class KeepsTheOffset(WorldSwitch):
    """Does not take the offset away where another was set."""

    def _restore_host_time(self, stay: Stay, vcore: VirtualCore) -> None:
        if vcore.offset == stay.entered_with:
            super()._restore_host_time(stay, vcore)
        stay.applied = None
        stay.host_timebase = HostTimebase(stay.core.timebase)


@pytest.mark.parametrize(
    ("wrong", "world", "requirement"),
    [
        (LeavesAlone, {"threads": 2}, GUEST),
        (AddsAtTheDoor, {"threads": 2}, None),
        (TellsNobody, {"threads": 2}, FOR_EVER),
        (ForgetsWhoWants, {"threads": 2}, FOR_EVER),
        (KeepsTheOffset, {"threads": 2, "owner": True}, None),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_a_wrong_entry_or_exit_is_refuted(
    wrong: type[WorldSwitch], world: dict[str, Any], requirement: str | None
) -> None:
    finding = refuted(wrong, **world)
    assert finding.counterexample is not None
    assert requirement in (None, finding.counterexample.requirement)
    # In the few orders of eight threads, too.
    refuted(wrong, **world | {"threads": THREADS}, departures=2)


@pytest.mark.parametrize(
    ("offset", "offset_set"),
    [(0, 5), (5, 0), (5, 5), (1 << 39, (1 << 40) - 1), (0, 0), (1, (1 << 40) - 1)],
)
def test_it_holds_for_other_offsets_and_for_none(offset: int, offset_set: int) -> None:
    """But for the decrementers where an offset takes the guest's time further than they count."""
    body = partial(
        any_order,
        threads=2,
        owner=True,
        offset=Offset(offset << 24),
        offset_set=Offset(offset_set << 24),
    )
    finding = examine(body)
    if abs(Offset(((offset - offset_set) % (1 << 40)) << 24).signed) < 1 << 30:
        assert finding.outcome is Outcome.PROVEN
    else:
        assert finding.counterexample is None or finding.counterexample.requirement == TIMERS


def test_a_counterexample_says_who_went_on_when_and_what_came_of_it() -> None:
    story = "\n".join(refuted(LeavesAlone, threads=2).counterexample.story)  # type: ignore[union-attr]
    assert "vCPU 0 continues\n" in story
    assert "OffsetApplied(core=0, offset=Offset(0x17000000))" in story
    assert "run the guest" in story


def test_a_decrementer_kept_in_other_units_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chronovisor.hypervisor.timer.rebased", lambda expiry, old, new: expiry)
    finding = refuted(WorldSwitch, threads=2, owner=True)
    assert finding.counterexample is not None
    assert finding.counterexample.requirement == TIMERS


def test_a_repair_under_a_running_guest_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    """T = H for a guest that goes on with an offset, and that is taken away from it later."""

    def at_once(self: Maintenance, core: Core) -> None:
        self.handle(core)

    monkeypatch.setattr(Maintenance, "_interrupt", at_once)
    assert refuted(WorldSwitch, threads=1, fails=True).counterexample is not None


def states_of(body: Callable[[Case], None], monkeypatch: pytest.MonkeyPatch) -> set[Hashable]:
    """All states that the courses of a body pass through."""
    found: set[Hashable] = set()
    whole = Interleaving._whole

    def noted(self: Interleaving) -> Hashable:
        state = whole(self)
        found.add(state)
        return state

    with monkeypatch.context() as patched:
        patched.setattr(Interleaving, "_whole", noted)
        for _ in explore(body, 120):
            pass
    return found


@pytest.mark.parametrize(
    "world",
    [
        {"threads": 2},
        {"threads": 1, "owner": True},
        {"threads": 1, "fails": True},
        {"threads": 2, "may_refuse": True},
    ],
    ids=str,
)
def test_from_states_that_are_taken_for_one_the_same_follows(
    world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each order of steps followed to its end leads through no state that is not found otherwise."""
    body = partial(any_order, **world)
    merged = states_of(body, monkeypatch)
    monkeypatch.setattr(Path, "merge", lambda self, state: state() and None)
    assert states_of(body, monkeypatch) == merged


def test_orders_that_depart_less_often_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    count = [len(states_of(partial(any_order, threads=3, departures=n), monkeypatch)) for n in range(4)]
    assert count == sorted(set(count))


def test_two_actors_and_a_monitor() -> None:
    """Each adds one by reading first and writing later: under the monitor nothing is lost, without it is."""

    def body(case: Case, guarded: bool) -> None:
        shared, seen = [0], {}

        def add(name: str) -> None:
            with order.monitor:
                seen[name] = shared[0]
                if not guarded:
                    order.give_way()
                shared[0] = seen[name] + 1

        order = Interleaving(
            case, lambda actor: shared[0] if actor is None else seen.get(actor.name), lambda: None
        )
        order.run([Actor(name, partial(add, name)) for name in ("one", "two")])
        case.require("both counted", shared[0] == 2)

    assert examine(partial(body, guarded=True)).outcome is Outcome.PROVEN
    finding = examine(partial(body, guarded=False))
    assert finding.outcome is Outcome.REFUTED
    assert finding.counterexample is not None
    assert finding.counterexample.requirement == "both counted"


def test_a_wait_that_nobody_ends_is_refuted() -> None:
    def body(case: Case, said: bool) -> None:
        there = []

        def wait() -> None:
            with order.monitor:
                order.wait(lambda: bool(there))

        def put() -> None:
            with order.monitor:
                there.append(1)
                if said:
                    order.changed()

        order = Interleaving(case, lambda actor: len(there), lambda: None)
        order.run([Actor("waits", wait), Actor("puts", put)])
        case.require("it is there", bool(there))

    assert examine(partial(body, said=True)).outcome is Outcome.PROVEN
    assert examine(partial(body, said=False)).outcome is Outcome.REFUTED


def test_what_an_actor_raises_refutes_the_claim() -> None:
    def body(case: Case) -> None:
        order = Interleaving(case, lambda actor: 0, lambda: None)
        order.run([Actor("one", lambda: [][0]), Actor("two", lambda: None)])

    finding = examine(body)
    assert finding.counterexample is not None
    assert finding.counterexample.requirement == "it goes through without IndexError"


@pytest.mark.soak
def test_three_threads_with_an_offset_set_and_a_maintenance_interrupt() -> None:
    finding = examine(partial(any_order, threads=3, owner=True, fails=True), timeout=3600)
    assert finding.outcome is Outcome.PROVEN


@pytest.mark.soak
def test_whichever_vcpu_takes_the_first_step_at_any_time() -> None:
    """The claim lets one vCPU stand for both at the first step. Here both take it, and are as many paths."""
    one = examine(partial(any_time, threads=2), 3600, Integers())
    both = examine(partial(any_time, threads=2, any_first=True), 3600, Integers())
    assert one.outcome is both.outcome is Outcome.PROVEN
    assert both.paths == 2 * one.paths
