"""What is proven of a virtual core whose threads go on in any order: over the production entry and exit."""

from __future__ import annotations

from functools import partial

from chronovisor.hypervisor.world_switch import WorldSwitch
from chronovisor.proof.core_world import THREADS, UnknownHostTime, World
from chronovisor.proof.decrementer import LONGEST_STOP
from chronovisor.proof.interleaving import Actor
from chronovisor.proof.paths import Case
from chronovisor.proof.prover import Claim, Tight
from chronovisor.proof.sabotage import OffsetReadAgain, SecondariesLetInEarly
from chronovisor.proof.switch import any_offset
from chronovisor.proof.terms import Integers
from chronovisor.timebase.types import GRANULE, LOW_BITS, MASK64, Offset, Ticks

EVERY_STEP = "nothing comes between what a thread does under the monitor"

OFFSET = Offset(23 << LOW_BITS)
OFFSET_SET = Offset(-41 * GRANULE & MASK64)
"""Numbers without a relation to each other: what holds for these holds for all, unless the code compares."""

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
) -> None:
    """So many vCPUs run once each, in any order of their steps; with an `owner` who sets `offset_set`
    meanwhile, a timebase that `fails` (or an interrupt as if it did), and entries that may be refused; or in
    those orders that depart from taking turns so often at most.
    """
    case.assume(EVERY_STEP, True)
    world = World(case, threads, world_switch, may_refuse, departures, offset)
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
    """So many vCPUs run once each, in any order of their steps, with any offset and at any moments.

    Before the first step the vCPUs differ in nothing, so one of them stands for whichever takes that step.
    With `any_first` the other orders are explored too.
    """
    case.assume(EVERY_STEP, True)
    clock = UnknownHostTime(case, "H")
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
        "four threads of a virtual core in any order of their steps: whoever runs the guest has T = H + o, "
        "all come out again, and every timer is kept",
        partial(any_order, threads=4),
        (
            Tight(
                "secondaries let in before the switch",
                partial(any_order, threads=2, world_switch=SecondariesLetInEarly),
            ),
        ),
    ),
    Claim(
        "virtual-core-offset-set",
        "P2",
        "three threads, and an owner who sets another offset at any moment: it holds from the next entry on",
        partial(any_order, threads=3, owner=True),
        (
            Tight(
                "the offset read again at the exit",
                partial(any_order, threads=2, owner=True, world_switch=OffsetReadAgain),
            ),
        ),
    ),
    Claim(
        "virtual-core-refused",
        "P2",
        "three threads, any of whose entries may be refused for taking too long: nobody runs the guest then",
        partial(any_order, threads=3, may_refuse=True),
        (
            Tight(
                "secondaries let in before the switch",
                partial(any_order, threads=2, may_refuse=True, world_switch=SecondariesLetInEarly),
            ),
        ),
    ),
    Claim(
        "virtual-core-failure",
        "P2",
        "two threads, an owner, and a timebase that fails at any moment, or an interrupt of another cause: "
        "it is repaired, and the offset is neither lost nor taken away twice",
        partial(any_order, threads=2, owner=True, fails=True),
    ),
    Claim(
        "virtual-core-any-time",
        "P2",
        "two threads in any order of their steps, with any offset, each step at any moment: the same",
        partial(any_time, threads=2),
        (
            Tight("a timer is a tick later", partial(any_time, threads=1, longest=LONGEST_STOP + 1)),
            Tight(
                "secondaries let in before the switch",
                partial(any_time, threads=2, world_switch=SecondariesLetInEarly),
            ),
        ),
        Integers(),
    ),
    Claim(
        "virtual-core-eight",
        "P2",
        "eight threads, an owner and a failure, in every order that departs from taking turns at most twice",
        partial(any_order, threads=THREADS, owner=True, fails=True, departures=2),
        (
            Tight(
                "the offset read again at the exit",
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
