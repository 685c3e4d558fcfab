"""The entry of interrupts in native code: ``interrupt(state, number, cause)``."""

from __future__ import annotations

from llvmlite import ir

from chronovisor.engine.native.emitter import I1, I64, POINTER, Row, ThreadEmitter, word
from chronovisor.engine.native.pure_operations import PURE_ROWS
from chronovisor.isa.interrupts import AIL3_OFFSET, INTERRUPT_NUMBERS, INTERRUPTS, entry
from chronovisor.isa.values import Value


class _Entry(ThreadEmitter):
    """The entry of one of several interrupts; which one is known at run time."""

    def statement(self, v: Value) -> None:
        """Do one statement."""
        if v.op == "operand":
            self.values[id(v)] = self.function.args[2]
        else:
            super().statement(v)


_ROWS: dict[str, Row] = {
    **PURE_ROWS,
    "get": lambda e, v: e.read(str(v.detail), v.width),
    "set": lambda e, v, a: e.write("CIA" if v.detail == "NIA" else str(v.detail), a),
}


def define_interrupt(module: ir.Module) -> ir.Function:
    """Define ``interrupt(state, number, cause)``: enter an interrupt at CIA, not behind it.

    1 bit: it was entered, and the caller adopts the new context. It is left to the concrete evaluator, and
    nothing has changed, if CIA is the interrupt's own vector: then the guest can be in a loop.
    """
    kind = ir.FunctionType(I1, [POINTER, I64, I64])
    e = _Entry(module, kind, "chronovisor_interrupt", _ROWS)
    e.function.attributes.add("nounwind")
    b = e.b
    refuse, entered = e.block_named("refuse"), e.block_named("entered")
    came_from = e.read("CIA")
    choice = b.switch(e.function.args[1], refuse)
    for name, number in INTERRUPT_NUMBERS.items():
        interrupt = INTERRUPTS[name]
        if interrupt.hypervisor or interrupt.after:
            continue
        case = e.block_named(name)
        choice.add_case(word(number), case)
        b.position_at_end(case)
        for vector in (interrupt.vector, interrupt.vector + AIL3_OFFSET):
            go_on = e.block_named("elsewhere")
            b.cbranch(b.icmp_unsigned("==", came_from, word(vector)), refuse, go_on)
            b.position_at_end(go_on)
        e.ended = False
        e.block(entry(name).body)
        b.branch(entered)
    b.position_at_end(refuse)
    b.ret(ir.Constant(I1, 0))
    b.position_at_end(entered)
    count = e.at(e.field("interrupts"), b.mul(e.function.args[1], word(8)))
    b.store(b.add(b.load(count, typ=I64), word(1)), count)
    with e.if_(b.icmp_unsigned("!=", came_from, e.read("latest_vector"))):
        e.write("latest_interrupt", e.function.args[1])
        e.write("latest_address", came_from)
        e.write("latest_dar", e.read("DAR"))
        e.write("latest_vector", e.read("CIA"))
    b.ret(ir.Constant(I1, 1))
    return e.function
