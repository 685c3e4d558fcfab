"""A log of calls that a guest makes in vain, by the words of QEMU's `-d`."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from chronovisor.kvm.exits import HcallExit
from chronovisor.machine.errors import MachineError
from chronovisor.papr.hcalls import Hcall, Status


class LogItem(StrEnum):
    """What can be logged."""

    UNIMP = "unimp"
    GUEST_ERRORS = "guest_errors"


MEANINGS: Final = {
    LogItem.UNIMP: "hypercalls and RTAS services that are not there",
    LogItem.GUEST_ERRORS: "hypercalls and RTAS services whose arguments are wrong",
}
"""For people."""


def parse_items(text: str) -> frozenset[LogItem]:
    """Return the items of a list with commas; MachineError if one is unknown."""
    items = [item for item in text.split(",") if item]
    for item in items:
        if item not in MEANINGS:
            raise MachineError(f"log item {item!r}: there are {', '.join(MEANINGS)}")
    return frozenset(map(LogItem, items))


class GuestLog:
    """Writes a line for each such call, on the thread of the vCPU that makes it."""

    def __init__(self, items: frozenset[LogItem], write: Callable[[bytes], object]) -> None:
        self._items = items
        self._write = write

    def refused_hypercall(self, vcpu: int, call: HcallExit) -> None:
        """Take a hypercall that was answered with an error."""
        if call.ret == Status.FUNCTION:
            self._log(LogItem.UNIMP, vcpu, f"unimplemented hypercall {call.nr:#x}")
        else:
            arguments = ", ".join(f"{argument:#x}" for argument in call.args)
            line = f"H_{Hcall(call.nr).name}({arguments}): H_{Status(call.ret).name}"
            self._log(LogItem.GUEST_ERRORS, vcpu, line)

    def unknown_service(self, vcpu: int, token: int) -> None:
        """Take a call of an RTAS service that is not there."""
        self._log(LogItem.UNIMP, vcpu, f"unknown RTAS token {token:#x}")

    def refused_service(self, vcpu: int, name: str, words: tuple[int, ...]) -> None:
        """Take a call of an RTAS service whose arguments are wrong."""
        arguments = ", ".join(f"{word:#x}" for word in words)
        self._log(LogItem.GUEST_ERRORS, vcpu, f"RTAS {name}({arguments}): parameter error")

    def _log(self, item: LogItem, vcpu: int, line: str) -> None:
        if item in self._items:
            self._write(f"vCPU {vcpu}: {line}\n".encode())
