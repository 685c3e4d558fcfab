"""Run-time abstraction services (LoPAR 1.1, chapter 7), called through H_RTAS.

The guest's argument block is made of big-endian 32-bit words: token, number of arguments, number of return
values, the arguments, the return values. The first return value is the status.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final, NamedTuple

from chronovisor.machine.services import Machine
from chronovisor.machine.vcpu_thread import VcpuThread
from chronovisor.memory import AddressError
from chronovisor.papr.hcalls import Status

MAXIMUM_WORDS: Final = 16
"""Arguments and return values together; no service here has more."""
_OS_TERM_TEXT: Final = 256
_LINUX_PANIC: Final = "OS panic: "
"""What Linux writes before the reason of its panic."""
ENTRY_CODE: Final = bytes.fromhex("7c641b78 38600000 6063f000 44000022 4e800020")
"""What guests call for a service. It moves the argument block's address from r3 to r4 and makes H_RTAS.

The code is big-endian because RTAS is entered in that mode.
"""


class RtasStatus(IntEnum):
    """A service's status (LoPAR table "RTAS Status Word Values")."""

    SUCCESS = 0
    HARDWARE = -1
    BUSY = -2
    PARAMETER = -3


class CpuState(IntEnum):
    """What query-cpu-stopped-state answers."""

    STOPPED = 0
    STOPPING = 1
    RUNNING = 2


Answer = tuple[int, ...]
"""The return values after the status; fewer than the guest asks for are filled up with 0."""
Service = Callable[[Machine, VcpuThread, tuple[int, ...]], tuple[RtasStatus, Answer]]


class _Entry(NamedTuple):
    name: str
    arguments: int
    returns: int
    call: Service


_SERVICES: dict[int, _Entry] = {}


def _service(name: str, token: int, arguments: int, returns: int) -> Callable[[Service], Service]:
    """Declare a service. Its token is part of what a guest remembers, so it never changes."""

    def declare(call: Service) -> Service:
        _SERVICES[token] = _Entry(name, arguments, returns, call)
        return call

    return declare


def tokens() -> Mapping[str, int]:
    """Every service's name and token, for the device tree."""
    return {entry.name: token for token, entry in sorted(_SERVICES.items())}


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
    service = _SERVICES.get(token)
    if service is None or arguments < service.arguments or returns < 1:
        if returns:
            machine.memory.store(results, 4, RtasStatus.PARAMETER, False)
        return Status.PARAMETER
    status, answer = service.call(machine, caller, words)
    values = (int(status), *answer, *[0] * returns)[:returns]
    for n, value in enumerate(values):
        machine.memory.store(results + 4 * n, 4, value, False)
    return Status.SUCCESS


@_service("display-character", 0x2001, arguments=1, returns=1)
def _display_character(
    machine: Machine, _caller: VcpuThread, words: tuple[int, ...]
) -> tuple[RtasStatus, Answer]:
    machine.console.write(bytes([words[0] & 0xFF]))
    return RtasStatus.SUCCESS, ()


@_service("power-off", 0x2002, arguments=2, returns=1)
def _power_off(machine: Machine, _caller: VcpuThread, _words: tuple[int, ...]) -> tuple[RtasStatus, Answer]:
    machine.power_off()
    return RtasStatus.SUCCESS, ()


@_service("get-time-of-day", 0x2003, arguments=0, returns=8)
def _get_time_of_day(
    machine: Machine, _caller: VcpuThread, _words: tuple[int, ...]
) -> tuple[RtasStatus, Answer]:
    now = machine.wall_clock.now()
    fields = (now.year, now.month, now.day, now.hour, now.minute, now.second, now.microsecond * 1000)
    return RtasStatus.SUCCESS, fields


@_service("set-time-of-day", 0x2004, arguments=7, returns=1)
def _set_time_of_day(
    machine: Machine, _caller: VcpuThread, words: tuple[int, ...]
) -> tuple[RtasStatus, Answer]:
    year, month, day, hour, minute, second, nanosecond = words[:7]
    try:
        machine.wall_clock.set(
            datetime(year, month, day, hour, minute, second, nanosecond // 1000, tzinfo=UTC)
        )
    except (ValueError, OverflowError):
        return RtasStatus.PARAMETER, ()
    return RtasStatus.SUCCESS, ()


@_service("start-cpu", 0x2005, arguments=3, returns=1)
def _start_cpu(machine: Machine, caller: VcpuThread, words: tuple[int, ...]) -> tuple[RtasStatus, Answer]:
    number, entry, argument = words[:3]
    target = machine.processor(number)
    if target is None or entry % 4:
        return RtasStatus.PARAMETER, ()
    if not machine.start_processor(target, entry, argument, caller):
        return RtasStatus.HARDWARE, ()
    return RtasStatus.SUCCESS, ()


@_service("query-cpu-stopped-state", 0x2006, arguments=1, returns=2)
def _query_cpu_stopped_state(
    machine: Machine, _caller: VcpuThread, words: tuple[int, ...]
) -> tuple[RtasStatus, Answer]:
    target = machine.processor(words[0])
    if target is None:
        return RtasStatus.PARAMETER, ()
    if target.stopped:
        return RtasStatus.SUCCESS, (CpuState.STOPPED,)
    return RtasStatus.SUCCESS, (CpuState.STOPPING if target.stopping else CpuState.RUNNING,)


@_service("stop-self", 0x2007, arguments=0, returns=1)
def _stop_self(machine: Machine, caller: VcpuThread, _words: tuple[int, ...]) -> tuple[RtasStatus, Answer]:
    machine.stop_processor(caller)
    return RtasStatus.SUCCESS, ()


@_service("ibm,os-term", 0x2008, arguments=1, returns=1)
def _os_term(machine: Machine, _caller: VcpuThread, words: tuple[int, ...]) -> tuple[RtasStatus, Answer]:
    start = words[0]
    try:
        text = machine.memory.read(start, min(_OS_TERM_TEXT, machine.memory.size - start))
    except AddressError:
        text = b""
    said = "".join(c if c.isprintable() else "?" for c in text.split(b"\0")[0].decode(errors="replace"))
    said = said.removeprefix(_LINUX_PANIC)
    machine.panic(f"the guest panicked: {said}" if said else "the guest panicked")
    return RtasStatus.SUCCESS, ()


@_service("system-reboot", 0x2009, arguments=0, returns=1)
def _system_reboot(
    machine: Machine, _caller: VcpuThread, _words: tuple[int, ...]
) -> tuple[RtasStatus, Answer]:
    machine.reboot()
    return RtasStatus.SUCCESS, ()
