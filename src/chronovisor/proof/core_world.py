"""A host on which claims about entry and exit run: the threads of its virtual core take steps in any order.

`VirtualCpu.run` of each vCPU, with all that it calls, runs under the scheduler of
`chronovisor.proof.interleaving`. Only the guest's instructions are left out: a guest stays at any of them for
any time, and then makes a hypercall or is made to leave.
"""

from __future__ import annotations

from collections.abc import Hashable, Sized
from typing import cast

from chronovisor.engine.concrete import ConcreteEngine, Reason, Stop
from chronovisor.engine.state import Thread
from chronovisor.hypervisor.exits import Exit, FailedEntry, Hypercall
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.virtual_machine import VirtualMachine
from chronovisor.hypervisor.world_switch import WorldSwitch
from chronovisor.memory.guest_memory import PAGE_SIZE, GuestMemory
from chronovisor.processor.cpu_model import POWER8
from chronovisor.proof.decrementer import LONGEST_STOP, NOT_TOO_LATE
from chronovisor.proof.interleaving import Actor, Interleaving
from chronovisor.proof.paths import Case
from chronovisor.proof.reduction import Runner, is_at, narrowed
from chronovisor.proof.unknown_time import UnknownTime
from chronovisor.timebase.clock import RealTime
from chronovisor.timebase.offset import Applied, Switch, SwitchBreachError, shift
from chronovisor.timebase.tbu40 import CoreTimebase, HostTimebase, TimebaseRegister
from chronovisor.timebase.trace import Observer
from chronovisor.timebase.types import LOW_MASK, MASK64, HostTime, Offset, SourceTime, Ticks, signed64

THREADS = 8
"""Threads of the core, as many as a POWER8 core has."""

_DEC = 0x2F00_0001
"""Ticks until each decrementer expires, at the beginning."""

_HYPERCALL = 0x58
"""A hypercall that user space answers, so that the run ends with it."""


class _SteppingClock(RealTime):
    """A clock that advances at each reading, by so much that many switches see the low 24 bits wrap."""

    STEP = (1 << 21) - 11
    """Ticks. A switch spans six of these steps at most, which are fewer than 2^24 ticks."""

    def __init__(self) -> None:
        self.now = SourceTime(1 << 40)

    def ticks(self) -> SourceTime:
        """Return the ticks at this reading."""
        self.now = SourceTime(self.now + self.STEP)
        return self.now


class _Guest(ConcreteEngine):
    """A guest whose instructions take any time and do not write time registers."""

    world: World

    def run(self, state: Thread, budget: int) -> Stop:
        """Stay in the guest until the next turn. Then make a hypercall, or leave if that was requested."""
        return self.world.in_guest(state)


class _WatchedRegister:
    """A core's timebase. After each access the world checks what must hold at every instant."""

    def __init__(self, tb: TimebaseRegister[int], world: World) -> None:
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
    """The production switch. An entry may be refused, as if every attempt had taken too long."""

    def __init__(self, world: World) -> None:
        super().__init__(lambda tb, delta: shift(_WatchedRegister(tb, world), delta))
        self._world = world

    def enter(self, tb: CoreTimebase, offset: Offset, observer: Observer | None = None) -> Applied:
        """Switch, or refuse."""
        world = self._world
        world.added = offset
        world.stopped.clear()
        if world.may_refuse and world.case.choose(
            f"step {world.order.step}: is the entry refused", lambda: (0, 1)
        ):
            raise SwitchBreachError(tb.core, self.ATTEMPTS)
        return super().enter(tb, offset, observer)


class _SoundSwitch(Switch):
    """A switch that does what is proven of the production switch for any pace and any offset
    (`proof/switch.py`): T is right afterwards. During the switch nobody may use T.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def enter(self, tb: CoreTimebase, offset: Offset, observer: Observer | None = None) -> Applied:
        """Give the core the guest's time."""
        world = self._world
        world.nobody_in_guest()
        world.added = offset
        tb.adjust = offset.signed
        return Applied(offset)

    def leave(self, tb: CoreTimebase, applied: Applied, observer: Observer | None = None) -> HostTimebase:
        """Give the core back the host's time, if it is the guest's with this offset."""
        self._world.nobody_in_guest()
        tb.adjust = signed64(tb.adjust - applied.signed)
        return HostTimebase(tb)


