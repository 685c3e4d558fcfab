"""What is proven of a virtual core whose threads take their steps in any order. The claims run the production
entry and exit.
"""

from __future__ import annotations

from functools import partial

from chronovisor.hypervisor.world_switch import WorldSwitch
from chronovisor.proof.core_world import THREADS, World
from chronovisor.proof.decrementer import LONGEST_STOP
from chronovisor.proof.interleaving import Actor
from chronovisor.proof.paths import Case
from chronovisor.proof.prover import Claim, Tight
from chronovisor.proof.sabotage import OffsetReadAgain, SecondariesLetInEarly
from chronovisor.proof.switch import any_offset
from chronovisor.proof.terms import Integers
from chronovisor.proof.unknown_time import UnknownTime
from chronovisor.timebase.types import GRANULE, LOW_BITS, MASK64, Offset, Ticks

EVERY_STEP = "what a thread does while it holds the monitor is not interrupted by other threads"

OFFSET = Offset(23 << LOW_BITS)
OFFSET_SET = Offset((-41 * GRANULE) & MASK64)
"""Two unrelated numbers. What holds for these holds for all, unless the code compares offsets."""

DAMAGE = Ticks(-0x123_4567)


def any_order(
    case: Case,
    threads: int,
    owner: bool = False,
    fails: bool = False,
    may_refuse: bool = False,
    departures: int | None = None,
    world_switch: type[WorldSwitch] = WorldSwitch,
    offset: Offset = OFFSET,
    offset_set: Offset = OFFSET_SET,
    reduced: bool = False,
) -> None:
    """Each vCPU runs once, and they take their steps in any order.

    Meanwhile an `owner` may set `offset_set`. If `fails`, the timebase fails at some step, or the same
    interrupt comes for another cause. If `may_refuse`, any entry may be refused. With `departures`, only the
    orders are explored that depart from taking turns at most so often. If `reduced`, orders that differ in
    steps that commute are explored once; that is for vCPUs alone.
    """
    assert not (reduced and (owner or fails or departures is not None)), "only vCPUs alone are reduced"
    case.assume(EVERY_STEP, True)
    world = World(case, threads, world_switch, may_refuse, departures, offset, reduced=reduced)
    others = []
    if owner:
        first = world.vcpus[0]
        world.has_owner = True

        def set_offset() -> None:
            with first.access():
                first.set_offset(offset_set)

        others.append(Actor("the owner, who sets another offset,", set_offset))
    if fails:
        maintenance = world.host.maintenance

        def fail() -> None:
            if case.choose("does the timebase fail, or is it another cause", lambda: (1, 0)):
                maintenance.fail_timebase(0, DAMAGE)
            else:
                maintenance.trigger_debug(0)

        others.append(Actor("the maintenance interrupt", fail))
    world.explore(*others)


def any_time(
    case: Case,
    threads: int,
    longest: int = LONGEST_STOP,
    world_switch: type[WorldSwitch] = WorldSwitch,
    any_first: bool = False,
) -> None:
    """Each vCPU runs once. They take their steps in any order and at any moments, with any offset.

    Before the first step all vCPUs are equal, so vCPU 0 stands for whichever takes that step. With
    `any_first` the orders in which another vCPU takes it are explored too.
    """
    case.assume(EVERY_STEP, True)
    clock = UnknownTime(case, "H")
    clock.ticks()
    clock.still = True
    world = World(case, threads, world_switch, False, None, any_offset(case), clock, any_first)
    world.longest = longest
    clock.still = False
    world.explore()


CLAIMS = (
    Claim(
        "virtual-core",
        "P2",
        "four threads of a virtual core take their steps in any order: whoever runs the guest has T = H + o, "
        "every thread leaves the guest again, and every timer is kept",
        partial(any_order, threads=4),
        (
            Tight(
                "secondary threads enter before the switch",
                partial(any_order, threads=2, world_switch=SecondariesLetInEarly),
            ),
        ),
    ),
    Claim(
        "virtual-core-offset-set",
        "P2",
        "three threads, and an owner who sets another offset at any moment: the new offset takes effect at "
        "the next entry",
        partial(any_order, threads=3, owner=True),
        (
            Tight(
                "the exit subtracts the offset that is set by then",
                partial(any_order, threads=2, owner=True, world_switch=OffsetReadAgain),
            ),
        ),
    ),
    Claim(
        "virtual-core-refused",
        "P2",
        "three threads, and any entry may be refused because it took too long: then no thread runs the guest",
        partial(any_order, threads=3, may_refuse=True),
        (
            Tight(
                "secondary threads enter before the switch",
                partial(any_order, threads=2, may_refuse=True, world_switch=SecondariesLetInEarly),
            ),
        ),
    ),
    Claim(
        "virtual-core-failure",
        "P2",
        "two threads, an owner, and a timebase that fails at any moment, or the same interrupt for another "
        "cause: the timebase is repaired, and the offset is neither lost nor subtracted twice",
        partial(any_order, threads=2, owner=True, fails=True),
    ),
    Claim(
        "virtual-core-any-time",
        "P2",
        "two threads take their steps in any order and at any moments, with any offset: whoever runs the "
        "guest has T = H + o",
        partial(any_time, threads=2),
        (
            Tight("a timer may be one tick later", partial(any_time, threads=1, longest=LONGEST_STOP + 1)),
            Tight(
                "secondary threads enter before the switch",
                partial(any_time, threads=2, world_switch=SecondariesLetInEarly),
            ),
        ),
        Integers(),
    ),
    Claim(
        "virtual-core-eight",
        "P2",
        "eight threads, an owner and a failing timebase, in every order that departs from taking turns at "
        "most twice",
        partial(any_order, threads=THREADS, owner=True, fails=True, departures=2),
        (
            Tight(
                "the exit subtracts the offset that is set by then",
                partial(
                    any_order,
                    threads=THREADS,
                    owner=True,
                    departures=2,
                    world_switch=OffsetReadAgain,
                ),
            ),
        ),
    ),
)
