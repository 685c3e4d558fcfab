"""What is proven of a virtual core whose threads go on in any order: over the production entry and exit.

The bodies run `VirtualCpu.run` of each vCPU, with all that it calls, under the scheduler of
`chronovisor.proof.interleaving`. Only the guest's instructions are not there: a guest may be at any of them,
for as long as it likes, and then makes a hypercall or is made to leave.
"""

from __future__ import annotations

from collections.abc import Hashable, Sized
from functools import partial
from typing import cast

from chronovisor.engine.concrete import ConcreteEngine, Reason, Stop
from chronovisor.engine.state import Thread
from chronovisor.hypervisor.cpu_model import POWER8
from chronovisor.hypervisor.exits import FailedEntry, Hypercall
from chronovisor.hypervisor.host import Host, Parts
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.hypervisor.virtual_machine import VirtualMachine
from chronovisor.hypervisor.world_switch import WorldSwitch
from chronovisor.memory.guest_memory import PAGE_SIZE, GuestMemory
from chronovisor.proof.interleaving import Actor, Interleaving
from chronovisor.proof.paths import Case
from chronovisor.proof.prover import Claim, Tight
from chronovisor.proof.sabotage import OffsetReadAgain, SecondariesLetInEarly
from chronovisor.timebase.clock import RealTime
from chronovisor.timebase.offset import Applied, Switch, SwitchBreachError, shift
from chronovisor.timebase.tbu40 import CoreTimebase, TimebaseRegister
from chronovisor.timebase.trace import Observer
from chronovisor.timebase.types import GRANULE, LOW_BITS, LOW_MASK, MASK64, HostTime, Offset, Ticks

THREADS = 8
"""Threads of the core: as many as a POWER8 has."""

EVERY_STEP = "nothing comes between what a thread does under the monitor"

_OFFSET = Offset(23 << LOW_BITS)
_OFFSET_SET = Offset(-41 * GRANULE & MASK64)
_DEC = 0x2F00_0001
"""Numbers without a relation to each other: what holds for these holds for all, unless the code compares."""

_DAMAGE = Ticks(-0x123_4567)
_HYPERCALL = 0x58
"""One that is left to user space: the run ends with it."""


class _SteppingClock(RealTime):
    """A clock that is later each time that it is read, by so much that many a switch meets a wrap."""

    STEP = (1 << 21) - 11
    """Ticks; six of them, between the readings of one switch, are fewer than 2^24."""

    def __init__(self) -> None:
        self.now = 1 << 40

    def ticks(self) -> int:
        """Return the ticks at this reading."""
        self.now += self.STEP
        return self.now


class _Guest(ConcreteEngine):
    """A guest whose instructions take any time and do nothing to time."""

    world: _World

    def run(self, state: Thread, budget: int) -> Stop:
        """Be in the guest until the next turn, then make a hypercall or do first what is asked for."""
        return self.world.in_guest(state)


class _WatchedRegister:
    """A core's timebase of whose every access the world takes a look."""

    def __init__(self, tb: TimebaseRegister[int], world: _World) -> None:
        self._tb = tb
        self._world = world

    def read(self) -> int:
        value = self._tb.read()
        self._world.look()
        return value

    def write_tbu40(self, value: int, when: bool = True) -> None:
        self._tb.write_tbu40(value, when)
        self._world.look()


class _AnySwitch(Switch):
    """The production switch, whose entries may be refused as those are that never are fast enough."""

    def __init__(self, world: _World) -> None:
        super().__init__(lambda tb, delta: shift(_WatchedRegister(tb, world), delta))
        self._world = world

    def enter(self, tb: CoreTimebase, offset: Offset, observer: Observer | None = None) -> Applied:
        """Switch, or refuse."""
        world = self._world
        world.added = offset
        if world.may_refuse and world.case.choose(
            f"step {world.order.step}: is the entry refused", lambda: (0, 1)
        ):
            raise SwitchBreachError(tb.core, self.ATTEMPTS)
        return super().enter(tb, offset, observer)


