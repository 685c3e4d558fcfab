"""What entries, exits and hypercalls cost: a guest that does nothing but call, on the machine's own clock.

Figures are processor time, the least of several runs, so that what else the machine does counts as little
as can be; what is compared is run in turns. The peer of what is done with an offset is the same without one;
that of the compiled switch is the interpreted one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from chronovisor.engine.native.library import library
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.isa.assembly import assemble
from chronovisor.kvm.exits import HcallExit
from chronovisor.kvm.ids import ONE_REG_BY_NAME, Cap
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
_VPA_AT = 0x2000
_SIXTY_FOUR_BIT_LITTLE_ENDIAN = (1 << 63) | (1 << 12) | 1
_MODE = (True, True)
LAST = int(Hcall.RTAS)
_LOOP = """
    li32 r5, 0x7fffffff
    mtdec r5
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
    """One operation: microseconds without an offset and with one, and the peer's if there is a peer."""

    name: str
    us: tuple[float, float]
    interpreted_us: float | None = None
    asked_us: float | None = None
    """The target: the most that it may take, with an offset or without."""
    asked_share_us: float | None = None
    """The most that an offset may add; None if the operation does not use the offset."""


def calling(number: int, offset: Offset, has_vpa: bool = False) -> Vcpu:
    """A vCPU whose guest makes a hypercall ROUNDS times, then one of another number. With a virtual processor
    area (VPA), which Linux has, each entry and each exit counts its dispatch there.
    """
    vm = open_system(HostOptions(source=RealTime(), engine="regions")).create_vm()
    memory = GuestMemory(1 << 20)
    text = _LOOP.format(rounds=ROUNDS, number=number, last=LAST)
    memory.write(_CODE_AT, assemble(text, origin=_CODE_AT, little=True))
    vm.set_user_memory_region(0, 0, 0, memory)
    vcpu = vm.create_vcpu(0)
    if number == Hcall.SET_SPRG0:
        vm.enable_cap(Cap.PPC_ENABLE_HCALL, number, 1)
    regs = vcpu.get_regs()
    regs.pc, regs.msr = _CODE_AT, _SIXTY_FOUR_BIT_LITTLE_ENDIAN
    vcpu.set_regs(regs)
    vcpu.set_one_reg(ONE_REG_BY_NAME["TB_OFFSET"].id, offset.value)
    if has_vpa:
        vcpu.set_one_reg(ONE_REG_BY_NAME["VPA_ADDR"].id, _VPA_AT)
    return vcpu


def _answer_all(vcpu: Vcpu) -> None:
    while True:
        call = vcpu.run()
        if not isinstance(call, HcallExit):
            raise RuntimeError(f"the guest came out with {call}")
        if call.nr == LAST:
            return
        call.ret = 0


def least(*runs: Callable[[], Callable[[], None]]) -> list[float]:
    """Microseconds of processor time a round: of what each prepares, in turns, the best of RUNS runs."""
    library(_MODE).ensure()
    best = [float("inf")] * len(runs)
    for _ in range(RUNS):
        for number, make in enumerate(runs):
            run = make()
            begun = time.process_time()
            run()
            best[number] = min(best[number], time.process_time() - begun)
    return [seconds / ROUNDS * 1e6 for seconds in best]


def hypercalls(number: int, offset: Offset, has_vpa: bool = False) -> Callable[[], Callable[[], None]]:
    """Prepares a guest that makes ROUNDS hypercalls of a number, under an offset."""

    def make() -> Callable[[], None]:
        vcpu = calling(number, offset, has_vpa)
        return lambda: _answer_all(vcpu)

    return make


def _switches(switch: Switch, offset: Offset) -> Callable[[], Callable[[], None]]:
    def rounds() -> None:
        timebase = switch.timebase(HostClock(RealTime()))
        for _ in range(ROUNDS):
            switch.leave(timebase, switch.enter(timebase, offset))

    return lambda: rounds


def measure() -> list[Figure]:
    """Every figure."""
    from chronovisor.engine.native.engine import NativeEngine

    none = Offset(0)
    compiled = Hypervisor(RealTime(), engine=NativeEngine).switch
    switch = least(_switches(compiled, none), _switches(compiled, OFFSET), _switches(Switch(), OFFSET))
    answered = least(hypercalls(Hcall.PROD, none), hypercalls(Hcall.PROD, OFFSET))
    natively = least(hypercalls(Hcall.SET_SPRG0, none), hypercalls(Hcall.SET_SPRG0, OFFSET))
    left = least(
        *(
            hypercalls(Hcall.PUT_TERM_CHAR, offset, has_vpa)
            for has_vpa in (False, True)
            for offset in (none, OFFSET)
        )
    )
    return [
        Figure("the switch of a core's timebase and back", (switch[0], switch[1]), interpreted_us=switch[2]),
        Figure("a hypercall that native code answers", (natively[0], natively[1]), asked_us=0.15),
        Figure("a hypercall that the hypervisor answers", (answered[0], answered[1]), asked_us=2),
        Figure(
            "a hypercall that reaches user space: an exit and an entry",
            (left[0], left[1]),
            asked_us=6,
            asked_share_us=1,
        ),
        Figure("the same, of a guest with a VPA, as Linux is one", (left[2], left[3]), asked_share_us=1),
    ]


def show(console: Console) -> None:
    """Measure and print."""
    title = f"Entries, exits and hypercalls: µs of processor time, least of {RUNS} times {ROUNDS:,}"
    table = Table(title=title, title_justify="left")
    for column in (
        "operation",
        "no offset",
        "with an offset",
        "asked",
        "offset's share",
        "asked",
        "interpreted",
    ):
        table.add_column(column, justify="left" if column == "operation" else "right")
    for figure in measure():
        plain, offset = figure.us
        has_share = figure.asked_us is None or figure.asked_share_us is not None
        table.add_row(
            figure.name,
            f"{plain:.2f}",
            f"{offset:.2f}",
            _at_most(figure.asked_us),
            f"{offset - plain:.2f}" if has_share else "none",
            _at_most(figure.asked_share_us),
            f"{figure.interpreted_us:.2f}" if figure.interpreted_us is not None else "–",
        )
    console.print(table)


def _at_most(limit: float | None) -> str:
    return "–" if limit is None else f"≤ {limit:g}"
