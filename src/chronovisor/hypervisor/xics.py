"""The XICS interrupt controller as PAPR has it: presenters, one a vCPU, and sources (LoPAR chapter 6).

A presenter shows its vCPU at most one interrupt at a time, if that is more favored (has a lower number) than
the processor's current priority, CPPR. Software accepts the interrupt by H_XIRR, which raises the priority to
the interrupt's own, and ends it by H_EOI, which restores the priority. An inter-processor interrupt is number
2 and is requested by MFRR, the most favored request register.

Everything here happens under the host's monitor. A vCPU's own hypercalls change its presenter without the
monitor (`hypercall_programs`). Hence a presenter is one word of those that the vCPU's thread shares with its
hypervisor, in the layout of KVM_REG_PPC_ICP_STATE: it is read, and exchanged for a new one in one step.

A source's interrupt is raised and ended without the monitor, too, if nothing else has to be done then: the
right to do so is *lent*. It is a word of a table, which says what of the source it takes to do that, and
whether the interrupt is presented. Whoever raises or ends it exchanges the word. The right is taken back, by
an exchange for 0, before the source is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from chronovisor.engine.hypercalls import LINE_WORD, Sharing

IPI: Final = 2
"""The number of an inter-processor interrupt."""
FIRST_SOURCE: Final = 16
"""The least number that a source can have: those below are the architecture's."""
LEAST_FAVORED: Final = 0xFF
"""The priority that no interrupt has: as CPPR it lets everything in, as a source's it masks the source."""

PRESENTER_WORD: Final = LINE_WORD
"""The shared word that is the presenter; 0 if the vCPU has no presenter."""
CPPR_SHIFT, XISR_SHIFT, MFRR_SHIFT, PRIORITY_SHIFT = 56, 32, 24, 16
XISR: Final = 0xFF_FFFF << XISR_SHIFT
"""The bits with the number of the interrupt that is shown; all 0 if none is. They are the vCPU's line."""
LENT: Final = 1 << 34
"""The number of the table of the sources whose interrupts may be raised and ended without the monitor."""
LENT_PLACES: Final = 256
"""Its words. A source's place is its number modulo this. One source has a place at a time."""
NUMBER: Final = 0xFF_FFFF
"""The bits of such a word that are the source's number; the word is 0 if the place is free."""
SERVER_SHIFT, SERVERS = 24, 1 << 16
"""The place of the source's server in such a word, and how many servers the word has room for."""
SOURCE_PRIORITY_SHIFT: Final = 40
PRESENTED: Final = 1 << 48
"""Set while the source's interrupt was presented and has not been ended."""
WAITING: Final = 1
"""Set if a source may wait that a less favored CPPR would let in. Not part of what KVM shows."""
SHOWN: Final = XISR | (0xFF << PRIORITY_SHIFT)
_NOTHING: Final = LEAST_FAVORED << PRIORITY_SHIFT


class Line(Protocol):
    """The vCPU of a presenter."""

    @property
    def state(self) -> Sharing:
        """Its thread, one of whose shared words is the presenter."""

    def notice(self) -> None:
        """Have it look whether an interrupt is shown: one is now."""


def _lets_in(word: int, priority: int) -> bool:
    """Return whether a presenter would show an interrupt of this priority now."""
    return priority < word >> CPPR_SHIFT and (not word & XISR or priority < word >> PRIORITY_SHIFT & 0xFF)


def _showing(word: int, number: int, priority: int) -> int:
    """Return the word of a presenter that shows an interrupt, in place of any other, which waits then."""
    waiting = WAITING if word & XISR else 0
    return word & ~SHOWN | number << XISR_SHIFT | priority << PRIORITY_SHIFT | waiting


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
    lent: bool = False
    """Its interrupt may have been raised or ended without the monitor."""


