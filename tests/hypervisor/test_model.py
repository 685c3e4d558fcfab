"""The promises P1 to P9, held against a model after every step of a random course: entries and exits of many
vCPUs at once, offsets set by them and under them, cedes, prods, timers, interrupts, faults, pauses and moves.

Hypothesis draws the course; the order in which vCPUs have their turns, and how long each is, is drawn from a
seed that is part of it. So a course that fails is repeatable tick for tick: it is shown as a program of
steps, the smallest that was found, and the `@reproduce_failure` beside it runs it again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import pytest
from fleet import CEDE, INSTRUCTION, PROD, READ, SPIN, TIMER, Fleet, Task
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from model import GRANULE, LIMIT, MASK, ModelGuest, rounded, signed

from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.migration.errors import LinkLostError, MoveError, MoveRefusedError
from chronovisor.migration.link import Link
from chronovisor.migration.messages import Message
from chronovisor.migration.move import move
from chronovisor.timebase.clock import TickSource
from chronovisor.timebase.facility import Tfmr
from chronovisor.timebase.types import Ticks

SAMPLE: Final = 2_500
COURSE: Final = 100
"""Steps in one course."""
BATCH: Final = 20
"""Courses that are drawn together."""
SECOND: Final = 512_000_000
SHAPES: Final = [("power8", 1, 2), ("power8", 2, 4), ("power9", 1, 1), ("power9", 2, 2)]
"""Of each host: its processor, cores, threads a core. Guests move between two of a processor."""
GUESTS: Final = [(0, 4, 2), (0, 1, 1), (2, 2, 2)]
"""Of each guest: its first host, its vCPUs, and the threads of a virtual core that user space asked for."""
VCPUS: Final = [(guest, vcpu) for guest, (_, vcpus, _) in enumerate(GUESTS) for vcpu in range(vcpus)]
SETTLING: Final = 400
"""Instructions that entries, exits and the ends of pieces take at most, for each vCPU in a step."""

At = tuple[int, int]
"""A guest and its vCPU."""

who = st.sampled_from(VCPUS)
offsets = st.one_of(st.integers(0, 1 << 12).map(lambda n: n << 24), st.integers(0, MASK))
durations = st.one_of(st.integers(1, 1 << 16), st.integers(1, (1 << 31) - 1))
happenings = st.tuples(
    st.one_of(st.integers(1, 1 << 13), st.integers(1, 1 << 20)),
    st.sampled_from(["prod", "kick", "external", "offset", "fault", "look"]),
    who,
    st.integers(0, 1 << 12),
)
wraps = st.one_of(st.none(), st.integers(1, 10 * INSTRUCTION))
"""How long before a wrap of its timebase's low 24 bits a step begins, if it is to be near one."""
pieces = st.one_of(
    st.tuples(st.just(READ), st.just(0)),
    st.tuples(st.sampled_from([TIMER, CEDE]), durations),
    st.tuples(st.just(SPIN), st.integers(1, 1500)),
    st.tuples(st.just(PROD), st.integers(0, 4)),
)


class LosingLink(Link):
    """Loses one of the deliveries before COMMIT, and all behind it."""

    def __init__(self, lost: int) -> None:
        super().__init__()
        self._left = lost

    def carry(self, message: Message, sent: int, source: TickSource) -> Message:
        self._left -= 1
        if self._left < 0:
            raise LinkLostError("lost")
        return super().carry(message, sent, source)


@dataclass
class Step:
    """Tasks that run at the same time, and what happens meanwhile."""

    tasks: list[Task]
    begun: int
    left: list[int]
    """Of each task's vCPU what DEC was, in as many bits as it takes."""
    floors: list[int | None]
    offsets: list[set[int]]
    """Of each task's vCPU the offsets that it may have read the time under."""
    ended: int = 0
    prods: set[At] = field(default_factory=set)
    kicks: set[At] = field(default_factory=set)
    externals: set[At] = field(default_factory=set)
    offsets_set: list[tuple[At, int]] = field(default_factory=list)
    quiet: bool = True
    """Whether nothing happened, to a single vCPU: then it is known to the tick."""

    @property
    def slack(self) -> int:
        """How much later than at once something may come: what all of them execute meanwhile."""
        busy = sum(task.value for task in self.tasks if task.piece == SPIN)
        return (busy + SETTLING * len(self.tasks)) * INSTRUCTION


