"""Hypercalls that need no other thread, as programs that every engine executes without leaving the guest.

A program answers the cases that are simple and frequent, and declines the others: `kernel_hypercalls` has the
whole answer of each, or user space does. Programs run on the calling thread without the host's monitor and
without the interpreter's lock, while other threads raise interrupts in Python. Both sides keep to this:

- A presenter is one word (`xics`). Whoever changes it computes the new word from the one that was read, and
  exchanges them in one step. A program whose exchange fails declines; Python then starts over.
- If a source or a request waits that a change of the priority would let in, the word says so (WAITING, MFRR),
  and the program declines.
- A program does one thing to a source: it ends the source's interrupt, if Python has lent it that (LENT).
  Python takes back what it lent before it looks at the source or changes it.
- The external interrupt's line is no state of its own: it is raised while the word shows an interrupt. So no
  order of events can leave the line and the word apart.
- Whether the vCPU was prodded is a word that only Python sets and clears. A program that sees it set
  declines; a prod that comes a moment later is for the next H_CEDE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chronovisor.engine.hypercalls import NUMBER_REGISTER, HypercallProgram
from chronovisor.hypervisor.cede import PROD_WORD
from chronovisor.hypervisor.xics import (
    CPPR_SHIFT,
    FIRST_SOURCE,
    LEAST_FAVORED,
    LENT,
    LENT_PLACES,
    MFRR_SHIFT,
    PRESENTER_WORD,
    PRIORITY_SHIFT,
    WAITING,
    XISR,
    XISR_SHIFT,
)
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value
from chronovisor.isa.verifier import verify
from chronovisor.memory.guest_memory import PAGE_SHIFT, PAGE_SIZE
from chronovisor.memory.word_queue import FIRST, LIMIT, PLACES, TAIL
from chronovisor.papr.hcalls import LAN_HEADER, MOST_STUFFED, Hcall, PageInit, Status, unsigned

SIGNAL_MODES: Final = 1 << 32
"""The table of one word that says whether a device may interrupt (H_VIO_SIGNAL) has the number of its unit
with this bit. The entries of a device's window (TCEs) are the table of the window's number, of 32 bits.
"""

BUFFERS: Final = 1 << 33
"""The queue (`memory.word_queue`) of the buffers that a network card is given has the number of its unit with
this bit.
"""

_programs: list[HypercallProgram] = []


def _answers(number: Hcall) -> Callable[[Callable[[Machine], None]], None]:
    """Declare a hypercall's program; the function below is its meaning."""

    def declare(meaning: Callable[[Machine], None]) -> None:
        m = Machine()
        meaning(m)
        program = verify(m.trace.program(f"h_{number.name.lower()}", ()))
        _programs.append(HypercallProgram(number, len(_programs), program))

    return declare


def _return(m: Machine, status: Value | Status = Status.SUCCESS) -> None:
    m.gpr[NUMBER_REGISTER] = status if isinstance(status, Value) else unsigned(status)


def _decline_if(m: Machine, condition: Value) -> None:
    with m.when(condition):
        m.decline()


# Interrupts


class Presenter:
    """The calling vCPU's presenter, as a program has read it; declines if the vCPU has no presenter."""

    def __init__(self, m: Machine) -> None:
        self._m = m
        self.word = m.shared(PRESENTER_WORD)
        _decline_if(m, self.word.eq(0))
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
        _decline_if(self._m, taken_back | (requested & self.mfrr.ne(LEAST_FAVORED)) | let_in)
        self.become((self.word & ~(0xFF << CPPR_SHIFT)) | (cppr << CPPR_SHIFT))

    def become(self, new: Value) -> None:
        """Change the word, unless somebody else did first."""
        _decline_if(self._m, ~self._m.exchange_shared(PRESENTER_WORD, self.word, new))


@_answers(Hcall.CPPR)
def _cppr(m: Machine) -> None:
    Presenter(m).set_priority(m.gpr[4] & 0xFF)
    _return(m)


@_answers(Hcall.XIRR)
def _xirr(m: Machine) -> None:
    presenter = Presenter(m)
    others = presenter.word & ~((0xFF << CPPR_SHIFT) | XISR | (0xFF << PRIORITY_SHIFT))
    accepted = others | (presenter.pending_priority << CPPR_SHIFT) | (LEAST_FAVORED << PRIORITY_SHIFT)
    presenter.become(m.select(presenter.shows, accepted, presenter.word))
    m.gpr[4] = presenter.xirr
    _return(m)


@_answers(Hcall.EOI)
def _eoi(m: Machine) -> None:
    """Ends an inter-processor interrupt, or that of a source if this is lent."""
    presenter = Presenter(m)
    xirr = m.gpr[4]
    number = xirr & (XISR >> XISR_SHIFT)
    lent, place, is_source = m.value(LENT), number & (LENT_PLACES - 1), ~number.ult(FIRST_SOURCE)
    _decline_if(m, is_source & m.word(lent, place).ne(number))
    presenter.set_priority((xirr >> 24) & 0xFF)
    # Python may have taken it back just now. Then it sets the same priority once more.
    _decline_if(m, ~m.exchange_word(lent, place, number, 0) & is_source)
    _return(m)


