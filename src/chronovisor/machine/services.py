"""What hypercalls and RTAS services may do to the machine that they are called on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from chronovisor.machine.console import Console
from chronovisor.machine.guest_log import GuestLog
from chronovisor.machine.interrupt_sources import InterruptSources
from chronovisor.machine.nvram import Nvram
from chronovisor.machine.power_button import PowerButton
from chronovisor.machine.suspension import VasiState
from chronovisor.machine.vcpu_thread import VcpuTask, VcpuThread
from chronovisor.machine.vio.bus import VioBus
from chronovisor.machine.wall_clock import WallClock
from chronovisor.memory import GuestMemory


@dataclass(frozen=True, slots=True)
class Translation:
    """How a guest translates addresses: what KVM_PPC_CONFIGURE_V3_MMU was told; all 0 if nothing yet."""

    flags: int = 0
    """Of `MmuV3Flag`."""
    process_table: int = 0
    """The second doubleword of the guest's partition table entry."""


NO_TRANSLATION: Final = Translation()

LPCR_ILE: Final = 1 << 25
"""Interrupts are taken in little-endian mode (Power ISA 3.0B, book III, LPCR)."""
LPCR_AIL: Final = 3 << 23
"""Where interrupts are taken while translation is on (the same)."""


class SuspendStatus(IntEnum):
    """The statuses of `ibm,suspend-me`."""

    SUCCESS = 0
    NOT_SUSPENDABLE = -9004
    """Nobody asked the guest to suspend itself."""
    THREADS_ACTIVE = -9005
    """Another processor has not made H_JOIN."""


class Machine(Protocol):
    """A guest's machine, as its own calls see it."""

    memory: GuestMemory
    console: Console
    wall_clock: WallClock
    random: random.Random
    interrupts: InterruptSources
    nvram: Nvram
    power_button: PowerButton
    vio: VioBus
    console_signals: bool
    """Whether typed input interrupts the guest."""
    log: GuestLog | None
    """Told of calls that are answered with an error; None if nobody asked for that."""

    def translate(self, translation: Translation) -> None:
        """Have the guest translate addresses from now on; KvmError if the host cannot."""

    def power_off(self) -> None:
        """End the guest as it wishes."""

    def vasi_state(self, stream: int) -> VasiState | None:
        """The state of a move's stream; None if it is none of the guest's."""

    def join(self, caller: VcpuThread) -> bool:
        """Have the calling vCPU wait for `prod`; False if it is the last one that runs."""

    def prod(self, target: VcpuThread) -> None:
        """Wake a vCPU that waits in `join` or in H_CEDE."""

    def suspend(self, caller: VcpuThread) -> SuspendStatus:
        """Stop the guest where it is, inside its call, for the move that asked for that."""

    def reboot(self) -> None:
        """Start the guest again from its beginning, or end its run if that cannot be done here."""

    def panic(self, message: str) -> None:
        """End the guest because its system said that it cannot go on."""

    @property
    def vcpus(self) -> int:
        """How many vCPUs it has."""

    def processor(self, number: int) -> VcpuThread | None:
        """The vCPU of that id, or None."""

    def start_processor(self, target: VcpuThread, entry: int, argument: int, caller: VcpuThread) -> bool:
        """Start a stopped vCPU at real address `entry` with r3 = `argument`; False if it is not stopped."""

    def stop_processor(self, caller: VcpuThread) -> None:
        """Stop the calling vCPU once its call is done."""

    def on_each_vcpu(self, caller: VcpuThread, task: VcpuTask) -> None:
        """Have `task` done to every vCPU before the caller's guest, or that vCPU's, goes on."""
