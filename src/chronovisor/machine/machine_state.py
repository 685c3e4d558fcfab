"""What a guest consists of besides its memory and its vCPUs' registers: what user space keeps of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chronovisor.machine.interrupt_sources import SourceState
from chronovisor.machine.platform import Platform
from chronovisor.machine.services import NO_TRANSLATION, Translation
from chronovisor.machine.vcpu_thread import VcpuThread
from chronovisor.machine.vio.attachments import DeviceState
from chronovisor.machine.wall_clock import TimeOfDay
from chronovisor.timebase.history import History


@dataclass(frozen=True, slots=True)
class MachineState:
    """A guest's state outside its memory and its vCPUs' registers: what else a move has to carry."""

    stopped: tuple[bool, ...]
    """Which vCPUs are stopped, as RTAS counts it."""
    time_of_day: TimeOfDay
    random_state: tuple[Any, ...]
    """Python's random generator, if H_RANDOM is answered here."""
    history: History
    """What happened to the guest's time until now."""
    translation: Translation = NO_TRANSLATION
    sources: tuple[SourceState, ...] = ()
    console_signals: bool = True
    nvram: bytes = b""
    joined: tuple[bool, ...] = ()
    """Which vCPUs wait in H_JOIN; empty for none."""
    devices: tuple[DeviceState, ...] = ()
    """Its virtual devices; they have no request under way."""


def take_state(
    platform: Platform, threads: Sequence[VcpuThread], history: History, time_of_day: TimeOfDay
) -> MachineState:
    """Return the state of a paused guest."""
    repeats = not isinstance(platform.random, random.SystemRandom)
    return MachineState(
        tuple(thread.stopped for thread in threads),
        time_of_day,
        platform.random.getstate() if repeats else (),
        history,
        platform.translation,
        tuple(platform.interrupts.states),
        platform.console_signals,
        platform.nvram.contents,
        platform.joined if any(platform.joined) else (),
        platform.vio.save(),
    )


def put_state(state: MachineState, platform: Platform, threads: Sequence[VcpuThread]) -> None:
    """Give a guest this state, but for its history and its time of day."""
    for thread, stopped in zip(threads, state.stopped, strict=True):
        thread.stopped = stopped
    if state.random_state and not isinstance(platform.random, random.SystemRandom):
        platform.random.setstate(state.random_state)
    if state.translation != NO_TRANSLATION:
        platform.translate(state.translation)
    platform.interrupts.states = state.sources
    platform.power_button.follow_interrupts()
    platform.console_signals = state.console_signals
    if state.joined:
        platform.joined = state.joined
    if state.nvram:
        platform.nvram.contents = state.nvram
    platform.vio.load(state.devices)
