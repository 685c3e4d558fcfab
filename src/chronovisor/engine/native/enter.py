"""Entering native code: the function ``enter``, which runs a thread until only Python can go on.

``enter(state)`` runs a thread from CIA for at most ``run_left`` instructions and says why it came
back (:class:`~chronovisor.engine.native.layout.Left`). Handlers return to it for what they do not do
themselves: it fills the TLB, enters interrupts, changes contexts, invalidates translations, and goes on. On
the machine's own clock it checks every few thousand instructions whether another thread asked for the run's
end or the decrementer is due. In virtual time a piece ends when the decrementer is due, if native code is to
enter its interrupt; if not, the caller's budget ends before that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llvmlite import ir

from chronovisor.engine.native.emitter import (
    CHANGED,
    FAULTED,
    HANDLER_POINTER,
    HYPERCALL_POINTER,
    I1,
    I64,
    NOT_TRANSLATED,
    POINTER,
    ThreadEmitter,
    word,
)
from chronovisor.engine.native.layout import PAGE_SHIFT, RECORD_HANDLER, Left
from chronovisor.engine.native.state_layout import LONG_AGO, MOST_UNSPENT, SOMEWHERE, SPENT
from chronovisor.isa.bits import MSR
from chronovisor.isa.interrupts import INTERRUPT_NUMBERS
from chronovisor.isa.radix import Access

#: Instructions between two checks of the clock and of requests from outside.
PIECE = 16384

#: How many instructions handlers execute between two samples.
INSTRUCTIONS_PER_SAMPLE = 3 * PIECE

#: Its multiples, modulo 2^64, lie evenly in that range however few they are (the golden ratio).
_EVENLY = 0x9E37_79B9_7F4A_7C15


@dataclass(frozen=True)
class Control:
    """The functions that ``enter`` calls between handlers."""

    now: ir.Function
    translate: Mapping[Access, ir.Function]
    cross: Mapping[Access, ir.Function]
    decode: ir.Function
    adopt: ir.Function
    flush: ir.Function
    invalidate: ir.Function
    synchronize: ir.Function
    interrupt: ir.Function
    sample: ir.Function


def define_entry(module: ir.Module, control: Control) -> ir.Function:
    """Define ``enter``."""
    return _Entry(module, control).function


class _Entry(ThreadEmitter):
    """``enter`` in the making.

    ``piece`` runs handlers until one returns. ``again`` decides whether the run goes on with another piece.
    ``look`` enters the decrementer's interrupt if it is due.
    """

    def __init__(self, module: ir.Module, control: Control) -> None:
        super().__init__(module, ir.FunctionType(I64, [POINTER]), "chronovisor_enter")
        self.control = control
        b, begin = self.b, self.b.block
        self.piece, self.again, self.look, self.out = (
            self.block_named(n) for n in ("piece", "again", "look", "out")
        )
        b.position_at_end(self.out)
        self.why = b.phi(I64)
        b.fence("release")
        self.write("inside", word(0))
        b.ret(self.why)

        b.position_at_end(begin)
        is_virtual = b.icmp_unsigned("!=", self.read("ticks_per_instruction"), word(0))
        self.entering = b.icmp_unsigned("!=", self.read("enters_decrementer"), word(0))
        #: In virtual time: whether the caller sees to the decrementer.
        self.only_counting = b.and_(is_virtual, b.not_(self.entering))
        self.write("inside", word(1))
        self.write("unpolled", word(0))
        adopted = self.block_named("adopted")
        self._adopt(adopted)
        b.position_at_end(adopted)
        # An instruction that Python did may have let an interrupt in.
        b.cbranch(self.entering, self.again, self.piece)
        self._define_piece()
        self._define_again()
        self._define_look()

    # How a block ends

    def _leave(self, why: Left | ir.Value) -> None:
        """Return from native code."""
        self.why.add_incoming(word(why) if isinstance(why, Left) else why, self.b.block)
        self.b.branch(self.out)

    def _adopt(self, then: ir.Block) -> None:
        """Take over registers that have changed. Python goes on if native code cannot."""
        adopted = self.b.call(self.control.adopt, [self.state])
        refused = self.block_named("refused")
        self.b.cbranch(adopted, then, refused)
        self.b.position_at_end(refused)
        self._leave(Left.RESYNC)

    def _entered(self) -> None:
        """An instruction has ended in an interrupt: it counts, and the run goes on at the vector."""
        self._count(word(1))
        self._adopt(self.again)

    # What blocks do

    def _count(self, done: ir.Value) -> None:
        """Count instructions that were executed."""
        b = self.b
        ticks = b.mul(done, self.read("ticks_per_instruction"))
        self.write("virtual_ticks", b.add(self.read("virtual_ticks"), ticks))
        self.write("run_left", b.sub(self.read("run_left"), done))
        self.write("unpolled", b.add(self.read("unpolled"), done))
        self.write("until_sample", b.sub(self.read("until_sample"), done))

    def _translate(self, access: Access, ea: ir.Value, then: ir.Block) -> None:
        """Have the TLB know an address, and go on. A fault enters its interrupt."""
        b = self.b
        real = b.call(self.control.translate[access], [self.state, ea])
        choice = b.switch(real, then)
        for answer, name in ((FAULTED, "faulted"), (NOT_TRANSLATED, "slow")):
            choice.add_case(word(answer), self.block_named(name))
        if access is Access.FETCH:
            changed = self.block_named("changed")
            choice.add_case(word(CHANGED), changed)
            b.position_at_end(changed)
            self._leave(Left.FETCH)
        faulted, slow, *_ = (case for _, case in choice.cases)
        b.position_at_end(faulted)
        self._entered()
        b.position_at_end(slow)
        self._leave(Left.SLOW)

    def _missing(self, access: Access, why: ir.PhiInstr, back: ir.Block) -> None:
        """Have the TLB know the page of an access. If it lies in two pages, have its instruction done."""
        b = self.b
        ea = self.read("missing_address")
        end = b.add(ea, b.sub(self.read("missing_size"), word(1)))
        pages, second, both = (self.block_named(n) for n in ("pages", "second", "both"))
        self._translate(access, ea, pages)
        b.position_at_end(pages)
        one = b.icmp_unsigned("==", b.lshr(ea, word(PAGE_SHIFT)), b.lshr(end, word(PAGE_SHIFT)))
        b.cbranch(one, self.again, second)
        b.position_at_end(second)
        self._translate(access, b.and_(b.and_(end, word(-(1 << PAGE_SHIFT))), self.addresses()), both)
        b.position_at_end(both)
        why.add_incoming(b.call(self.control.cross[access], [self.state]), b.block)
        b.branch(back)

    # The blocks

    def _define_piece(self) -> None:
        b = self.b
        b.position_at_end(self.piece)
        self.write("pieces", b.add(self.read("pieces"), word(1)))
        # Before this piece uses the TLB: see `define_await_piece`.
        b.fence("seq_cst")
        asked = b.icmp_unsigned("!=", self.read("flushes_asked"), self.read("flushes_done"))
        with self.elsewhere(self.unlikely(asked, "flush")):
            b.call(self.control.flush, [self.state])
            self._adopt(self.piece)
        left, most = self.read("run_left"), self._most()
        is_last = b.icmp_signed("<=", left, most)
        size, is_exact = self._before_decrementer(b.select(is_last, left, most), is_last)
        self.write("last_piece", is_exact)
        self.write("begin", size)
        found, missing = self.record_at(self.read("CIA"))
        run, walk, first = self.block_named("run"), self.block_named("walk"), b.block
        b.branch(run)

        # The TLB may only lack the page.
        b.position_at_end(missing)
        self._translate(Access.FETCH, self.read("CIA"), walk)
        b.position_at_end(walk)
        after, absent = self.record_at(self.read("CIA"))
        second = b.block
        b.branch(run)
        b.position_at_end(absent)
        self._leave(Left.FETCH)

        b.position_at_end(run)
        record = b.phi(POINTER)
        record.add_incoming(found, first)
        record.add_incoming(after, second)
        # A piece that goes on where the one before it was spent begins anywhere.
        is_spent = b.icmp_unsigned("==", self.read("unpolled"), word(0))
        self.write("handlers_from", b.select(is_spent, word(SOMEWHERE), b.ptrtoint(record, I64)))
        handler = b.load(self.at(record, RECORD_HANDLER), typ=HANDLER_POINTER)
        why = self.call_handler(handler, record, size)
        back = self.block_named("back")
        first = b.block
        b.branch(back)
        b.position_at_end(back)
        reason = b.phi(I64)
        reason.add_incoming(why, first)
        self._count(b.sub(self.read("begin"), self.read("budget")))
        self._go_on(reason, back)

    def _before_decrementer(self, size: ir.Value, is_exact: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The size of a piece that ends when the decrementer is due in virtual time, if that is before its
        end; and whether it has to end at exactly its size.
        """
        b = self.b
        before, limited, then = b.block, self.block_named("limited"), self.block_named("sized")
        on = b.icmp_unsigned("!=", b.and_(self.read("MSR"), word(int(MSR.EE))), word(0))
        b.cbranch(b.and_(self.entering, on), limited, then)
        b.position_at_end(limited)
        step = self.read("ticks_per_instruction")
        # The exception exists from the tick behind the deadline on. It does not exist yet: `look` looked.
        ahead = b.sub(b.add(self.read("dec_deadline"), word(1)), self.read("virtual_ticks"))
        count = b.udiv(b.add(ahead, b.sub(step, word(1))), step)
        ends = b.icmp_unsigned("<=", count, size)
        smaller = b.select(ends, count, size)
        exact = b.or_(ends, is_exact)
        b.branch(then)
        b.position_at_end(then)
        sizes, exacts = b.phi(I64), b.phi(I1)
        for phi, one, other in ((sizes, size, smaller), (exacts, is_exact, exact)):
            phi.add_incoming(one, before)
            phi.add_incoming(other, limited)
        return sizes, exacts

    def _most(self) -> ir.Value:
        """How many instructions a piece may have.

        If a sample is due, the number is another one each time, from 1 on. Else a guest that repeats itself
        exactly, or leaves native code often, would be sampled at the same instruction for ever, or never.
        """
        b = self.b
        room = b.sub(word(PIECE), self.read("unpolled"))
        drawn = b.lshr(b.mul(self.read("pieces"), word(_EVENLY)), word(32))
        shorter = b.add(b.lshr(b.mul(drawn, room), word(32)), word(1))
        return b.select(b.icmp_signed("<=", self._until_sample(), word(0)), shorter, room)

    def _until_sample(self) -> ir.Value:
        """How many instructions handlers are to execute before a sample is due."""
        b = self.b
        in_regions = b.sub(self.read("done_in_regions"), self.read("sampled_in_regions"))
        return b.add(self.read("until_sample"), in_regions)

    def _go_on(self, why: ir.Value, back: ir.Block) -> None:
        """Do what a handler has left undone, and go on; ``back`` is where another handler came back."""
        b, control = self.b, self.control
        other, spent = self.block_named("other"), self.block_named("spent")
        choice = b.switch(why, other)
        choice.add_case(word(Left.BUDGET), spent)
        choice.add_case(word(Left.FETCH), self.again)
        cases = {}
        for left in (
            *(Left.MISSING_LOAD, Left.MISSING_STORE, Left.CONTEXT, Left.RESYNC),
            *(Left.INTERRUPT, Left.INVALIDATE, Left.SYNCHRONIZE, Left.HYPERCALL, Left.DECODE),
        ):
            cases[left] = self.block_named(left.name.lower())
            choice.add_case(word(left), cases[left])
        b.position_at_end(other)
        self._leave(why)
        b.position_at_end(spent)
        self._sample()
        # However short the piece was: `again` looks at once, and the next one begins anywhere.
        self.write("unpolled", word(PIECE))
        b.branch(self.again)
        for left, access in ((Left.MISSING_LOAD, Access.LOAD), (Left.MISSING_STORE, Access.STORE)):
            b.position_at_end(cases[left])
            self._missing(access, why, back)
        b.position_at_end(cases[Left.DECODE])
        decoded = b.call(control.decode, [self.state])
        with self.elsewhere(self.unlikely(b.not_(decoded), "undecoded")):
            self._leave(Left.DECODE)
        b.branch(self.again)

        b.position_at_end(cases[Left.CONTEXT])
        self._adopt(self.again)
        b.position_at_end(cases[Left.INVALIDATE])
        b.call(control.invalidate, [self.state])
        self._adopt(self.again)
        b.position_at_end(cases[Left.SYNCHRONIZE])
        b.call(control.synchronize, [self.state])
        b.branch(self.again)

        b.position_at_end(cases[Left.INTERRUPT])
        self._interrupt(self.read("raised"), self.read("cause"), Left.SLOW)
        self._entered()

        b.position_at_end(cases[Left.HYPERCALL])
        self._hypercall(cases[Left.RESYNC])

        b.position_at_end(cases[Left.RESYNC])
        with self.elsewhere(self.unlikely(self.only_counting, "virtual")):
            self._leave(Left.RESYNC)
        # `again` looks at once.
        self.write("unpolled", word(PIECE))
        self._adopt(self.again)

    def _hypercall(self, resync: ir.Block) -> None:
        """Answer a hypercall and go on; leave if only the hypervisor's own code can answer it."""
        b = self.b
        function = self.read("hypercalls")
        answer, hand_up = (self.block_named(n) for n in ("answer", "hand_up"))
        b.cbranch(b.icmp_unsigned("!=", function, word(0)), answer, hand_up)
        b.position_at_end(hand_up)
        self._leave(Left.HYPERCALL)
        b.position_at_end(answer)
        outcome = b.call(b.inttoptr(function, HYPERCALL_POINTER), [self.state])
        choice = b.switch(outcome, hand_up)
        choice.add_case(word(Left.BUDGET), self.again)
        choice.add_case(word(Left.RESYNC), resync)

    def _interrupt(self, number: ir.Value, cause: ir.Value, refused: Left) -> None:
        """Enter an interrupt; leave if only Python can do it."""
        b = self.b
        entered = b.call(self.control.interrupt, [self.state, number, cause])
        with self.elsewhere(self.unlikely(b.not_(entered), "loop")):
            self._leave(refused)

    def _define_again(self) -> None:
        b = self.b
        b.position_at_end(self.again)
        over = b.icmp_signed("<=", self.read("run_left"), word(0))
        wanted = b.icmp_unsigned("!=", self.read("exit_request"), word(0))
        with self.elsewhere(self.unlikely(b.or_(over, wanted), "stop")):
            self._leave(Left.BUDGET)
        due = b.icmp_signed(">=", self.read("unpolled"), word(PIECE - MOST_UNSPENT))
        due = b.or_(due, self.external_waits())
        b.cbranch(b.or_(due, self.entering), self.look, self.piece)

    def _define_look(self) -> None:
        b = self.b
        b.position_at_end(self.look)
        self.write("unpolled", word(0))
        with self.elsewhere(self.unlikely(self.only_counting, "nothing_due")):
            b.branch(self.piece)
        enabled, expired = self.block_named("enabled"), self.block_named("expired")
        on = b.icmp_unsigned("!=", b.and_(self.read("MSR"), word(int(MSR.EE))), word(0))
        b.cbranch(on, enabled, self.piece)
        b.position_at_end(enabled)
        with self.elsewhere(self.unlikely(self.external_waits(), "waiting")):
            self._interrupt(word(INTERRUPT_NUMBERS["EXTERNAL"]), word(0), Left.RESYNC)
            self._adopt(self.piece)
        # All that was executed is counted.
        now = b.call(self.control.now, [self.state, self.read("begin")])
        b.cbranch(b.icmp_signed("<", self.read("dec_deadline"), now), expired, self.piece)
        b.position_at_end(expired)
        long_ago = b.icmp_signed("<", self.read("dec_deadline"), b.sub(now, word(LONG_AGO)))
        with self.elsewhere(self.unlikely(long_ago, "long_ago")):
            self._leave(Left.RESYNC)
        self._interrupt(word(INTERRUPT_NUMBERS["DECREMENTER"]), word(0), Left.RESYNC)
        self._adopt(self.piece)

    def _sample(self) -> None:
        """Take a sample if one is due: the thread's address, and that at which handlers took over.

        A sample is due each time that handlers have executed INSTRUCTIONS_PER_SAMPLE instructions. It is
        taken after a piece that has used up its budget, because that may happen at any instruction. If the
        last region to be left was left for another region, nobody knows what handlers have executed. The
        sample then waits for the next piece.
        """
        b = self.b
        record = self.read("handlers_from")
        due, known, sample, after = (self.block_named(n) for n in ("due", "known", "sample", "sampled"))
        left = self._until_sample()
        self.write("until_sample", left)
        self.write("sampled_in_regions", self.read("done_in_regions"))
        b.cbranch(b.icmp_signed("<=", left, word(0)), due, after)
        b.position_at_end(due)
        choice = b.switch(record, known)
        choice.add_case(word(SPENT), after)
        choice.add_case(word(SOMEWHERE), sample)
        b.position_at_end(known)
        begins = b.icmp_unsigned("!=", self.plain_handler(b.inttoptr(record, POINTER)), word(0))
        b.cbranch(begins, after, sample)
        b.position_at_end(sample)
        self.write("until_sample", word(INSTRUCTIONS_PER_SAMPLE))
        b.call(self.control.sample, [self.state])
        b.branch(after)
        b.position_at_end(after)