class Course(RuleBasedStateMachine):
    """One course of a fleet, and the model beside it."""

    steps: ClassVar[Counter[str]] = Counter()
    """What was done since `run_courses` began, all courses together."""

    @initialize(origins=st.tuples(*[st.integers(0, MASK)] * len(SHAPES)), seed=st.integers(0, 1 << 32))
    def begin(self, origins: tuple[int, ...], seed: int) -> None:
        self.fleet = Fleet(seed, list(origins), SHAPES)
        self.source = self.fleet.source
        self.logged = dict.fromkeys(VCPUS, 0)
        self.models: list[ModelGuest] = []
        for host, vcpus, threads in GUESTS:
            guest = self.fleet.add_guest(host, vcpus, threads, 0)
            shared = threads if SHAPES[host][0] == "power8" else 1
            model = ModelGuest(origins[host], shared, [0] * (vcpus // shared), [], [False] * vcpus)
            for vcpu in range(vcpus):
                model.expiries.append((model.time(vcpu, self.source.ticks()) + SECOND) & MASK or 1)
                self.fleet.set(guest, vcpu, "DEC_EXPIRY", model.expiries[-1])
            self.models.append(model)

    # Steps

    @rule(who=who, piece=pieces, before_wrap=wraps)
    def run_one(self, who: At, piece: tuple[int, int], before_wrap: int | None) -> None:
        self._run([Task(*who, *piece)], [], before_wrap)

    @rule(
        plan=st.lists(st.tuples(who, pieces), min_size=2, max_size=5, unique_by=lambda one: one[0]),
        meanwhile=st.lists(happenings, max_size=3),
        before_wrap=wraps,
    )
    def run_several(self, plan: list[Any], meanwhile: list[Any], before_wrap: int | None) -> None:
        self._run([Task(*who, *piece) for who, piece in plan], meanwhile, before_wrap)

    @rule(
        guest=st.integers(0, len(GUESTS) - 1),
        drawn=st.lists(pieces, min_size=4, max_size=4),
        meanwhile=st.lists(happenings, max_size=3),
        before_wrap=wraps,
    )
    def run_a_whole_guest(
        self, guest: int, drawn: list[Any], meanwhile: list[Any], before_wrap: int | None
    ) -> None:
        tasks = [
            Task(guest, vcpu, *piece) for vcpu, piece in zip(range(GUESTS[guest][1]), drawn, strict=False)
        ]
        self._run(tasks, meanwhile, before_wrap)

    @rule(
        who=who,
        piece=pieces,
        meanwhile=st.lists(happenings, min_size=1, max_size=3),
        before_wrap=wraps,
    )
    def run_one_while_things_happen(
        self, who: At, piece: tuple[int, int], meanwhile: list[Any], before_wrap: int | None
    ) -> None:
        self._run([Task(*who, *piece)], meanwhile, before_wrap)

    @rule(who=who, offset=offsets)
    def set_an_offset(self, who: At, offset: int) -> None:
        Course.steps["offsets set"] += 1
        self.fleet.set_offset(*who, offset)
        self.models[who[0]].set_offset(who[1], offset)

    @rule(guest=st.integers(0, len(GUESTS) - 1), offset=offsets)
    def set_one_offset_for_all(self, guest: int, offset: int) -> None:
        for vcpu in range(GUESTS[guest][1]):
            self.set_an_offset((guest, vcpu), offset)

    @rule(who=who, distance=st.integers(1 - (1 << 31), (1 << 31) - 1))
    def set_an_expiry(self, who: At, distance: int) -> None:
        Course.steps["deadlines set"] += 1
        model = self.models[who[0]]
        # 0 is what one is that was never set.
        expiry = (model.time(who[1], self.source.ticks()) + distance) & MASK or 1
        self.fleet.set(*who, "DEC_EXPIRY", expiry)
        model.expiries[who[1]] = expiry

    @rule(ticks=st.one_of(st.integers(0, 1 << 24), st.integers(0, 12 * SECOND)))
    def pause(self, ticks: int) -> None:
        Course.steps["pauses"] += 1
        self.source.advance(ticks)

    @rule(who=who)
    def prod(self, who: At) -> None:
        Course.steps["vCPUs prodded"] += 1
        self._virtual_cpu(who).prod()
        self.models[who[0]].prodded[who[1]] = True

    @rule(host=st.integers(0, len(SHAPES) - 1), damage=st.integers(1, MASK >> 1))
    def fail_a_timebase(self, host: int, damage: int) -> None:
        Course.steps["timebases that fail"] += 1
        self.fleet.hypervisor(host).maintenance.fail_timebase(0, Ticks(damage), Tfmr.RESIDUE_ERROR)

    @rule(guest=st.integers(0, len(GUESTS) - 1), seeds=st.lists(st.integers(0, 1000), min_size=1, max_size=2))
    def move(self, guest: int, seeds: list[int]) -> None:
        for seed in seeds:
            if len(set(self.models[guest].offsets)) > 1:
                self._stays(guest, Link(seed=seed), MoveRefusedError)
            else:
                self._goes(guest, Link(seed=seed))

    @rule(guest=st.integers(0, len(GUESTS) - 1), lost=st.integers(0, 5))
    def fail_to_move(self, guest: int, lost: int) -> None:
        self._stays(guest, LosingLink(lost), MoveError)

    # What holds after each

    @invariant()
    def hosts_have_their_time(self) -> None:
        """P1, P2."""
        for number in range(len(SHAPES)):
            hypervisor = self.fleet.hypervisor(number)
            assert hypervisor.check_sync() == []
            assert all(core.timebase.adjust == 0 for core in hypervisor.cores)
            assert not any(hypervisor.run_queue.stays)
            assert not hypervisor.run_queue.waiting

    @invariant()
    def registers_are_the_models(self) -> None:
        """P3, P7."""
        for number, model in enumerate(self.models):
            assert self._registers(number) == [
                (model.offset(vcpu), expiry) for vcpu, expiry in enumerate(model.expiries)
            ]

    @invariant()
    def each_guest_is_on_one_host(self) -> None:
        """P9."""
        for guest, host in zip(self.fleet.guests, self.fleet.at, strict=True):
            assert guest.end is None
            assert guest in self.fleet.hosts[host].guests

    def teardown(self) -> None:
        if hasattr(self, "fleet"):
            self.fleet.close()

    # Runs

    def _run(self, tasks: list[Task], meanwhile: list[Any], before_wrap: int | None) -> None:
        Course.steps["runs of one vCPU" if len(tasks) == 1 else "runs of several vCPUs"] += 1
        if before_wrap is not None:
            now = self.source.ticks() + self.models[tasks[0].guest].origin
            self.source.advance(-(now + before_wrap) % GRANULE)
        models = [(self.models[task.guest], task.vcpu) for task in tasks]
        step = Step(
            tasks,
            begun=self.source.ticks(),
            left=[model.left(vcpu, self.source.ticks()) for model, vcpu in models],
            floors=[model.floor(vcpu) for model, vcpu in models],
            offsets=[{model.offset(vcpu)} for model, vcpu in models],
            quiet=len(tasks) == 1 and not meanwhile,
        )
        alarms = [
            self.source.call_at(
                step.begun + after,
                lambda what=what, at=at, value=value: self._happens(step, what, at, value),
            )
            for after, what, at, value in meanwhile
        ]
        self.fleet.run(tasks)
        for alarm in alarms:
            alarm.cancel()
        for at in step.externals:
            self._virtual_cpu(at).set_external(False)
        for at, offset in step.offsets_set:
            # An alarm must not wait for what the guest's own record of it takes.
            if rounded(offset) == self.models[at[0]].offset(at[1]):
                self.fleet.set_offset(*at, offset)
        step.ended = self.source.ticks()
        step.prods |= {(task.guest, task.value) for task in tasks if task.piece == PROD}
        for number, task in enumerate(tasks):
            self._check_times(step, number, task)
            self._check_wake(step, number, task)
            self._check_log(step, number, task)
        for at in set(VCPUS) & step.prods:
            self.models[at[0]].prodded[at[1]] = True
        for task in tasks:
            if task.piece == CEDE:
                # Spent; but who knows which came first.
                unknown = (task.guest, task.vcpu) in step.prods | step.kicks
                self.models[task.guest].prodded[task.vcpu] = None if unknown else False

    def _happens(self, step: Step, what: str, at: At, value: int) -> None:
        runs = at in {(task.guest, task.vcpu) for task in step.tasks}
        hypervisor = self.fleet.hypervisor(self.fleet.at[at[0]])
        match what:
            case "prod":
                self._virtual_cpu(at).prod()
                step.prods.add(at)
            case "kick" if runs:
                self._virtual_cpu(at).kick()
                step.kicks.add(at)
            case "external" if runs:
                self._virtual_cpu(at).set_external(True)
                step.externals.add(at)
            case "offset" if not runs:
                # While its siblings run, if they do.
                self.fleet.set(*at, "TB_OFFSET", value << 24)
                self.models[at[0]].set_offset(at[1], value << 24)
                step.offsets_set.append((at, value << 24))
                for task, offsets in zip(step.tasks, step.offsets, strict=True):
                    if task.guest == at[0] and task.vcpu in self.models[at[0]].siblings(at[1]):
                        offsets.add(rounded(value << 24))
            case "fault":
                core = value % len(hypervisor.cores)
                hypervisor.maintenance.fail_timebase(core, Ticks(value * 0x1_2345 + 1), Tfmr.MISSING_STEP)
            case "look":
                # P1 at any moment, in the middle of a switch too; what has failed is marked.
                for core in hypervisor.cores:
                    assert core.timebase.adjust % GRANULE == 0 or core.hmer

    def _check_times(self, step: Step, number: int, task: Task) -> None:
        """P2, P4, P7: what a task read of the timebase and of DEC."""
        (report,), model, offsets = task.reports, self.models[task.guest], step.offsets[number]
        late = 0 if step.quiet else step.slack
        host_ticks = [signed(report.timebase - model.origin - offset) for offset in offsets]
        assert any(step.begun <= tick <= step.ended for tick in host_ticks)
        expiry = self.fleet.get(task.guest, task.vcpu, "DEC_EXPIRY")
        before, model.expiries[task.vcpu] = model.expiries[task.vcpu], expiry
        sets_dec, begun, ended = task.piece in (TIMER, CEDE), step.begun, step.ended
        if sets_dec:
            # If another offset was set meanwhile, an exit may have made of DEC's sign what an expiry has
            # beyond 32 bits.
            turn = 1 << (64 if len(offsets) == 1 else 32)
            set_after = [(expiry - task.value - model.origin - begun - offset) % turn for offset in offsets]
            assert any(after <= ended - begun for after in set_after)
        else:
            # The register has 32 bits, and what an expiry has more the exit makes of its sign.
            assert (expiry - before) % (1 << 32) == 0
        if len(offsets) > 1:
            model.last.pop(task.vcpu, None)
            return
        floor = step.floors[number]
        others_set = any(task.guest == guest for (guest, _), _ in step.offsets_set)
        assert floor is None or others_set or signed(report.timebase - floor) > 0
        model.last[task.vcpu] = report.timebase
        if sets_dec:
            # mtdec came so much before the reading, or more if others had a turn in between.
            read = report.first - INSTRUCTION if task.piece == CEDE else report.timebase - 2 * INSTRUCTION
            assert 0 <= signed(read + task.value - expiry) <= late
        elif step.left[number] < 1 << 31:
            assert expiry == before
        # DEC was read an instruction later.
        assert (expiry - report.timebase - INSTRUCTION - report.dec) % (1 << 32) <= late
        if task.piece == SPIN:
            longer = signed(report.timebase - report.first) - (task.value + 3) * INSTRUCTION
            assert 0 <= longer <= late

    def _check_wake(self, step: Step, number: int, task: Task) -> None:
        """P7: what is to end a cede does so, in time and not before."""
        (report,), model, at = task.reports, self.models[task.guest], (task.guest, task.vcpu)
        if task.piece != CEDE:
            assert report.why == 0
            return
        since_expiry = signed(report.timebase - model.expiries[task.vcpu])
        if len(step.offsets[number]) > 1:
            # DEC has become another number: its interrupt may be gone by the time that the guest is back.
            assert report.why in (0, 0x500, 0x900)
        elif report.why == 0x900:
            assert since_expiry > 0
        elif report.why == 0x500:
            assert at in step.externals
        else:
            assert model.prodded[task.vcpu] is not False or at in step.prods | step.kicks
        if len(step.offsets[number]) == 1:
            assert since_expiry <= step.slack
            if model.prodded[task.vcpu]:
                assert signed(report.timebase - report.first) <= step.slack

    def _check_log(self, step: Step, number: int, task: Task) -> None:
        """P8: the dispatches of a step are logged in it, in guest time; the log goes on over moves."""
        at, model = (task.guest, task.vcpu), self.models[task.guest]
        first, self.logged[at] = self.logged[at], self.fleet.logged(*at)
        assert self.logged[at] > first
        for entry in range(first, self.logged[at]):
            logged = self.fleet.log_entry(*at, entry)
            ticks = [signed(logged.timebase - model.origin - offset) for offset in step.offsets[number]]
            assert any(step.begun <= tick <= step.ended for tick in ticks)
            assert logged.enqueue_to_dispatch <= step.ended - step.begun

    # Moves

    def _goes(self, guest: int, link: Link) -> None:
        Course.steps["moves"] += 1
        """P4 to P7, P9."""
        fleet, model = self.fleet, self.models[guest]
        fleet.settle(guest)
        old, begun = fleet.guests[guest], self.source.ticks()
        fleet.at[guest] ^= 1
        fleet.guests[guest], record = move(old, fleet.hosts[fleet.at[guest]], link)
        ended, offset = self.source.ticks(), fleet.get(guest, 0, "TB_OFFSET")
        origin = fleet.hosts[fleet.at[guest]].clock.origin
        # By the one true clock: when the guest was stopped there, and may run here.
        stopped = begun + signed(record.guest_tb_before - model.time(0, begun))
        resumed = ended - signed(origin + ended + offset - record.guest_tb_after)
        assert begun <= stopped <= resumed <= ended
        advance = signed(record.guest_tb_after - record.guest_tb_before)
        assert advance >= 0
        assert abs(advance - (resumed - stopped)) <= record.error_bound_ticks
        model.moved(origin, offset, resumed - stopped, advance)
        assert record.ideal_least_ticks <= model.drift <= record.ideal_most_ticks
        assert abs(record.rounding_ticks) <= LIMIT
        old.resume()
        assert not old.running

    def _stays(self, guest: int, link: Link, error: type[Exception]) -> None:
        """P9: before COMMIT every failure leaves the guest where it is."""
        Course.steps["moves that fail"] += 1
        self.fleet.settle(guest)
        to = self.fleet.hosts[self.fleet.at[guest] ^ 1]
        with pytest.raises(error):
            move(self.fleet.guests[guest], to, link)
        assert self.fleet.guests[guest].end is None

    # Looking

    def _registers(self, guest: int) -> list[tuple[int, int]]:
        vcpus = range(GUESTS[guest][1])
        return [
            (self.fleet.get(guest, v, "TB_OFFSET"), self.fleet.get(guest, v, "DEC_EXPIRY")) for v in vcpus
        ]

    def _virtual_cpu(self, at: At) -> VirtualCpu:
        found: VirtualCpu = self.fleet.guests[at[0]].vcpus[at[1]]._vcpu  # type: ignore[attr-defined]
        return found


def run_courses(steps: int, drawn_from: int | None = None) -> Counter[str]:
    """Run courses of at least so many steps in all; the same courses each time if they are `drawn_from` a
    seed. Return how many steps of each kind there were.
    """
    Course.steps.clear()
    while (done := Course.steps.total()) < steps:
        run_state_machine_as_test(
            Course if drawn_from is None else with_seed(drawn_from + done)(lambda: Course()),
            settings=settings(
                # In batches: what is remembered of a campaign's courses grows with each.
                max_examples=min(BATCH, -(-(steps - done) // COURSE)),
                derandomize=False,
                stateful_step_count=COURSE,
                deadline=None,
                **({} if drawn_from is None else {"database": None}),
                phases=[Phase.reuse, Phase.generate, Phase.shrink],
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
    return +Course.steps


def test_the_promises_hold_over_random_courses() -> None:
    run_courses(SAMPLE)
