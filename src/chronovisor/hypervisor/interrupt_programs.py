"""Programs of the interrupt controller's hypercalls (`hypercall_programs` has the rules that they keep)."""

from __future__ import annotations

from functools import cached_property

from chronovisor.hypervisor.hypercall_declarations import answers, decline_if, end
from chronovisor.hypervisor.xics import (
    CPPR_SHIFT,
    FIRST_SOURCE,
    LEAST_FAVORED,
    LENT,
    LENT_PLACES,
    MFRR_SHIFT,
    NUMBER,
    PRESENTED,
    PRESENTER_WORD,
    PRIORITY_SHIFT,
    SERVER_SHIFT,
    SERVERS,
    SHOWN,
    SOURCE_PRIORITY_SHIFT,
    WAITING,
    XISR,
    XISR_SHIFT,
)
from chronovisor.isa.hypercall_notation import HypercallMachine
from chronovisor.isa.values import Value
from chronovisor.papr.hcalls import Hcall


class Presenter:
    """The calling vCPU's presenter, as a program has read it; declines if the vCPU has no presenter."""

    def __init__(self, m: HypercallMachine) -> None:
        self._m = m
        self.word = m.shared(PRESENTER_WORD)
        decline_if(m, self.word.eq(0))
        self.cppr = self._part(CPPR_SHIFT)
        self.mfrr = self._part(MFRR_SHIFT)
        self.pending_priority = self._part(PRIORITY_SHIFT)
        self.xisr = (self.word >> XISR_SHIFT) & (XISR >> XISR_SHIFT)
        self.shows = self.xisr.ne(0)

    def _part(self, shift: int) -> Value:
        return (self.word >> shift) & 0xFF

    @property
    def xirr(self) -> Value:
        """The priority and the number of the interrupt that is shown, as H_XIRR returns them."""
        return (self.cppr << 24) | self.xisr

    def set_priority(self, cppr: Value) -> None:
        """Set the processor's priority, unless that takes an interrupt back or lets one in."""
        taken_back = cppr.ult(self.cppr) & self.shows & ~self.pending_priority.ult(cppr)
        requested = self.mfrr.ult(cppr) & (~self.shows | self.mfrr.ult(self.pending_priority))
        let_in = self.cppr.ult(cppr) & (self.word & WAITING).ne(0)
        decline_if(self._m, taken_back | (requested & self.mfrr.ne(LEAST_FAVORED)) | let_in)
        self.become((self.word & ~(0xFF << CPPR_SHIFT)) | (cppr << CPPR_SHIFT))

    def become(self, new: Value) -> None:
        """Change the word, unless somebody else did first."""
        decline_if(self._m, ~self._m.exchange_shared(PRESENTER_WORD, self.word, new))


class Source:
    """A source of the interrupt controller, as far as it is lent to the calling vCPU."""

    def __init__(self, m: HypercallMachine, number: Value) -> None:
        self._m = m
        self._number = number
        self._lent, self._place = m.value(LENT), number & (LENT_PLACES - 1)
        self.word = m.word(self._lent, self._place)
        self.is_lent = (self.word & NUMBER).eq(number)
        self.is_presented = (self.word & PRESENTED).ne(0)

    def _become(self, new: Value) -> Value:
        return self._m.exchange_word(self._lent, self._place, self.word, new)

    def end(self) -> Value:
        """End its interrupt; 1 bit: it is still lent."""
        return self._become(self.word & ~PRESENTED)

    @cached_property
    def presenter(self) -> Presenter:
        """The caller's presenter; declines if the vCPU has no presenter."""
        return Presenter(self._m)

    @cached_property
    def _priority(self) -> Value:
        return (self.word >> SOURCE_PRIORITY_SHIFT) & 0xFF

    @property
    def can_interrupt(self) -> Value:
        """1 bit: its interrupt is the caller's, and would be shown at once."""
        own = ((self.word >> SERVER_SHIFT) & (SERVERS - 1)).eq(self._m["PIR"].zext(64))
        free = ~self.is_presented & ~self.presenter.shows
        return self.is_lent & own & free & self._priority.ult(self.presenter.cppr)

    def show(self) -> Value:
        """Show its interrupt, if it `can_interrupt`; then it has to `present` it. 1 bit: it is shown."""
        word = self.presenter.word & ~SHOWN
        word = word | (self._number << XISR_SHIFT) | (self._priority << PRIORITY_SHIFT)
        return self._m.exchange_shared(PRESENTER_WORD, self.presenter.word, word)

    def present(self) -> Value:
        """Have its interrupt, which is shown, be presented; 1 bit: it is still lent."""
        return self._become(self.word | PRESENTED)


@answers(Hcall.CPPR)
def _cppr(m: HypercallMachine) -> None:
    Presenter(m).set_priority(m.gpr[4] & 0xFF)
    end(m)


@answers(Hcall.XIRR)
def _xirr(m: HypercallMachine) -> None:
    presenter = Presenter(m)
    others = presenter.word & ~((0xFF << CPPR_SHIFT) | XISR | (0xFF << PRIORITY_SHIFT))
    accepted = others | (presenter.pending_priority << CPPR_SHIFT) | (LEAST_FAVORED << PRIORITY_SHIFT)
    presenter.become(m.select(presenter.shows, accepted, presenter.word))
    m.gpr[4] = presenter.xirr
    end(m)


@answers(Hcall.EOI)
def _eoi(m: HypercallMachine) -> None:
    """Ends an inter-processor interrupt, or that of a source if this is lent."""
    presenter = Presenter(m)
    xirr = m.gpr[4]
    number = xirr & (XISR >> XISR_SHIFT)
    source, is_source = Source(m, number), ~number.ult(FIRST_SOURCE)
    decline_if(m, is_source & ~(source.is_lent & source.is_presented))
    presenter.set_priority((xirr >> 24) & 0xFF)
    # Python may have taken it back just now. Then it sets the same priority once more.
    with m.when(is_source):
        decline_if(m, ~source.end())
    end(m)


@answers(Hcall.IPI)
def _ipi(m: HypercallMachine) -> None:
    """Withdraws the caller's own request, as an interrupt's handler does."""
    own = m.gpr[4].eq(m["PIR"].zext(64))
    decline_if(m, ~own | (m.gpr[5] & 0xFF).ne(LEAST_FAVORED))
    presenter = Presenter(m)
    presenter.become(presenter.word | (LEAST_FAVORED << MFRR_SHIFT))
    end(m)


@answers(Hcall.IPOLL)
def _ipoll(m: HypercallMachine) -> None:
    decline_if(m, m.gpr[4].ne(m["PIR"].zext(64)))
    presenter = Presenter(m)
    m.gpr[4], m.gpr[5] = presenter.xirr, presenter.mfrr
    end(m)