class World:
    """A host with one core, and the vCPUs of one virtual core, which enter the guest and leave it."""

    def __init__(
        self,
        case: Case,
        threads: int,
        world_switch: type[WorldSwitch],
        may_refuse: bool,
        departures: int | None,
        offset: Offset,
        clock: UnknownTime | None = None,
        any_first: bool = False,
        reduced: bool = False,
    ) -> None:
        """With a `clock`, its readings and the offset are unknowns, and no states are merged. The vCPUs are
        equal at the beginning, so the first of them takes the first step, unless `any_first` asks for the
        orders in which another vCPU does. If `reduced`, of orders that differ only in steps that commute one
        is explored (`reduction.py`); there must be no actors but the vCPUs then.
        """
        self.case = case
        self._clock = clock
        self.longest = LONGEST_STOP
        """Ticks that a timer may be late, on an unknown clock."""
        self.may_refuse = may_refuse
        self.has_owner = False
        self.order = Interleaving(
            case,
            self._name if clock else self._state,
            self.look,
            departures,
            merges=clock is None,
            narrow=self._narrow if reduced else list,
        )
        self._any_first = any_first
        self.host = host = Hypervisor(
            clock or _SteppingClock(),
            origin=0x1234_5678,
            threads_per_core=THREADS,
            cpu_model=POWER8,
            observer=lambda event: case.tell(lambda: f"  {event}"),
            engine=self._engine,
        )
        host.scheduler = self.order
        host.world_switch = world_switch(host)
        # As in virtual time, so that others come between an entry's beginning and its switch.
        host.world_switch.gives_way = True
        host.switch = _SoundSwitch(self) if clock else _AnySwitch(self)
        self.core = host.cores[0]
        self.machine = VirtualMachine(host, THREADS)
        self.machine.give_memory(GuestMemory(PAGE_SIZE))
        self.vcpus = [self.machine.add_vcpu(number) for number in range(threads)]
        self.vcore = self.vcpus[0].vcore
        self.vcpus[0].set_offset(offset)
        self.expiry = (host.clock.now() + offset) + Ticks(_DEC)
        for vcpu in self.vcpus:
            vcpu.state.gpr[3] = _HYPERCALL
            vcpu.decrementer_expiry = self.expiry
        self.added: Offset | None = None
        """What the last entry was to add."""
        self.guests: set[int] = set()
        """The numbers of the vCPUs that may execute an instruction now."""
        self.stopped: dict[int, Reason] = {}
        """Why each vCPU that was in its guest since the last entry has left it."""
        self.actors = [Runner(vcpu, self._require_end) for vcpu in self.vcpus]

    def _engine(self, memory: GuestMemory) -> _Guest:
        guest = _Guest(memory)
        guest.world = self
        return guest

    def in_guest(self, state: Thread) -> Stop:
        """Keep the running vCPU in its guest for a step."""
        number = state.get("PIR")
        self.guests.add(number)
        self.look()
        self.order.pause()
        self.look()
        self.guests.discard(number)
        made_to_leave = state.exit_request and self.case.choose(
            f"step {self.order.step}: is it made to leave", lambda: (0, 1)
        )
        stop = Stop(Reason.BUDGET if made_to_leave else Reason.HYPERCALL)
        self.stopped[number] = stop.reason
        return stop

    def _require_end(self, ended: Exit) -> None:
        self.case.require(
            "a run ends with its hypercall, or says that its entry failed",
            isinstance(ended, Hypercall) or (self.may_refuse and isinstance(ended, FailedEntry)),
        )

    def nobody_in_guest(self) -> None:
        """Require that no vCPU runs the guest, so that none sees what a switch does to T."""
        self.case.require("nobody runs the guest while its timebase is switched", not self.guests)

    def look(self) -> None:
        """Require what holds at every instant."""
        if self._clock is not None:
            late = self._clock.since_first - _DEC
            self.case.assume(NOT_TOO_LATE, late <= self.longest)
        core = self.core
        if core.hmer or self.order.over:
            # T may have any value. The guest's next instruction would be the first of the interrupt handler.
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
        if self.host.run_queue.stays[core.number] is None:
            self.case.require("P2: a core that runs no guest has T = H", ahead == 0)

    def explore(self, *others: Actor) -> None:
        """Run all vCPUs once, and the other actors, in the order that the case chooses."""
        self.order.run([*self.actors, *others])
        core = self.core
        free = self.host.run_queue.stays[core.number] is None
        self.case.require("the core is free and whole", free and not core.hmer)
        self.case.require("T = H", core.timebase.adjust == 0)
        self.case.require("nobody is left in the queue", not self.host.run_queue.waiting)
        for vcpu in self.vcpus:
            self.case.require(
                "P7: each decrementer expires when it did, in guest time",
                vcpu.decrementer_expiry == self.expiry,
            )

    def _narrow(self, groups: list[list[Actor]]) -> list[list[Actor]]:
        stay = self.vcore.stay
        return groups if stay is None or not stay.leaving else narrowed(stay, groups, self.in_guest)

    def _name(self, actor: Actor | None) -> Hashable:
        """Who an actor is. The vCPUs share a name until one of them has taken a step."""
        if isinstance(actor, Runner) and self.order.step <= 1 and not self._any_first:
            return "a vCPU"
        return None if actor is None else actor.name

    def _state(self, actor: Actor | None) -> Hashable:
        """What the rest of the course depends on: for one actor, or (for None) for what all of them share."""
        if isinstance(actor, Runner):
            vcpu, stay = actor.vcpu, self.vcore.stay
            # The owner sets the offset through this one.
            special = self.has_owner and vcpu is self.vcpus[0]
            own = _snapshot(vcpu, "number", "thread_number"), _snapshot(vcpu.timer), _snapshot(vcpu._cede)
            if actor.finished:
                return special, own
            thread = vcpu.timer.thread
            return (
                special,
                # On the way out, what is returned says whether the run ends, and no variable does.
                self.stopped.get(vcpu.number) if is_at(actor, WorldSwitch.leave) else None,
                stay is not None and vcpu in stay.inside,
                stay is not None and stay.primary is vcpu,
                vcpu.number in self.guests,
                vcpu.number in self.guests and vcpu.state.exit_request,
                None if thread is None else thread.decrementer.deadline,
                own,
            )
        if actor is not None:
            return actor.name
        core = self.core
        stay = self.vcore.stay
        return (
            None if stay is None or stay.applied is None else self.added,
            len(self.host.run_queue.waiting),
            # When it was queued only matters for what its vCPUs are told of their waits.
            _snapshot(self.vcore, "queued_at"),
            None if stay is None else _snapshot(stay),
            _snapshot(core),
            core.timebase.adjust,
            core.facility.tfmr,
        )


def _snapshot(of: object, *but: str) -> Hashable:
    """The attributes of an object by name: numbers and times as they are, the length of collections, the name
    of others' types. Attributes that still have their class's value count too.
    """
    kind = type(of)
    names = {name for name, value in vars(kind).items() if not name.startswith("__") and _is_plain(value)}
    names.update(getattr(kind, "__slots__", None) or vars(of))
    return tuple((name, _plain(getattr(of, name))) for name in sorted(names.difference(but)))


def _is_plain(value: object) -> bool:
    """Whether a class's attribute is a value, and not a function or property."""
    return not callable(value) and not hasattr(value, "__get__")


def _plain(value: object) -> Hashable:
    if isinstance(value, HostTime | Offset):
        return value.value
    if isinstance(value, Sized) and not isinstance(value, str | tuple):
        return len(value)
    return cast(Hashable, value if isinstance(value, int | str | tuple | None) else type(value).__name__)
