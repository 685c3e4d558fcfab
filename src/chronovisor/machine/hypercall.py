"""What a hypercall that user space answers is: a function of the machine, the calling vCPU and r4 to r12."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from chronovisor.machine.services import Machine
from chronovisor.machine.vcpu_thread import VcpuThread
from chronovisor.papr.hcalls import Status


class Answer(NamedTuple):
    """A hypercall's status and its results, for r4 and on."""

    status: Status
    results: tuple[int, ...] = ()


DONE: Final = Answer(Status.SUCCESS)

HypercallFunction = Callable[[Machine, VcpuThread, tuple[int, ...]], Answer]
