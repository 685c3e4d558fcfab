"""Letting a guest run until something is so, and pausing it then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from chronovisor.kvm.interface import System
from chronovisor.machine.console import Console
from chronovisor.machine.ending import GuestEnd
from chronovisor.machine.vcpu_thread import VcpuThreads
from chronovisor.timebase.types import SourceTime, Ticks

_BETWEEN_LOOKS = 0.5
"""Seconds between two looks whether an alarm has fired: an alarm takes no lock and so does not notify."""


class Runnable(Protocol):
    """A guest, as far as this needs it."""

    system: System
    console: Console
    end: GuestEnd | None

    def resume(self) -> None:
        """Let it go on."""

    def pause(self) -> None:
        """Stop all vCPUs."""


def run_until(guest: Runnable, threads: VcpuThreads, holds: Callable[[], bool], within: Ticks | None) -> bool:
    """Let the guest run until `holds`, which is looked at after each output, and pause it.

    False if that did not happen before the guest's end, or `within` so many ticks of its host's clock.
    """
    found = due = False

    def look() -> None:
        nonlocal found
        if not found and holds():
            found = True
            threads.ask_to_stop()

    def stop() -> None:
        nonlocal due
        due = True
        threads.ask_to_stop()

    look()
    if found:
        return True
    source = guest.system.clock.source
    # Set before the guest runs: in virtual time it could otherwise run past the moment.
    alarm = None if within is None else source.call_at(SourceTime(source.ticks() + within.value), stop)
    unwatch = guest.console.watch(look)
    try:
        guest.resume()
        # A guest that ran already may have printed it before the watch began.
        look()
        wait_and_pause(guest, threads, lambda: guest.end is not None or found or due)
    finally:
        unwatch()
        if alarm is not None:
            alarm.cancel()
    return found


def wait_and_pause(
    guest: Runnable, threads: VcpuThreads, done: Callable[[], bool], deadline: float | None = None
) -> None:
    """Wait until it is done or the deadline (of `time.monotonic`) has come, and leave the guest paused."""
    changed = threads.changed
    try:
        with changed:
            while not done():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    break
                # A vCPU that leaves the guest notifies.
                changed.wait(_BETWEEN_LOOKS if left is None else min(left, _BETWEEN_LOOKS))
    finally:
        guest.pause()