class _World:
    """A host of one core, and the vCPUs of a virtual core on their way in and out."""

    def __init__(
        self,
        case: Case,
        threads: int,
        world_switch: type[WorldSwitch],
        may_refuse: bool,
        departures: int | None,
    ) -> None:
        self.case = case
        self.may_refuse = may_refuse
        self.has_owner = False
        self.order = Interleaving(case, self._state, self.look, departures)
        self.clock = _SteppingClock()
        self.host = host = Host(
            self.clock,
            origin=0x1234_5678,
            threads_per_core=THREADS,
            cpu_model=POWER8,
            observer=lambda event: case.tell(lambda: f"  {event}"),
            parts=Parts(world_switch=world_switch, engine=self._engine),
        )
        host.scheduler = self.order
        host.world_switch = world_switch(host)
        host.switch = _AnySwitch(self)
        self.core = host.cores[0]
        self.machine = VirtualMachine(host, THREADS)
        self.machine.give_memory(GuestMemory(PAGE_SIZE))
        self.vcpus = [self.machine.add_vcpu(number) for number in range(threads)]
        self.vcore = self.vcpus[0].vcore
        self.vcpus[0].set_offset(_OFFSET)
        self.expiry = (host.clock.now() + _OFFSET) + Ticks(_DEC)
        for vcpu in self.vcpus:
            vcpu.state.gpr[3] = _HYPERCALL
            vcpu.decrementer_expiry = self.expiry
        self.added: Offset | None = None
        """What the last entry was to add."""
        self.guests: set[int] = set()
        """The numbers of the vCPUs that may execute an instruction now."""
        self.actors = [_Runner(self, vcpu) for vcpu in self.vcpus]

    def _engine(self, memory: GuestMemory) -> _Guest:
        guest = _Guest(memory)
        guest.world = self
        return guest

    def in_guest(self, state: Thread) -> Stop:
        """Have the running vCPU in its guest for a step."""
        number = state.get("PIR")
        self.guests.add(number)
        self.look()
        self.order.pause()
        self.look()
        self.guests.discard(number)
        if state.exit_request and self.case.choose(
            f"step {self.order.step}: is it made to leave", lambda: (0, 1)
        ):
            return Stop(Reason.BUDGET)
        return Stop(Reason.HYPERCALL)

    def look(self) -> None:
        """Require what holds at every instant."""
        core = self.core
        if core.hmer or self.order.over:
            # T may be anything; a guest's next instruction would be the maintenance interrupt's.
            return
        ahead = core.timebase.adjust & MASK64
        self.case.require("P1: the low 24 bits of T are those of H", ahead & LOW_MASK == 0)
        if self.guests:
            right = self.added is not None and ahead == self.added.value
            if not right:
                self.case.tell(
                    lambda: f"  T is ahead of H by {ahead:#x}; the vCPUs {sorted(self.guests)} run the guest"
                )
            self.case.require(
                "P2: whoever runs the guest has T = H + o, with the offset that was set at the entry", right
            )
        if core.runs is None:
            self.case.require("P2: a core that runs no guest has T = H", ahead == 0)

    def explore(self, *others: Actor) -> None:
        """Have all vCPUs run once, and others do what they do, in the order that the case chooses."""
        self.order.run([*self.actors, *others])
        core = self.core
        self.case.require("the core is free and whole", core.runs is None and not core.hmer)
        self.case.require("T = H", core.timebase.adjust == 0)
        self.case.require("nobody is left in the queue", not self.host.queue)
        for vcpu in self.vcpus:
            self.case.require(
                "P7: each decrementer expires when it did, in guest time",
                vcpu.decrementer_expiry == self.expiry,
            )

    def _state(self, actor: Actor | None) -> Hashable:
        """What the future depends on: of one actor, or of all that they share."""
        if isinstance(actor, _Runner):
            vcpu, vcore = actor.vcpu, self.vcore
            # The owner sets the offset through this one.
            special = self.has_owner and vcpu is self.vcpus[0]
            if actor.finished:
                return special, _snapshot(vcpu, "number")
            thread = vcpu.thread if vcpu._begun else None
            return (
                special,
                vcore.core is not None and vcpu in vcore.inside,
                vcore.primary is vcpu,
                vcpu.number in self.guests,
                vcpu.number in self.guests and vcpu.state.exit_request,
                None if thread is None else thread.decrementer.deadline,
                _snapshot(vcpu, "number"),
            )
        if actor is not None:
            return actor.name
        core = self.core
        # What the next entry sets anew is nothing to it.
        left = self.vcore.core is None
        return (
            None if left else self.added,
            len(self.host.queue),
            _snapshot(self.vcore, *(_OF_AN_ENTRY if left else ())),
            _snapshot(core),
            core.timebase.adjust,
            core.facility.tfmr,
        )


def _snapshot(of: object, *but: str) -> Hashable:
    """The attributes of an object: numbers and times as they are, of others whether there are any, and how
    many.
    """
    return tuple(_plain(value) for name, value in vars(of).items() if name not in but)


def _plain(value: object) -> Hashable:
    if isinstance(value, HostTime | Offset):
        return value.value
    if isinstance(value, Sized) and not isinstance(value, str | tuple):
        return len(value)
    return cast(Hashable, value if isinstance(value, int | str | tuple | None) else type(value))


_OF_AN_ENTRY = (
    *("inside", "out", "kept", "leaving", "host_time_restored", "time_slice_over", "failure"),
    "entered_with",
)
"""What a virtual core keeps from the beginning of an entry to the end of its exit."""


class _Runner(Actor):
    """A thread of user space that runs a vCPU once."""

    def __init__(self, world: _World, vcpu: VirtualCpu) -> None:
        super().__init__(f"vCPU {vcpu.number}", self._run)
        self.vcpu = vcpu
        self._world = world

    def _run(self) -> None:
        ended = self.vcpu.run()
        self._world.case.require(
            "a run ends with its hypercall, or says that its entry failed",
            isinstance(ended, Hypercall) or (self._world.may_refuse and isinstance(ended, FailedEntry)),
        )


def any_order(
    case: Case,
    threads: int,
    owner: bool = False,
    fails: bool = False,
    may_refuse: bool = False,
    departures: int | None = None,
    world_switch: type[WorldSwitch] = WorldSwitch,
) -> None:
    """So many vCPUs run once each, in any order of their steps; with an `owner` who sets another offset
    meanwhile, a timebase that `fails`, and entries that may be refused; or in those orders that depart from
    taking turns so often at most.
    """
    case.assume(EVERY_STEP, True)
    world = _World(case, threads, world_switch, may_refuse, departures)
    others = []
    if owner:
        first = world.vcpus[0]
        world.has_owner = True

        def set_offset() -> None:
            with first.access():
                first.set_offset(_OFFSET_SET)

        others.append(Actor("the owner, who sets another offset,", set_offset))
    if fails:
        others.append(Actor("the failing timebase", lambda: world.host.maintenance.fail_timebase(0, _DAMAGE)))
    world.explore(*others)


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
        "two threads, an owner, and a timebase that fails at any moment: it is repaired, and the offset is "
        "neither lost nor taken away twice",
        partial(any_order, threads=2, owner=True, fails=True),
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
