"""What entries, exits and hypercalls cost: a guest that does nothing but call, on the machine's own clock.

Figures are processor time, the least of several runs, so that what else the machine does counts as little
as can be. The peer of what is done with an offset is the same without one; that of the compiled switch is the
interpreted one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from chronovisor.hypervisor.host import Host, Parts
from chronovisor.isa.assembly import assemble
from chronovisor.kvm.exits import HcallExit
from chronovisor.kvm.ids import ONE_REG_BY_NAME
from chronovisor.kvm.interface import HostOptions, Vcpu
from chronovisor.kvm.provider import open_system
from chronovisor.memory.guest_memory import GuestMemory
from chronovisor.papr.hcalls import Hcall
from chronovisor.timebase.clock import HostClock, RealTime
from chronovisor.timebase.offset import Switch
from chronovisor.timebase.types import GRANULE, Offset

ROUNDS = 20_000
RUNS = 7
OFFSET = Offset(64 * GRANULE)

_CODE_AT = 0x1000
_SIXTY_FOUR_BIT_LITTLE_ENDIAN = 1 << 63 | 1 << 12 | 1
_LAST = int(Hcall.RTAS)
_LOOP = """
    li32 r5, {rounds}
    mtctr r5
again:
    li r3, {number}
    li r4, 0
    sc 1
    bdnz again
    li32 r3, {last}
    sc 1
"""


@dataclass(frozen=True)
class Figure:
    """One operation: microseconds with an offset, without one, and the peer's where there is one."""

    name: str
    plain_us: float
    offset_us: float
    interpreted_us: float | None = None


def _calling(number: int, offset: Offset) -> Vcpu:
    """A vCPU whose guest makes a hypercall ROUNDS times, then one of another number."""
    vm = open_system(HostOptions(source=RealTime(), engine="native")).create_vm()
    memory = GuestMemory(1 << 20)
    text = _LOOP.format(rounds=ROUNDS, number=number, last=_LAST)
    memory.write(_CODE_AT, assemble(text, origin=_CODE_AT, little=True))
    vm.set_user_memory_region(0, 0, 0, memory)
    vcpu = vm.create_vcpu(0)
    regs = vcpu.get_regs()
    regs.pc, regs.msr = _CODE_AT, _SIXTY_FOUR_BIT_LITTLE_ENDIAN
    vcpu.set_regs(regs)
    vcpu.set_one_reg(ONE_REG_BY_NAME["TB_OFFSET"].id, offset.value)
    return vcpu


def _answer_all(vcpu: Vcpu) -> None:
    while True:
        call = vcpu.run()
        if not isinstance(call, HcallExit):
            raise RuntimeError(f"the guest came out with {call}")
        if call.nr == _LAST:
            return
        call.ret = 0


def _least(make: Callable[[], Callable[[], None]]) -> float:
    """Microseconds of processor time a round, of the best of RUNS runs of what `make` prepares."""
    best = float("inf")
    for _ in range(RUNS):
        run = make()
        begun = time.process_time()
        run()
        best = min(best, time.process_time() - begun)
    return best / ROUNDS * 1e6


def _hypercall(number: int, offset: Offset) -> float:
    def make() -> Callable[[], None]:
        vcpu = _calling(number, offset)
        return lambda: _answer_all(vcpu)

    return _least(make)


def _switch(switch: Switch, offset: Offset) -> float:
    def rounds() -> None:
        timebase = switch.timebase(HostClock(RealTime()))
        for _ in range(ROUNDS):
            switch.leave(timebase, switch.enter(timebase, offset))

    return _least(lambda: rounds)


def measure() -> list[Figure]:
    """Every figure."""
    from chronovisor.engine.native.engine import NativeEngine

    none = Offset(0)
    compiled = Host(RealTime(), parts=Parts(engine=NativeEngine)).switch
    return [
        Figure(
            "the switch of a core's timebase and back",
            _switch(compiled, none),
            _switch(compiled, OFFSET),
            _switch(Switch(), OFFSET),
        ),
        Figure(
            "a hypercall that the hypervisor answers",
            _hypercall(Hcall.PROD, none),
            _hypercall(Hcall.PROD, OFFSET),
        ),
        Figure(
            "a hypercall that reaches user space: an exit and an entry",
            _hypercall(Hcall.PUT_TERM_CHAR, none),
            _hypercall(Hcall.PUT_TERM_CHAR, OFFSET),
        ),
    ]


def show(console: Console) -> None:
    """Measure and print."""
    title = f"Entries, exits and hypercalls: µs of processor time, least of {RUNS} times {ROUNDS:,}"
    table = Table(title=title, title_justify="left")
    for column in ("operation", "no offset", "with an offset", "offset's share", "interpreted"):
        table.add_column(column, justify="left" if column == "operation" else "right")
    for figure in measure():
        peer = f"{figure.interpreted_us:.2f}" if figure.interpreted_us is not None else "–"
        share = figure.offset_us - figure.plain_us
        table.add_row(figure.name, f"{figure.plain_us:.2f}", f"{figure.offset_us:.2f}", f"{share:.2f}", peer)
    console.print(table)
