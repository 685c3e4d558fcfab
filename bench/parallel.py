"""The speed-up of several vCPUs over one, and the processor time that running together costs.

A machine that others use too tells little by its clock on the wall. What tells whether vCPUs stand in each
other's way are the processor time that their rounds take and how often their threads wait.
"""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass
from resource import RUSAGE_SELF, getrusage

from rich.console import Console
from rich.table import Table

from bench import processors
from chronovisor.isa.assembly import assemble
from chronovisor.kvm.exits import HcallExit
from chronovisor.kvm.interface import HostOptions, Vcpu
from chronovisor.kvm.provider import open_system
from chronovisor.memory.guest_memory import GuestMemory
from chronovisor.papr.hcalls import Hcall
from chronovisor.timebase.clock import RealTime

ROUNDS = 60_000_000
RUNS = 5

_CODE_AT = 0x1000
_SIXTY_FOUR_BIT_LITTLE_ENDIAN = (1 << 63) | (1 << 12) | 1
_LOOP = f"""
    li32 r5, {ROUNDS}
    mtctr r5
again:
    add r6, r6, r7
    xor r7, r7, r6
    addi r8, r7, 5
    bdnz again
    li32 r3, {int(Hcall.RTAS)}
    sc 1
"""


@dataclass(frozen=True)
class Together:
    """Several vCPUs: how much more they get done than one, how much more processor time a round takes, and
    how often their threads gave the processor up to wait for something, starts and ends among it.
    """

    name: str
    speed_up: float
    cost: float
    waits: int


@dataclass(frozen=True)
class _Run:
    seconds: float
    processor_seconds: float
    waits: int


def _vcpus(count: int, options: HostOptions) -> list[Vcpu]:
    vm = open_system(options).create_vm()
    memory = GuestMemory(1 << 20)
    memory.write(_CODE_AT, assemble(_LOOP, origin=_CODE_AT, little=True))
    vm.set_user_memory_region(0, 0, 0, memory)
    vcpus: list[Vcpu] = [vm.create_vcpu(number) for number in range(count)]
    for vcpu in vcpus:
        regs = vcpu.get_regs()
        regs.pc, regs.msr = _CODE_AT, _SIXTY_FOUR_BIT_LITTLE_ENDIAN
        vcpu.set_regs(regs)
    return vcpus


def _run(vcpus: list[Vcpu]) -> _Run:
    def to_its_end(vcpu: Vcpu) -> None:
        if not isinstance(ended := vcpu.run(), HcallExit):
            raise RuntimeError(f"the guest came out with {ended}")

    threads = [threading.Thread(target=to_its_end, args=(vcpu,)) for vcpu in vcpus]
    begun, before = time.monotonic(), getrusage(RUSAGE_SELF)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, after = time.monotonic() - begun, getrusage(RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return _Run(seconds, used, after.ru_nvcsw - before.ru_nvcsw)


def _compared(name: str, count: int, options: HostOptions) -> Together:
    """One vCPU, then all of them, in turns: the median speed-up, the ratio of the least processor times, and
    the least waits.
    """
    alone, together = [], []
    for _ in range(RUNS):
        alone.append(_run(_vcpus(1, options)))
        together.append(_run(_vcpus(count, options)))
    speed_ups = [count * a.seconds / b.seconds for a, b in zip(alone, together, strict=True)]
    cost = (
        min(run.processor_seconds for run in together) / count / min(run.processor_seconds for run in alone)
    )
    return Together(name, statistics.median(speed_ups), cost, min(run.waits for run in together))


def measure() -> list[Together]:
    """Every figure."""
    return [
        _compared("2 vCPUs on a core each", 2, HostOptions(source=RealTime(), cores=2, engine="regions")),
        _compared(
            "4 vCPUs of one virtual core",
            4,
            HostOptions(source=RealTime(), threads_per_core=4, cpu_model="power8", engine="regions"),
        ),
    ]


def show(console: Console) -> None:
    """Measure and print."""
    table = Table(
        title=f"vCPUs together against one (medians of {RUNS}; two processes of this machine: "
        f"{processors.scaling():.2f})",
        title_justify="left",
    )
    for column in (
        "vCPUs",
        "get done, of what one does",
        "processor time a round, of what one takes",
        "waits",
    ):
        table.add_column(column, justify="left" if column == "vCPUs" else "right")
    for together in measure():
        table.add_row(together.name, f"{together.speed_up:.2f}", f"{together.cost:.2f}", str(together.waits))
    console.print(table)
