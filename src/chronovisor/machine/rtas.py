"""Run-time abstraction services (LoPAR 1.1, chapter 7), called through H_RTAS.

The guest's argument block is made of big-endian 32-bit words: token, number of arguments, number of return
values, the arguments, the return values. The first return value is the status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chronovisor.machine import rtas_devices, rtas_system
from chronovisor.machine.rtas_service import SERVICES, RtasStatus
from chronovisor.machine.services import Machine
from chronovisor.machine.vcpu_thread import VcpuThread
from chronovisor.memory import AddressError
from chronovisor.papr.hcalls import Status

MAXIMUM_WORDS: Final = 16
"""Arguments and return values together; no service here has more."""
ENTRY_CODE: Final = bytes.fromhex("7c641b78 38600000 6063f000 44000022 4e800020")
"""What guests call for a service. It moves the argument block's address from r3 to r4 and makes H_RTAS.

The code is big-endian because RTAS is entered in that mode.
"""
DECLARING: Final = (rtas_devices, rtas_system)
"""The modules whose services there are."""


def tokens() -> Mapping[str, int]:
    """Every service's name and token, for the device tree."""
    return {entry.name: token for token, entry in sorted(SERVICES.items())}


def call_rtas(machine: Machine, caller: VcpuThread, block: int) -> Status:
    """Do the service that the argument block at real address `block` asks for.

    H_PARAMETER if the block is not in memory, its counts are not the service's, or the token is none of
    ours.
    """
    try:
        token, arguments, returns = (machine.memory.load(block + 4 * n, 4, False) for n in range(3))
        if arguments + returns > MAXIMUM_WORDS:
            return Status.PARAMETER
        words = tuple(machine.memory.load(block + 12 + 4 * n, 4, False) for n in range(arguments))
        results = block + 12 + 4 * arguments
        machine.memory.read(results, 4 * returns)
    except AddressError:
        return Status.PARAMETER
    service = SERVICES.get(token)
    if service is None and machine.log is not None:
        machine.log.unknown_service(caller.vcpu.id, token)
    if service is None or arguments < service.arguments or returns < 1:
        if returns:
            machine.memory.store(results, 4, RtasStatus.PARAMETER, False)
        return Status.PARAMETER
    status, answer = service.call(machine, caller, words)
    if status == RtasStatus.PARAMETER and machine.log is not None:
        machine.log.refused_service(caller.vcpu.id, service.name, words)
    values = (int(status), *answer, *[0] * returns)[:returns]
    for n, value in enumerate(values):
        machine.memory.store(results + 4 * n, 4, value, False)
    return Status.SUCCESS
