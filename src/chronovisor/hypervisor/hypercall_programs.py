"""Hypercalls that need no other thread, as programs that every engine executes without leaving the guest.

A program answers the cases that are simple and frequent, and declines the others: `kernel_hypercalls` has the
whole answer of each, or user space does. Programs run on the calling thread without the host's monitor and
without the interpreter's lock, while other threads raise interrupts in Python. Both sides keep to this:

- A presenter is one word (`xics`). Whoever changes it computes the new word from the one that was read, and
  exchanges them in one step. A program whose exchange fails declines; Python then starts over.
- If a source or a request waits that a change of the priority would let in, the word says so (WAITING, MFRR),
  and the program declines.
- A program does two things to a source: it raises and ends the source's interrupt, if Python has lent it that
  (LENT). Python takes back what it lent before it looks at the source or changes it.
- The external interrupt's line is no state of its own: it is raised while the word shows an interrupt. So no
  order of events can leave the line and the word apart.
- Whether the vCPU was prodded is a word that only Python sets and clears. A program that sees it set
  declines; a prod that comes a moment later is for the next H_CEDE.
- A vCPU that naps in H_CEDE keeps its core, which is still in the guest. It naps only if it may (`most_nap`).
"""

from __future__ import annotations

from typing import Final

# Importing a module declares its programs.
from chronovisor.hypervisor import interrupt_programs as _interrupt_programs  # noqa: F401
from chronovisor.hypervisor.cede import PROD_WORD
from chronovisor.hypervisor.hypercall_declarations import DECLARED, answers, decline_if, end
from chronovisor.hypervisor.lan_programs import Listening
from chronovisor.hypervisor.scheduler import POLLED
from chronovisor.hypervisor.xics import PRESENTER_WORD, XISR
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.isa.hypercall_notation import HypercallMachine
from chronovisor.memory.guest_memory import PAGE_SIZE
from chronovisor.papr.hcalls import Hcall, PageInit, Status, unsigned

# Scheduling


class _Wakes:
    """What ends an H_CEDE, as it is now."""

    def __init__(self, m: HypercallMachine) -> None:
        large, decrementer = (m["LPCR"] & int(LPCR.LD)).ne(0), m["DEC"]
        self.left = m.select(large, decrementer, decrementer.trunc(32).sext(64))
        """Ticks of the decrementer."""
        raised = (m.shared(PRESENTER_WORD) & XISR).ne(0)
        self.interrupt = self.left.slt(0) | raised
        """1 bit: an interrupt."""
        self.prodded = m.shared(PROD_WORD).ne(0)


@answers(Hcall.CEDE)
def _cede(m: HypercallMachine) -> None:
    """Ends as soon as an interrupt is pending, for which the thread naps if it may. Else it has to wait.

    A frame for the guest ends the nap, too; the thread puts it into a buffer if that is simple.
    """
    before = _Wakes(m)
    naps = ~(before.interrupt | before.prodded | before.left.slt(POLLED))
    card = Listening(m, naps)
    has_come = m.nap(m.select(naps, before.left - POLLED, m.value(0)), card.file)
    now = _Wakes(m)
    with m.when(now.prodded | ~(now.interrupt | has_come)):
        card.end()
        m.decline()
    with m.when(has_come):
        card.receive()
    card.end()
    m["MSR"] = m["MSR"] | int(MSR.EE)
    end(m)
    m.resync()


# Registers and memory


@answers(Hcall.SET_SPRG0)
def _set_sprg0(m: HypercallMachine) -> None:
    m["SPRG0"] = m.gpr[4]
    end(m)


@answers(Hcall.PAGE_INIT)
def _page_init(m: HypercallMachine) -> None:
    """Fills a page. What else the flags can ask for is declined: caches, and hints to a hypervisor."""
    flags, page, origin = m.gpr[4], m.gpr[5], m.gpr[6]
    copy = (flags & int(PageInit.COPY)).ne(0)
    known = int(PageInit.ZERO | PageInit.COPY)
    decline_if(m, (flags & ~known).ne(0) | flags.eq(0))
    aligned = ((page | m.select(copy, origin, 0)) & (PAGE_SIZE - 1)).eq(0)
    success, parameter = unsigned(Status.SUCCESS), unsigned(Status.PARAMETER)
    with m.when(~aligned):
        end(m, Status.PARAMETER)
    with m.when(aligned & copy):
        end(m, m.select(m.copy_page(page, origin), success, parameter))
    with m.when(aligned & ~copy):
        end(m, m.select(m.zero_page(page), success, parameter))


PROGRAMS: Final = tuple(DECLARED)
"""Every program."""


def places(numbers: set[int]) -> int:
    """A thread's `answers` that lets it answer hypercalls of these numbers."""
    return sum(1 << one.place for one in PROGRAMS if one.number in numbers)
