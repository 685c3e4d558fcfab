"""RTAS services of the whole machine: characters, the time of day, processors, and the ends of a run."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import IntEnum
from typing import Final

from chronovisor.machine.rtas_service import Answer, RtasStatus, service
from chronovisor.machine.services import Machine
from chronovisor.machine.vcpu_thread import VcpuThread
from chronovisor.memory import AddressError

_OS_TERM_TEXT: Final = 256
_LINUX_PANIC: Final = "OS panic: "
"""What Linux writes before the reason of its panic."""


class CpuState(IntEnum):
    """What query-cpu-stopped-state answers."""

    STOPPED = 0
    STOPPING = 1
    RUNNING = 2


@service("display-character", 0x2001, arguments=1, returns=1)
def _display_character(
    machine: Machine, _caller: VcpuThread, words: tuple[int, ...]
) -> tuple[RtasStatus, Answer]:
    machine.console.write(bytes([words[0] & 0xFF]))
    return RtasStatus.SUCCESS, ()


@service("power-off", 0x2002, arguments=2, returns=1)
def _power_off(machine: Machine, _caller: VcpuThread, _words: tuple[int, ...]) -> tuple[RtasStatus, Answer]:
    machine.power_off()
    return RtasStatus.SUCCESS, ()


@service("get-time-of-day", 0x2003, arguments=0, returns=8)
def _get_time_of_day(
    machine: Machine, _caller: VcpuThread, _words: tuple[int, ...]
) -> tuple[RtasStatus, Answer]:
    now = machine.wall_clock.now()
    fields = (now.year, now.month, now.day, now.hour, now.minute, now.second, now.microsecond * 1000)
    return RtasStatus.SUCCESS, fields


@service("set-time-of-day", 0x2004, arguments=7, returns=1)
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


@service("start-cpu", 0x2005, arguments=3, returns=1)
def _start_cpu(machine: Machine, caller: VcpuThread, words: tuple[int, ...]) -> tuple[RtasStatus, Answer]:
    number, entry, argument = words[:3]
    target = machine.processor(number)
    if target is None or entry % 4:
        return RtasStatus.PARAMETER, ()
    if not machine.start_processor(target, entry, argument, caller):
        return RtasStatus.HARDWARE, ()
    return RtasStatus.SUCCESS, ()


@service("query-cpu-stopped-state", 0x2006, arguments=1, returns=2)
def _query_cpu_stopped_state(
    machine: Machine, _caller: VcpuThread, words: tuple[int, ...]
) -> tuple[RtasStatus, Answer]:
    target = machine.processor(words[0])
    if target is None:
        return RtasStatus.PARAMETER, ()
    if target.stopped:
        return RtasStatus.SUCCESS, (CpuState.STOPPED,)
    return RtasStatus.SUCCESS, (CpuState.STOPPING if target.stopping else CpuState.RUNNING,)


@service("stop-self", 0x2007, arguments=0, returns=1)
def _stop_self(machine: Machine, caller: VcpuThread, _words: tuple[int, ...]) -> tuple[RtasStatus, Answer]:
    machine.stop_processor(caller)
    return RtasStatus.SUCCESS, ()


@service("ibm,os-term", 0x2008, arguments=1, returns=1)
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


@service("system-reboot", 0x2009, arguments=0, returns=1)
def _system_reboot(
    machine: Machine, _caller: VcpuThread, _words: tuple[int, ...]
) -> tuple[RtasStatus, Answer]:
    machine.reboot()
    return RtasStatus.SUCCESS, ()


@service("ibm,suspend-me", 0x2013, arguments=0, returns=1)
def _suspend_me(machine: Machine, caller: VcpuThread, _words: tuple[int, ...]) -> tuple[int, Answer]:
    return machine.suspend(caller), ()
