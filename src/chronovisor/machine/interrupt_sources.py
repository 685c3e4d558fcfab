"""The interrupt sources of a guest's devices, as RTAS and the devices use them (LoPAR, "Interrupt Source
Controller").

The interrupt controller itself stands in the kernel's half. Its sources are reached as attributes of KVM's
device, by their numbers, which the guest knows from its device tree.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final, NamedTuple

from chronovisor.kvm.ids import XicsGroup, XicsSource
from chronovisor.kvm.interface import Device, Vm

POWER_WARNING: Final = 0x1000
"""The source that says that the guest is to shut down."""
CONSOLE: Final = 0x1100
"""The source of the console."""
LEAST_FAVORED: Final = 0xFF
"""The priority of a source that sends no interrupt."""
_AT_START: Final = XicsSource.MASKED | (LEAST_FAVORED << XicsSource.PRIORITY_SHIFT)
_SERVER: Final = 0xFFFF_FFFF


class SourceState(NamedTuple):
    """A source and its state."""

    number: int
    state: int
    """As KVM has it (`XicsSource`)."""


class InterruptSources:
    """The sources of one guest; without an interrupt controller it has none."""

    def __init__(self, vm: Vm, controller: Device | None) -> None:
        self._vm = vm
        self._controller = controller
        self._numbers = [POWER_WARNING, CONSOLE]
        # A source is changed by reading and writing its state.
        self._changing = threading.Lock()
        self.reset()

    def __contains__(self, number: int) -> bool:
        return self._controller is not None and number in self._numbers

    def add(self, number: int) -> None:
        """Have another source, masked."""
        self._numbers.append(number)
        self.states = [SourceState(number, _AT_START)]

    def reset(self) -> None:
        """Give every source the state that it has when the machine is switched on: masked."""
        self.states = [SourceState(number, _AT_START) for number in self._numbers]

    @property
    def states(self) -> Sequence[SourceState]:
        """All sources; take them while the guest is paused."""
        if self._controller is None:
            return ()
        return tuple(SourceState(n, self._controller.get_attr(XicsGroup.SOURCES, n)) for n in self._numbers)

    @states.setter
    def states(self, states: Sequence[SourceState]) -> None:
        if self._controller is not None:
            for number, state in states:
                self._controller.set_attr(XicsGroup.SOURCES, number, state)

    def target(self, number: int) -> tuple[int, int]:
        """Return the server that gets the source's interrupts, and their priority.

        KeyError if there is no such source.
        """
        state = self._get(number)
        priority = state >> XicsSource.PRIORITY_SHIFT & 0xFF
        return state & _SERVER, LEAST_FAVORED if state & XicsSource.MASKED else priority

    def direct(self, number: int, server: int, priority: int) -> None:
        """Choose the server of the source's interrupts, and their priority; the least favored masks it."""
        masked = XicsSource.MASKED if priority == LEAST_FAVORED else 0
        target = server | priority << XicsSource.PRIORITY_SHIFT
        self._change(number, _SERVER | 0xFF << XicsSource.PRIORITY_SHIFT | XicsSource.MASKED, target | masked)

    def mask(self, number: int, masked: bool) -> None:
        """Keep the source's interrupts back, or let them through with their priority."""
        self._change(number, XicsSource.MASKED, XicsSource.MASKED if masked else 0)

    def pulse(self, number: int) -> None:
        """Send an interrupt of the source. From any thread; nothing without an interrupt controller."""
        if number in self:
            with self._changing:
                self._vm.irq_line(number, True)
                self._vm.irq_line(number, False)

    def _get(self, number: int) -> int:
        if self._controller is None or number not in self._numbers:
            raise KeyError(number)
        return self._controller.get_attr(XicsGroup.SOURCES, number)

    def _change(self, number: int, fields: int, value: int) -> None:
        with self._changing:
            state = self._get(number)
            assert self._controller is not None
            if state & XicsSource.PRESENTED:
                # The guest may end the interrupt at this moment. One interrupt too many does no harm; a
                # source that waits for an end that has been is lost.
                state = (state & ~XicsSource.PRESENTED) | XicsSource.PENDING
            self._controller.set_attr(XicsGroup.SOURCES, number, (state & ~fields) | value)
