"""RTAS services of devices: interrupt sources, NVRAM, events, system parameters (LoPAR 1.1, chapter 7)."""

from __future__ import annotations

from typing import Final

from chronovisor.machine.power_button import EPOW_MASK
from chronovisor.machine.rtas_service import Answer, RtasStatus, service
from chronovisor.machine.services import Machine
from chronovisor.machine.vcpu_thread import VcpuThread
from chronovisor.memory import AddressError

_NO_EVENT: Final = 1
"""The status of event-scan and check-exception if there is nothing to report."""
_SPLPAR_CHARACTERISTICS: Final = 20
_DIAGNOSTICS_RUN_MODE: Final = 42


@service("ibm,set-xive", 0x200A, arguments=3, returns=1)
def _set_xive(machine: Machine, _caller: VcpuThread, words: tuple[int, ...]) -> tuple[RtasStatus, Answer]:
    number, server, priority = words[:3]
    if number not in machine.interrupts or machine.processor(server) is None or priority > 0xFF:
        return RtasStatus.PARAMETER, ()
    machine.interrupts.direct(number, server, priority)
    return RtasStatus.SUCCESS, ()


@service("ibm,get-xive", 0x200B, arguments=1, returns=3)
def _get_xive(machine: Machine, _caller: VcpuThread, words: tuple[int, ...]) -> tuple[RtasStatus, Answer]:
    if words[0] not in machine.interrupts:
        return RtasStatus.PARAMETER, ()
    return RtasStatus.SUCCESS, machine.interrupts.target(words[0])


@service("ibm,int-off", 0x200C, arguments=1, returns=1)
def _int_off(machine: Machine, _caller: VcpuThread, words: tuple[int, ...]) -> tuple[RtasStatus, Answer]:
    return _mask(machine, words[0], True)


@service("ibm,int-on", 0x200D, arguments=1, returns=1)
def _int_on(machine: Machine, _caller: VcpuThread, words: tuple[int, ...]) -> tuple[RtasStatus, Answer]:
    return _mask(machine, words[0], False)


def _mask(machine: Machine, number: int, masked: bool) -> tuple[RtasStatus, Answer]:
    if number not in machine.interrupts:
        return RtasStatus.PARAMETER, ()
    machine.interrupts.mask(number, masked)
    return RtasStatus.SUCCESS, ()


@service("nvram-fetch", 0x200E, arguments=3, returns=2)
def _nvram_fetch(machine: Machine, _caller: VcpuThread, words: tuple[int, ...]) -> tuple[RtasStatus, Answer]:
    offset, buffer, length = words[:3]
    data = machine.nvram.read(offset, length)
    try:
        machine.memory.write(buffer, data)
    except AddressError:
        return RtasStatus.PARAMETER, ()
    return RtasStatus.SUCCESS, (len(data),)


@service("nvram-store", 0x200F, arguments=3, returns=2)
def _nvram_store(machine: Machine, _caller: VcpuThread, words: tuple[int, ...]) -> tuple[RtasStatus, Answer]:
    offset, buffer, length = words[:3]
    try:
        data = machine.memory.read(buffer, length)
    except AddressError:
        return RtasStatus.PARAMETER, ()
    return RtasStatus.SUCCESS, (machine.nvram.write(offset, data),)


@service("event-scan", 0x2010, arguments=4, returns=1)
def _event_scan(machine: Machine, _caller: VcpuThread, _words: tuple[int, ...]) -> tuple[int, Answer]:
    return _NO_EVENT, ()


@service("check-exception", 0x2011, arguments=6, returns=1)
def _check_exception(machine: Machine, _caller: VcpuThread, words: tuple[int, ...]) -> tuple[int, Answer]:
    mask, buffer, length = words[2], words[4], words[5]
    event = machine.power_button.event(machine.wall_clock.now()) if mask & EPOW_MASK else None
    if event is None:
        return _NO_EVENT, ()
    try:
        machine.memory.write(buffer, event[:length])
    except AddressError:
        return RtasStatus.PARAMETER, ()
    return RtasStatus.SUCCESS, ()


@service("ibm,get-system-parameter", 0x2012, arguments=3, returns=1)
def _get_system_parameter(
    machine: Machine, _caller: VcpuThread, words: tuple[int, ...]
) -> tuple[RtasStatus, Answer]:
    parameter, buffer, size = words[:3]
    if parameter == _SPLPAR_CHARACTERISTICS:
        megabytes = machine.memory.size >> 20
        data = f"MaxEntCap={machine.vcpus},DesMem={megabytes},DesProcs={machine.vcpus}".encode() + b"\0"
    elif parameter == _DIAGNOSTICS_RUN_MODE:
        data = b"\0"
    else:
        return RtasStatus.PARAMETER, ()
    answer = len(data).to_bytes(2, "big") + data
    try:
        machine.memory.write(buffer, answer[:size])
    except AddressError:
        return RtasStatus.PARAMETER, ()
    return RtasStatus.SUCCESS, ()
