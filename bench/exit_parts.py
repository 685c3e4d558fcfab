"""A profile of an exit and an entry: what each part of a hypercall's way costs.

Each part is called many times by itself, on the vCPU of a guest that does nothing but call. What is left of
the whole is the code between the parts. Figures are processor time, the least of many short runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from bench.switch import hypercalls, least
from chronovisor.engine.native.library import library
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.stay import Stay
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.hypervisor.virtual_machine import VirtualMachine
from chronovisor.isa.assembly import assemble
from chronovisor.kvm.exits import HcallExit
from chronovisor.memory.guest_memory import GuestMemory
from chronovisor.papr.hcalls import Hcall
from chronovisor.timebase.clock import RealTime
from chronovisor.timebase.types import Offset, Ticks

ROUNDS = 2_000
RUNS = 50

_CODE_AT = 0x1000
_MODE = (True, False)


def _vcpu() -> VirtualCpu:
    """A vCPU whose guest calls for ever."""
    from chronovisor.engine.choice import engine_named

    host = Hypervisor(RealTime(), engine=engine_named("threaded"))
    machine = VirtualMachine(host)
    machine.hypercalls.left = HcallExit
    memory = GuestMemory(1 << 20)
    memory.write(_CODE_AT, assemble("again: sc 1; b again", origin=_CODE_AT, little=False))
    machine.give_memory(memory)
    vcpu = machine.add_vcpu(0)
    vcpu.state.CIA = _CODE_AT
    vcpu.state.gpr[3] = Hcall.PUT_TERM_CHAR
    vcpu.decrementer_expiry = host.clock.now() + vcpu.vcore.offset + Ticks.from_ns(1_000_000_000)
    return vcpu


def _nothing() -> None:
    """Be called."""


def _ns(part: Callable[[], object]) -> float:
    """Nanoseconds of processor time of one call."""
    best = float("inf")
    for _ in range(RUNS):
        begun = time.process_time_ns()
        for _ in range(ROUNDS):
            part()
        best = min(best, (time.process_time_ns() - begun) / ROUNDS)
    return best


def _parts(vcpu: VirtualCpu) -> dict[str, Callable[[], object]]:
    """The parts: the first three are those of every call that Python sees."""
    host, state, engine, core = vcpu.host, vcpu.state, vcpu.machine.engine, vcpu.host.cores[0]
    thread, offset, now, stay = core.threads[0], vcpu.vcore.offset, host.source.ticks(), vcpu.vcore.stay
    assert stay is not None
    inside, monitor, timebase = stay, host.scheduler.monitor, core.timebase

    def locks() -> None:
        for _ in range(2):
            monitor.acquire()
            monitor.release()

    def timer() -> None:
        vcpu.timer.load(thread, 32, offset, offset, now)
        vcpu.timer.keep(timebase, offset, offset, now)  # type: ignore[arg-type]  # a count of ticks

    def switch() -> None:
        host.switch.leave(timebase, host.switch.enter(timebase, offset))

    def begin_and_end() -> None:
        vcpu.begin(inside, thread, now)
        vcpu.end(inside, now)

    def queue() -> None:
        end = host.run_queue.time_slice_end(vcpu.vcore, now)
        core.hypervisor_decrementer.deadline = end

    def clock() -> None:
        host.source.ticks()
        host.source.ticks()

    return {
        "native code runs two instructions and comes back: `engine.run`": lambda: engine.run(state, 1 << 20),
        "interrupts that wait are delivered": lambda: vcpu.pending.deliver(state, engine),
        "the call is found to be user space's, its object made": lambda: vcpu.machine.hypercalls.answer(vcpu),
        "the host's lock, taken twice": locks,
        "the clock, read twice": clock,
        "the stay": lambda: Stay(core, vcpu.vcore, vcpu),
        "the end of the time slice": queue,
        "the switch of the timebase and back": switch,
        "registers of the core, run times, the decrementer loaded": begin_and_end,
        "the decrementer's expiry kept (and loaded once more)": timer,
    }


def measure() -> tuple[dict[str, float], float, float]:
    """The parts, and the whole of a call that Python answers and of one that reaches user space, in ns."""
    library(_MODE).ensure()
    vcpu = _vcpu()
    world_switch = vcpu.host.world_switch
    stay = world_switch.enter(vcpu)
    assert stay is not None
    try:
        call = _ns(_nothing)
        found = {name: _ns(part) - call for name, part in _parts(vcpu).items()}
    finally:
        offset = vcpu.vcore.offset
        vcpu.timer.load(stay.core.threads[0], 32, offset, offset, vcpu.host.source.ticks())
        world_switch.leave(vcpu, stay)
    none = Offset(0)
    answered, left = least(hypercalls(Hcall.PROD, none), hypercalls(Hcall.PUT_TERM_CHAR, none))
    return found, answered * 1000, left * 1000


def show(console: Console) -> None:
    """Measure and print."""
    parts, answered, left = measure()
    title = f"An exit and an entry by parts: ns of processor time, least of {RUNS} times {ROUNDS:,}"
    table = Table(title=title, title_justify="left")
    for column in ("part", "ns"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for name, ns in parts.items():
        table.add_row(name, f"{ns:,.0f}")
    table.add_row("a hypercall that Python answers, as a whole", f"{answered:,.0f}")
    table.add_row("a hypercall that reaches user space, as a whole", f"{left:,.0f}")
    table.add_row("the rest of it: the code between these parts", f"{left - sum(parts.values()):,.0f}")
    console.print(table)