class Presenter:
    """What a vCPU sees of the controller (an ICP). Numbers are unsigned."""

    def __init__(self, line: Line) -> None:
        self.line = line
        # It is not known whether a source has waited for it.
        line.state.shared.words[PRESENTER_WORD] = LEAST_FAVORED << MFRR_SHIFT | _NOTHING | WAITING

    @property
    def word(self) -> int:
        """All of it, as it is now."""
        return self.line.state.shared.words[PRESENTER_WORD]

    @word.setter
    def word(self, word: int) -> None:
        self.line.state.shared.words[PRESENTER_WORD] = word

    def exchange(self, expected: int, new: int) -> bool:
        """Change it, if it still is as expected; whether it was."""
        return expected == new or self.line.state.shared.exchange(PRESENTER_WORD, expected, new)

    @property
    def cppr(self) -> int:
        """The processor's priority."""
        return self.word >> CPPR_SHIFT

    @property
    def mfrr(self) -> int:
        """The priority of the inter-processor interrupt that is requested; LEAST_FAVORED if none is."""
        return self.word >> MFRR_SHIFT & 0xFF

    @property
    def xisr(self) -> int:
        """The number of the interrupt that is shown; 0 if none is."""
        return (self.word & XISR) >> XISR_SHIFT

    @property
    def pending_priority(self) -> int:
        """The priority of the interrupt that is shown."""
        return self.word >> PRIORITY_SHIFT & 0xFF

    def lets_in(self, priority: int) -> bool:
        """Return whether an interrupt of this priority would be shown now."""
        return _lets_in(self.word, priority)


