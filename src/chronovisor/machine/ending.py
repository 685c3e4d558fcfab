"""How a guest's run ends."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class EndReason(Enum):
    """Why a guest's run is over."""

    POWER_OFF = "power off"
    REBOOT = "reboot"
    """The guest asked for a reboot, and this machine does not start it again."""
    RESET = "reset"
    """Its owner asked for a reset, and this machine does not start it again."""
    PANIC = "panic"
    """The guest's system said that it cannot go on (`ibm,os-term`)."""
    CRASH = "crash"
    MOVED = "moved"
    TIMED_OUT = "timed out"
    STOPPED = "stopped"
    QUIT = "quit"
    """Its owner ended the run as intended, by the monitor."""
    OUTPUT_LOST = "output lost"
    INTERNAL_ERROR = "internal error"


@dataclass(frozen=True, slots=True)
class GuestEnd:
    """How a guest's run ended."""

    reason: EndReason
    message: str
    """One line for people."""
    details: str = ""
    """For an internal error: where in Chronovisor it came from."""

    @property
    def ok(self) -> bool:
        """Whether the guest ended as intended, or goes on elsewhere."""
        return self.reason in {EndReason.POWER_OFF, EndReason.REBOOT, EndReason.RESET, EndReason.MOVED}
