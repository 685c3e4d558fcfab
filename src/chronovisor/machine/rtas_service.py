"""How a service of RTAS is declared."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from chronovisor.machine.services import Machine
from chronovisor.machine.vcpu_thread import VcpuThread


class RtasStatus(IntEnum):
    """A service's status (LoPAR table "RTAS Status Word Values")."""

    SUCCESS = 0
    HARDWARE = -1
    BUSY = -2
    PARAMETER = -3


Answer = tuple[int, ...]
"""The return values after the status; fewer than the guest asks for are filled up with 0."""
Service = Callable[[Machine, VcpuThread, tuple[int, ...]], tuple[int, Answer]]
"""Answers a call with a status (`RtasStatus`, or one of the service's own) and return values."""


class Entry(NamedTuple):
    """A service."""

    name: str
    arguments: int
    returns: int
    call: Service


SERVICES: dict[int, Entry] = {}
"""All services by their tokens."""


def service(name: str, token: int, arguments: int, returns: int) -> Callable[[Service], Service]:
    """Declare a service. Its token is part of what a guest remembers, so it never changes."""

    def declare(call: Service) -> Service:
        SERVICES[token] = Entry(name, arguments, returns, call)
        return call

    return declare