class Xics:
    """The interrupt controller of a machine."""

    def __init__(
        self, lent: memoryview | None = None, exchange: Callable[[int, int, int], bool] | None = None
    ) -> None:
        self.presenters: dict[int, Presenter] = {}
        """By the number of the server, which the guest knows from its device tree."""
        self._sources: dict[int, Source] = {}
        self._lent = lent
        """The words of LENT; None if nothing is lent."""
        self._exchange = exchange or (lambda place, expected, new: False)
        """Sets a word of LENT, if it still is as expected: `Engine.exchange_word`."""

    def __contains__(self, number: int) -> bool:
        return number in self._sources

    @property
    def sources(self) -> Mapping[int, Source]:
        """Its sources by number, as they are now."""
        return {number: self.source(number) for number in self._sources}

    def source(self, number: int) -> Source:
        """Return the present state of a source; KeyError if no source has that number."""
        source = self._sources[number]
        if source.lent:
            source.lent = False
            assert self._lent is not None
            place = number % LENT_PLACES
            while not self._exchange(place, word := self._lent[place], 0):
                pass
            source.presented = bool(word & PRESENTED)
        return source

    def _lend(self, number: int, source: Source) -> None:
        """Let the source's interrupt be raised and ended without the monitor, if that is all it takes."""
        lent, place = self._lent, number % LENT_PLACES
        if lent is None or source.pending or source.level_sensitive or lent[place]:
            return
        if source.masked or source.priority == LEAST_FAVORED or source.server >= SERVERS:
            return
        source.lent = True
        word = number | source.server << SERVER_SHIFT | source.priority << SOURCE_PRIORITY_SHIFT
        lent[place] = word | PRESENTED if source.presented else word

    def connect(self, server: int, line: Line) -> None:
        """Give a vCPU a presenter; ValueError if the server has one."""
        if server in self.presenters:
            raise ValueError(f"the server {server} has a presenter already")
        self.presenters[server] = Presenter(line)

    # What hypercalls do

    def set_priority(self, presenter: Presenter, cppr: int) -> None:
        """H_CPPR: set the processor's priority. An interrupt that is no longer more favored is taken back."""
        while True:
            word = presenter.word
            new = word & ~(0xFF << CPPR_SHIFT) | cppr << CPPR_SHIFT
            shown = (word & XISR) >> XISR_SHIFT
            taken_back = cppr < word >> CPPR_SHIFT and shown and cppr <= word >> PRIORITY_SHIFT & 0xFF
            if taken_back:
                new = new & ~SHOWN | _NOTHING | WAITING
            if presenter.exchange(word, new):
                break
        if taken_back:
            self._reject(shown)
        self._present_waiting(presenter)

    def accept(self, presenter: Presenter) -> int:
        """H_XIRR: accept the interrupt that is shown; return the priority before and its number, 32 bits."""
        while True:
            word = presenter.word
            new = word
            if word & XISR:
                priority = word >> PRIORITY_SHIFT & 0xFF
                new = word & ~(SHOWN | 0xFF << CPPR_SHIFT) | _NOTHING | priority << CPPR_SHIFT
            if presenter.exchange(word, new):
                return word >> CPPR_SHIFT << 24 | (word & XISR) >> XISR_SHIFT

    def end(self, presenter: Presenter, xirr: int) -> None:
        """H_EOI: end an interrupt and set the priority, as `accept` had given them."""
        number = xirr & 0xFF_FFFF
        if number in self._sources:
            source = self.source(number)
            source.presented = False
            source.pending = source.pending or source.asserted
        self.set_priority(presenter, (xirr >> 24) & 0xFF)
        if number in self._sources:
            # Its presenter may be another one by now.
            self._trigger(number)

    def request(self, presenter: Presenter, mfrr: int) -> None:
        """H_IPI: request an inter-processor interrupt of a priority; 0xFF requests none.

        An interrupt that is shown already stays.
        """
        while True:
            word = presenter.word
            new = word & ~(0xFF << MFRR_SHIFT) | mfrr << MFRR_SHIFT
            shows = mfrr != LEAST_FAVORED and _lets_in(word, mfrr)
            if presenter.exchange(word, _showing(new, IPI, mfrr) if shows else new):
                break
        if shows:
            self._reject((word & XISR) >> XISR_SHIFT)
            presenter.line.notice()

    def state(self, server: int) -> int:
        """A presenter's state in 64 bits, as KVM_REG_PPC_ICP_STATE has it."""
        return self.presenters[server].word & ~WAITING

    def set_state(self, server: int, state: int) -> None:
        """Set a presenter's state; its vCPU is outside the guest.

        An interrupt of a source that it shows is presented anew, by the source's state.
        """
        p = self.presenters[server]
        number = (state & XISR) >> XISR_SHIFT
        word = state & (0xFF << CPPR_SHIFT | 0xFF << MFRR_SHIFT) | WAITING
        shows = number == IPI
        p.word = word | (state & SHOWN if shows else _NOTHING)
        if shows:
            p.line.notice()
        elif number in self._sources:
            self._reject(number)
        self._present_waiting(p)

    # What sources do

    def set_source(self, number: int, source: Source) -> None:
        """Make a source, or give one another state."""
        if number in self._sources:
            self.source(number)
        self._sources[number] = source
        self._trigger(number)

    def set_line(self, number: int, level: bool) -> None:
        """Raise or lower a source's line; KeyError if there is no such source.

        A source that is not level-sensitive sends one interrupt each time its line is raised.
        """
        if not level and not self._sources[number].level_sensitive:
            return
        source = self.source(number)
        source.asserted = level and source.level_sensitive
        if level:
            source.pending = True
        elif source.level_sensitive:
            source.pending = False
        self._trigger(number)

    def _trigger(self, number: int) -> None:
        """Present a source if it waits for that and its presenter lets it in."""
        source = self.source(number)
        shown_by = self._present(number, source)
        self._lend(number, source)
        if shown_by is not None:
            # Last: the vCPU may end the interrupt before another instruction of Python's is executed.
            shown_by.line.notice()

    def _present(self, number: int, source: Source) -> Presenter | None:
        """Have the source's presenter show its interrupt, if it waits and is let in; return who shows it."""
        presenter = self.presenters.get(source.server)
        if presenter is None or not source.pending or source.presented:
            return None
        priority = source.priority
        if source.masked or priority == LEAST_FAVORED:
            return None
        while True:
            word = presenter.word
            lets_in = _lets_in(word, priority)
            # A source that is kept out is found by whoever makes the priority less favored.
            if presenter.exchange(word, _showing(word, number, priority) if lets_in else word | WAITING):
                break
        if not lets_in:
            return None
        source.pending, source.presented = False, True
        if word & XISR:
            self._reject((word & XISR) >> XISR_SHIFT)
        return presenter

    def _reject(self, number: int) -> None:
        """Have an interrupt that was shown wait again. A request by MFRR is still there by itself."""
        if number in self._sources:
            source = self.source(number)
            source.pending, source.presented = True, False

    def _present_waiting(self, presenter: Presenter) -> None:
        """Show the most favored interrupt that waits, if the presenter lets it in."""
        while True:
            word = presenter.word
            mfrr = word >> MFRR_SHIFT & 0xFF
            requested = mfrr != LEAST_FAVORED and _lets_in(word, mfrr)
            new = _showing(word, IPI, mfrr) if requested else word
            if presenter.exchange(word, new & ~WAITING):
                break
        if requested:
            if word & XISR:
                self._reject((word & XISR) >> XISR_SHIFT)
            presenter.line.notice()
        if new & WAITING:
            waiting = sorted(
                (source.priority, number) for number, source in self._sources.items() if source.pending
            )
            for _, number in waiting:
                self._trigger(number)