@_answers(Hcall.IPI)
def _ipi(m: Machine) -> None:
    """Withdraws the caller's own request, as an interrupt's handler does."""
    own = m.gpr[4].eq(m["PIR"].zext(64))
    _decline_if(m, ~own | (m.gpr[5] & 0xFF).ne(LEAST_FAVORED))
    presenter = Presenter(m)
    presenter.become(presenter.word | (LEAST_FAVORED << MFRR_SHIFT))
    _return(m)


@_answers(Hcall.IPOLL)
def _ipoll(m: Machine) -> None:
    _decline_if(m, m.gpr[4].ne(m["PIR"].zext(64)))
    presenter = Presenter(m)
    m.gpr[4], m.gpr[5] = presenter.xirr, presenter.mfrr
    _return(m)


# Scheduling


@_answers(Hcall.CEDE)
def _cede(m: Machine) -> None:
    """Ends at once: an interrupt is pending. Without one the thread has to wait."""
    large = (m["LPCR"] & int(LPCR.LD)).ne(0)
    decrementer = m["DEC"]
    expired = m.select(large, decrementer.extract(63, 1), decrementer.extract(31, 1))
    raised = (m.shared(PRESENTER_WORD) & XISR).ne(0)
    _decline_if(m, m.shared(PROD_WORD).ne(0) | ~(expired | raised))
    m["MSR"] = m["MSR"] | int(MSR.EE)
    _return(m)
    m.resync()


# Registers and memory


@_answers(Hcall.SET_SPRG0)
def _set_sprg0(m: Machine) -> None:
    m["SPRG0"] = m.gpr[4]
    _return(m)


@_answers(Hcall.PAGE_INIT)
def _page_init(m: Machine) -> None:
    """Fills a page. What else the flags can ask for is declined: caches, and hints to a hypervisor."""
    flags, page, origin = m.gpr[4], m.gpr[5], m.gpr[6]
    copy = (flags & int(PageInit.COPY)).ne(0)
    known = int(PageInit.ZERO | PageInit.COPY)
    _decline_if(m, (flags & ~known).ne(0) | flags.eq(0))
    aligned = ((page | m.select(copy, origin, 0)) & (PAGE_SIZE - 1)).eq(0)
    success, parameter = unsigned(Status.SUCCESS), unsigned(Status.PARAMETER)
    with m.when(~aligned):
        _return(m, Status.PARAMETER)
    with m.when(aligned & copy):
        _return(m, m.select(m.copy_page(page, origin), success, parameter))
    with m.when(aligned & ~copy):
        _return(m, m.select(m.zero_page(page), success, parameter))


# Virtual devices


def _set_entries(m: Machine, count: Value | int, are_set: Callable[..., Value], value: Value) -> None:
    """Set entries of a device's window, from the page of an I/O address on."""
    window, address = m.gpr[4], m.gpr[5]
    _decline_if(m, (window >> 32).ne(0) | (address & (PAGE_SIZE - 1)).ne(0))
    _decline_if(m, ~are_set(window, address >> PAGE_SHIFT, count, value))
    _return(m)


@_answers(Hcall.PUT_TCE)
def _put_tce(m: Machine) -> None:
    _set_entries(m, 1, m.fill_words, m.gpr[6])


@_answers(Hcall.PUT_TCE_INDIRECT)
def _put_tce_indirect(m: Machine) -> None:
    source, count = m.gpr[6], m.gpr[7]
    _decline_if(m, (source & (PAGE_SIZE - 1)).ne(0) | ~(count - 1).ult(PAGE_SIZE // 8))
    _set_entries(m, count, m.copy_words, source)


@_answers(Hcall.STUFF_TCE)
def _stuff_tce(m: Machine) -> None:
    count = m.gpr[7]
    _decline_if(m, ~count.ult(MOST_STUFFED + 1))
    _set_entries(m, count, m.fill_words, m.gpr[6])


@_answers(Hcall.VIO_SIGNAL)
def _vio_signal(m: Machine) -> None:
    unit, mode = m.gpr[4], m.gpr[5]
    _decline_if(m, (unit >> 32).ne(0) | ~mode.ult(2))
    _decline_if(m, ~m.fill_words(unit | SIGNAL_MODES, 0, 1, mode))
    _return(m)


@_answers(Hcall.ADD_LOGICAL_LAN_BUFFER)
def _add_lan_buffer(m: Machine) -> None:
    """Leaves the buffer in the card's queue, if that takes one."""
    unit, buffer = m.gpr[4], m.gpr[5]
    size = (buffer >> 32) & 0xFF_FFFF
    _decline_if(m, (unit >> 32).ne(0) | (buffer >> 63).eq(0) | size.ult(LAN_HEADER + 1) | (buffer & 3).ne(0))
    queue = unit | BUFFERS
    tail = m.word(queue, TAIL)
    _decline_if(m, ~tail.ult(m.word(queue, LIMIT)))
    _decline_if(m, ~m.exchange_word(queue, TAIL, tail, tail + 1))
    place = (tail & (PLACES - 1)) + FIRST
    _decline_if(m, ~m.fill_words(queue, place, 1, buffer))
    _return(m)


PROGRAMS: Final = tuple(_programs)
"""Every program."""


def places(numbers: set[int]) -> int:
    """A thread's `answers` that lets it answer hypercalls of these numbers."""
    return sum(1 << one.place for one in PROGRAMS if one.number in numbers)
