"""The XICS interrupt controller as PAPR has it: presenters, one a vCPU, and sources (LoPAR chapter 6).

A presenter shows its vCPU at most one interrupt at a time, if that is more favored (has a lower number) than
the processor's current priority, CPPR. Software accepts the interrupt by H_XIRR, which raises the priority to
the interrupt's own, and ends it by H_EOI, which restores the priority. An inter-processor interrupt is number
2 and is requested by MFRR, the most favored request register.

Everything here happens under the host's monitor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

IPI: Final = 2
"""The number of an inter-processor interrupt."""
LEAST_FAVORED: Final = 0xFF
"""The priority that no interrupt has: as CPPR it lets everything in, as a source's it masks the source."""


class Line(Protocol):
    """The external interrupt of a vCPU."""

    def set_external(self, level: bool) -> None:
        """Raise or lower it."""


@dataclass(slots=True)
class Source:
    """An interrupt source."""

    server: int
    priority: int = LEAST_FAVORED
    level_sensitive: bool = False
    asserted: bool = False
    """A level-sensitive source's line."""
    pending: bool = False
    """It waits to be presented: it was masked, or rejected in favor of another interrupt."""
    presented: bool = False
    """It was presented, and the guest has not ended it."""
    masked: bool = False
    """Its interrupts are kept back; it keeps its priority meanwhile."""


class Presenter:
    """What a vCPU sees of the controller (an ICP). Numbers are unsigned."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.cppr = 0
        self.mfrr = LEAST_FAVORED
        self.xisr = 0
        """The number of the interrupt that is shown; 0 if none is."""
        self.pending_priority = LEAST_FAVORED
        """The priority of the interrupt that is shown."""

    def lets_in(self, priority: int) -> bool:
        """Return whether an interrupt of this priority would be shown now."""
        return priority < self.cppr and (not self.xisr or priority < self.pending_priority)

    def show(self, number: int, priority: int) -> None:
        """Show an interrupt."""
        self.xisr, self.pending_priority = number, priority
        self._line.set_external(True)

    def hide(self) -> int:
        """Show no interrupt any more; return the number of the one that was shown."""
        number, self.xisr, self.pending_priority = self.xisr, 0, LEAST_FAVORED
        self._line.set_external(False)
        return number


class Xics:
    """The interrupt controller of a machine."""

    def __init__(self) -> None:
        self.presenters: dict[int, Presenter] = {}
        """By the number of the server, which the guest knows from its device tree."""
        self._sources: dict[int, Source] = {}

    @property
    def sources(self) -> Mapping[int, Source]:
        """Its sources by number."""
        return self._sources

    def connect(self, server: int, line: Line) -> None:
        """Give a vCPU a presenter; ValueError if the server has one."""
        if server in self.presenters:
            raise ValueError(f"the server {server} has a presenter already")
        self.presenters[server] = Presenter(line)

    # What hypercalls do

    def set_priority(self, presenter: Presenter, cppr: int) -> None:
        """H_CPPR: set the processor's priority. An interrupt that is no longer more favored is taken back."""
        before, presenter.cppr = presenter.cppr, cppr
        if cppr < before and presenter.xisr and cppr <= presenter.pending_priority:
            self._reject(presenter.hide())
        self._present_waiting(presenter)

    def accept(self, presenter: Presenter) -> int:
        """H_XIRR: accept the interrupt that is shown; return the priority before and its number, 32 bits."""
        xirr = (presenter.cppr << 24) | presenter.xisr
        if presenter.xisr:
            presenter.cppr = presenter.pending_priority
            presenter.hide()
        return xirr

    def end(self, presenter: Presenter, xirr: int) -> None:
        """H_EOI: end an interrupt and set the priority, as `accept` had given them."""
        number = xirr & 0xFF_FFFF
        source = self._sources.get(number)
        if source is not None:
            source.presented = False
            source.pending = source.pending or source.asserted
        self.set_priority(presenter, (xirr >> 24) & 0xFF)
        if source is not None:
            # Its presenter may be another one by now.
            self._trigger(number)

    def request(self, presenter: Presenter, mfrr: int) -> None:
        """H_IPI: request an inter-processor interrupt of a priority; 0xFF requests none.

        An interrupt that is shown already stays.
        """
        presenter.mfrr = mfrr
        self._present_waiting(presenter)

    def state(self, server: int) -> int:
        """A presenter's state in 64 bits, as KVM_REG_PPC_ICP_STATE has it."""
        p = self.presenters[server]
        return (p.cppr << 56) | (p.xisr << 32) | (p.mfrr << 24) | (p.pending_priority << 16)

    def set_state(self, server: int, state: int) -> None:
        """Set a presenter's state.

        An interrupt of a source that it shows is presented anew, by the source's state.
        """
        p = self.presenters[server]
        p.hide()
        p.cppr, p.mfrr = state >> 56, (state >> 24) & 0xFF
        number, priority = (state >> 32) & 0xFF_FFFF, (state >> 16) & 0xFF
        if number == IPI:
            p.show(IPI, priority)
        elif number in self._sources:
            self._reject(number)
        self._present_waiting(p)

    # What sources do

    def set_source(self, number: int, source: Source) -> None:
        """Make a source, or give one another state."""
        self._sources[number] = source
        self._trigger(number)

    def set_line(self, number: int, level: bool) -> None:
        """Raise or lower a source's line; KeyError if there is no such source.

        A source that is not level-sensitive sends one interrupt each time its line is raised.
        """
        source = self._sources[number]
        source.asserted = level and source.level_sensitive
        if level:
            source.pending = True
        elif source.level_sensitive:
            source.pending = False
        self._trigger(number)

    def _trigger(self, number: int) -> None:
        """Present a source if it waits for that and its presenter lets it in."""
        source = self._sources[number]
        presenter = self.presenters.get(source.server)
        if presenter is None or not source.pending or source.presented:
            return
        if source.masked or source.priority == LEAST_FAVORED or not presenter.lets_in(source.priority):
            return
        if presenter.xisr:
            self._reject(presenter.hide())
        source.pending, source.presented = False, True
        presenter.show(number, source.priority)

    def _reject(self, number: int) -> None:
        """Have an interrupt that was shown wait again. A request by MFRR is still there by itself."""
        source = self._sources.get(number)
        if source is not None:
            source.pending, source.presented = True, False

    def _present_waiting(self, presenter: Presenter) -> None:
        """Show the most favored interrupt that waits, if the presenter lets it in."""
        if presenter.mfrr != LEAST_FAVORED and presenter.lets_in(presenter.mfrr):
            if presenter.xisr:
                self._reject(presenter.hide())
            presenter.show(IPI, presenter.mfrr)
        waiting = sorted(
            (source.priority, number) for number, source in self._sources.items() if source.pending
        )
        for _, number in waiting:
            self._trigger(number)
