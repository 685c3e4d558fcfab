"""What may be left out when every order of steps is explored: equal states, and steps that commute."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from soak import PERCENT, share

from chronovisor.hypervisor.scheduler import Until
from chronovisor.hypervisor.stay import Stay
from chronovisor.hypervisor.world_switch import Traveller, WorldSwitch
from chronovisor.proof import core_world
from chronovisor.proof.interleaving import Interleaving
from chronovisor.proof.paths import Body, follow
from chronovisor.proof.prover import Outcome, examine
from chronovisor.proof.sabotage import SecondariesLetInEarly
from chronovisor.proof.successors import Reached, Refuted, successors
from chronovisor.proof.virtual_core import any_order
from chronovisor.timebase.types import SourceTime
from proof.test_virtual_core import AddsAtTheDoor, ForgetsWhoWants, LeavesAlone, TellsNobody

END = "the end"


@dataclass
class Graph:
    """The states of a body, and the states that follow each."""

    after: dict[Any, set[Any]] = field(default_factory=dict)
    leads_to: dict[Any, tuple[int, ...]] = field(default_factory=dict)
    steps: int = 0

    def followers(self, body: Body, decisions: tuple[int, ...]) -> set[Any]:
        found = set()
        for step in successors(body, decisions):
            assert isinstance(step, Reached), step
            self.steps += 1
            state = END if step.state is None else step.state
            found.add(state)
            if state not in self.leads_to and state != END:
                self.leads_to[state] = step.decisions
        return found


def explored(body: Body) -> Graph:
    graph = Graph(leads_to={"the beginning": ()})
    while newest := [state for state in graph.leads_to if state not in graph.after]:
        for state in newest:
            graph.after[state] = graph.followers(body, graph.leads_to[state])
    return graph


WORLDS: list[Any] = [
    {"threads": 2},
    {"threads": 3},
    {"threads": 2, "may_refuse": True},
    pytest.param({"threads": 4}, marks=pytest.mark.soak),
    pytest.param({"threads": 3, "may_refuse": True}, marks=pytest.mark.soak),
]


def compare_courses(world: dict[str, Any], courses: int) -> int:
    """Follow courses drawn at random, each to its end, and require in each state that the same can follow as
    in the state that was taken for the same. Return how many states were compared.
    """
    body, chance = partial(any_order, **world), random.Random(1)
    graph, compared = explored(body), 0
    for _ in range(courses):
        decisions: tuple[int, ...] = ()
        state: Any = "the beginning"
        while state != END:
            steps = [step for step in successors(body, decisions) if isinstance(step, Reached)]
            assert {step.state or END for step in steps} == graph.after[state]
            compared += graph.leads_to[state] != decisions
            step = chance.choice(steps)
            state, decisions = step.state or END, step.decisions
    return compared


@pytest.mark.parametrize("world", [*WORLDS, {"threads": 1, "owner": True, "fails": True}], ids=str)
def test_from_equal_states_the_same_follows(world: dict[str, Any]) -> None:
    assert compare_courses(world, share(1000) if PERCENT else 30) > 50


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_steps_that_are_left_out_commute_with_those_taken(world: dict[str, Any]) -> None:
    """A step that is left out at a state, and then one that is taken, or first the latter: the two meet."""
    full, reduced = explored(partial(any_order, **world)), partial(any_order, **world, reduced=True)
    compared = 0
    for state, decisions in list(full.leads_to.items()):
        taken = full.followers(reduced, decisions)
        left_out = full.after[state] - taken
        assert taken <= full.after[state]
        for one in taken if left_out else ():
            for other in left_out:
                assert full.after[one] & full.after[other]
                compared += 1
    assert compared > 5 or world["threads"] == 2


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_each_thread_meets_what_it_meets_in_all_orders(
    world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    met: set[str] = set()
    whole = Interleaving._whole

    def noted(self: Interleaving) -> bytes:
        met.update(repr((a.place, a.finished, self._state(a))) for a in self._actors)
        return whole(self)

    monkeypatch.setattr(Interleaving, "_whole", noted)
    states, places = [], []
    for reduced in (False, True):
        met.clear()
        graph = explored(partial(any_order, **world, reduced=reduced))
        states.append(graph)
        places.append(set(met))
    full, few = states
    assert places[0] == places[1]
    assert few.after.keys() <= full.after.keys()
    # The same states precede the ends.
    assert {s for s, after in few.after.items() if END in after} == {
        s for s, after in full.after.items() if END in after
    }
    if world["threads"] > 2:
        assert few.steps < full.steps


class TwoAreEnough(WorldSwitch):
    """The primary waits for two threads to come out, and not for all."""

    def _await_secondaries(self, stay: Stay) -> SourceTime:
        self._scheduler.changed()
        self._scheduler.wait(lambda: stay.all_out or stay.out >= 2)
        return self._source.ticks()


class DoesNotWakeTheLast(WorldSwitch):
    """Only the first three that come out say so."""

    def leave(self, vcpu: Traveller, stay: Stay) -> None:
        scheduler = self._scheduler
        changed, wait = scheduler.changed, scheduler.wait

        def quiet(ready: Any, until: Until = lambda: None) -> None:
            scheduler.changed = changed  # type: ignore[method-assign]
            wait(ready, until)

        if stay.out >= 3 and stay.primary is not vcpu:
            scheduler.changed = lambda: None  # type: ignore[method-assign]
            scheduler.wait = quiet  # type: ignore[method-assign]
        try:
            super().leave(vcpu, stay)
        finally:
            scheduler.changed, scheduler.wait = changed, wait  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("wrong", "threads"),
    [
        (LeavesAlone, 3),
        (AddsAtTheDoor, 3),
        (TellsNobody, 3),
        (ForgetsWhoWants, 3),
        (SecondariesLetInEarly, 3),
        (TwoAreEnough, 3),
        (DoesNotWakeTheLast, 4),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_wrong_code_is_found_in_the_orders_that_are_left(wrong: type[WorldSwitch], threads: int) -> None:
    for reduced in (False, True):
        body = partial(any_order, threads=threads, reduced=reduced, world_switch=wrong)
        assert examine(body).outcome is Outcome.REFUTED


def test_a_step_that_breaks_a_requirement_is_a_case_to_follow() -> None:
    body = partial(any_order, threads=2, reduced=True, world_switch=LeavesAlone)
    pending: list[tuple[int, ...]] = [()]
    while pending:
        for step in successors(body, pending.pop(0)):
            if isinstance(step, Refuted):
                course = follow(body, step.values)
                assert course.broken == step.words
                assert course.story
                return
            pending.append(step.decisions)
    pytest.fail("nothing was found")


def test_without_the_reason_of_a_stop_states_would_be_taken_for_equal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A vCPU on its way out, whose run ends, and one that will enter again."""
    state = core_world.World._state

    def without(self: core_world.World, actor: Any) -> Any:
        self.stopped.clear()
        return state(self, actor)

    monkeypatch.setattr(core_world.World, "_state", without)
    with pytest.raises(AssertionError):
        compare_courses({"threads": 3}, 30)


def test_what_a_stay_has_not_set_yet_is_part_of_its_state() -> None:
    def snapshot(**changed: int) -> Any:
        stay = Stay(None, None, None)  # type: ignore[arg-type]
        for name, value in changed.items():
            setattr(stay, name, value)
        return core_world._snapshot(stay)

    assert snapshot(out=1) != snapshot(kept=1)
    assert snapshot(out=1, kept=1) == snapshot(kept=1, out=1) != snapshot()
    assert snapshot(out=0) == snapshot()
