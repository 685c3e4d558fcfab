"""The operations of meanings on a thread's state as LLVM code.

:data:`LOWERINGS` is the native reading of ``chronovisor.isa.operations.OPERATIONS``. A row gets the lowering,
the traced value and its LLVM operands; it gives the LLVM value, or None for an effect.
"""

from __future__ import annotations

from functools import cache

from llvmlite import ir

from chronovisor.engine.live_registers import NOT_LENT
from chronovisor.engine.native.emitter import I1, I8, I32, I64, POINTER, Row, word
from chronovisor.engine.native.ieee import ieee, is_hosted
from chronovisor.engine.native.layout import Left
from chronovisor.engine.native.lowering import Lowering
from chronovisor.engine.native.pure_operations import PURE_ROWS
from chronovisor.engine.native.target_processor import target_has
from chronovisor.engine.state import CACHE_BLOCK
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.isa.interrupts import HYPERCALL, INTERRUPT_NUMBERS, INTERRUPTS, entry
from chronovisor.isa.radix import KEY_SHIFT
from chronovisor.isa.registers import FILES
from chronovisor.isa.values import LaneFunction, Program, Value


def _read_file(low: Lowering, v: Value, a: ir.Value) -> ir.Value:
    linked = low.linked(v)
    if linked is not None:
        return linked
    return low.read_register(FILES[str(v.detail)], a, v.width)


def _write_file(low: Lowering, v: Value, a: ir.Value, b: ir.Value) -> None:
    low.set_register(FILES[str(v.detail)], a, b)


def _get(low: Lowering, v: Value) -> ir.Value:
    if v.detail == "CIA":
        return low.address()
    if v.detail == "NIA":
        return low.next_address()
    return low.read(str(v.detail), v.width)


def _set(low: Lowering, v: Value, a: ir.Value) -> None:
    if v.detail == "NIA":
        low.jump_to(a)
    elif v.detail == "MSR":
        _set_msr(low, a)
    else:
        low.write(str(v.detail), a)


def _load(low: Lowering, v: Value, a: ir.Value) -> ir.Value:
    loaded = low.b.load(low.place(a, v.width // 8, store=False), typ=ir.IntType(v.width))
    loaded.align = 1
    return low.swapped(loaded)


def _store(low: Lowering, v: Value, a: ir.Value, b: ir.Value) -> None:
    size = v.args[1].width // 8
    low.b.store(low.swapped(b), low.place(a, size, store=True)).align = 1


_WIDE = ir.IntType(128)


def _load_reserved(low: Lowering, v: Value, a: ir.Value) -> ir.Value:
    place = low.place(a, v.width // 8, store=False)
    if v.width > 64:
        # Two loads could see half of another thread's store. An exchange of 0 for 0 changes nothing.
        nothing = ir.Constant(_WIDE, 0)
        read = low.b.extract_value(low.b.cmpxchg(place, nothing, nothing, "seq_cst", "seq_cst"), 0)
    else:
        read = low.b.load(place, typ=ir.IntType(v.width))
    loaded = low.swapped(read)
    wide = loaded if v.width == _WIDE.width else low.b.zext(loaded, _WIDE)
    low.write("reserved_address", low.real_address(place))
    low.write("reserved_size", word(v.width // 8))
    low.write("reserved_low", low.b.trunc(wide, I64))
    low.write("reserved_high", low.b.trunc(low.b.lshr(wide, ir.Constant(_WIDE, 64)), I64))
    return loaded


def _reserved_value(low: Lowering, width: int) -> ir.Value:
    """What the reservation's load read."""
    if width <= 64:
        return low.read("reserved_low", width)
    high = low.b.shl(low.b.zext(low.read("reserved_high"), _WIDE), ir.Constant(_WIDE, 64))
    return low.b.or_(high, low.b.zext(low.read("reserved_low"), _WIDE))


def _store_conditional(low: Lowering, v: Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """Compare with what was read and exchange, in one step: a store in between makes it fail."""
    size = v.args[1].width // 8
    place = low.place(a, size, store=True)
    same_place = low.b.icmp_unsigned("==", low.read("reserved_address"), low.real_address(place))
    same_size = low.b.icmp_unsigned("==", low.read("reserved_size"), word(size))
    low.write("reserved_address", word(-1))
    before = low.b.block
    attempt, after = low.block_named("attempt"), low.block_named("conditional_done")
    low.b.cbranch(low.b.and_(same_place, same_size), attempt, after)
    low.b.position_at_end(attempt)
    expected = _reserved_value(low, b.type.width)
    pair = low.b.cmpxchg(place, low.swapped(expected), low.swapped(b), "seq_cst", "seq_cst")
    done = low.b.extract_value(pair, 1)
    low.b.branch(after)
    low.b.position_at_end(after)
    result = low.b.phi(I1)
    result.add_incoming(ir.Constant(I1, 0), before)
    result.add_incoming(done, attempt)
    return result


def _zero_block(low: Lowering, v: Value, a: ir.Value) -> None:
    block = low.place(low.b.and_(a, word(-CACHE_BLOCK)), CACHE_BLOCK, store=True)
    for offset in range(0, CACHE_BLOCK, 8):
        low.b.store(word(0), low.at(block, offset))


def _invalidate_code(low: Lowering, v: Value, a: ir.Value) -> None:
    """Nothing is left to do unless the block was decoded. Then the concrete evaluator forgets it."""
    real = low.real_address(low.place(a, 1, store=False))
    blocks = low.b.inttoptr(low.read("code_blocks"), POINTER)
    block = low.b.lshr(real, word(CACHE_BLOCK.bit_length() - 1))
    decoded = low.b.icmp_unsigned("!=", low.b.load(low.at(blocks, block), typ=I8), ir.Constant(I8, 0))
    with low.elsewhere(low.unlikely(decoded, "decoded")):
        low.slow()


def _probe(low: Lowering, v: Value, a: ir.Value) -> None:
    low.place(a, 1, store=v.detail == "store")


def _interrupt(low: Lowering, v: Value, a: ir.Value) -> None:
    """Leave for the hypervisor; enter an interrupt that comes behind an instruction; raise any other."""
    name = str(v.detail)
    if name == HYPERCALL:
        low.leave_done(Left.HYPERCALL, low.following())
    elif INTERRUPTS[name].after:
        low.inline(entry(name), a)
        _resync(low, v)
        low.finish()
    else:
        low.write("raised", word(INTERRUPT_NUMBERS[name]))
        low.write("cause", a)
        low.leave(Left.INTERRUPT, low.address())
    low.ended = True


def _resync(low: Lowering, v: Value) -> None:
    why = low.b.load(low.attention, typ=I64)
    look = low.unlikely(low.b.icmp_unsigned("!=", why, word(0)), "look_again")
    on = low.b.block
    low.b.position_at_end(look)
    low.leave_done(why, low.next_address())
    low.b.position_at_end(on)


#: The bits of MSR that say how native code runs the thread.
_DECIDES = int(MSR.SF | MSR.HV | MSR.ME | MSR.PR | MSR.IR | MSR.DR | MSR.SE | MSR.BE | MSR.LE)


def _set_msr(low: Lowering, value: ir.Value) -> None:
    """Set MSR. The thread leaves its handlers if the mode changes or an interrupt may be let in.

    In virtual time it does so whenever EE goes on: neither the budget nor the piece heeds a decrementer that
    is kept out.
    """
    before = low.read("MSR")
    low.write("MSR", value)
    changed = low.b.xor(before, value)
    low.attend(_any(low, changed, _DECIDES), Left.CONTEXT)
    opens = _any(low, low.b.and_(changed, value), int(MSR.EE))
    test, on = low.block_named("opens"), low.block_named("set")
    low.b.cbranch(opens, test, on)
    low.b.position_at_end(test)
    due = low.b.icmp_signed("<", low.read("dec_deadline"), low.now())
    low.attend(low.b.or_(low.b.or_(due, low.external_waits()), _is_virtual(low)), Left.RESYNC)
    low.b.branch(on)
    low.b.position_at_end(on)


def _any(low: Lowering, value: ir.Value, bits: int) -> ir.Value:
    return low.b.icmp_unsigned("!=", low.b.and_(value, word(bits)), word(0))


def _is_virtual(low: Lowering) -> ir.Value:
    return low.b.icmp_unsigned("!=", low.read("ticks_per_instruction"), word(0))


#: The fences for the ways to order accesses: this machine keeps loads and stores in order, except for a store
#: and a later load.
_FENCES = {"full": "seq_cst", "light": "acq_rel"}


def _barrier(low: Lowering, v: Value) -> None:
    low.b.fence(_FENCES[str(v.detail)])


def _large(low: Lowering, small: ir.Value, large: ir.Value) -> ir.Value:
    """``large`` if LPCR[LD] makes the decrementer a large one, else ``small``."""
    return low.b.select(_any(low, low.read("LPCR"), int(LPCR.LD)), large, small)


def _sign_extended(low: Lowering, value: ir.Value, bits: int) -> ir.Value:
    above = word(64 - bits)
    return low.b.ashr(low.b.shl(value, above), above)


_LARGE_BITS = 56


_COUNTERS = {"PURR": "purr_ahead", "SPURR": "spurr_ahead"}
"""Registers that count run time. A Linux guest reads them whenever it goes idle, and afterwards."""


def _read_live(low: Lowering, v: Value) -> ir.Value:
    if v.detail == "DEC":
        left = low.b.sub(low.read("dec_deadline"), low.now())
        return _large(low, low.b.and_(left, word(0xFFFFFFFF)), _sign_extended(low, left, _LARGE_BITS))
    if (counter := _COUNTERS.get(str(v.detail))) is not None:
        ahead = low.read(counter)
        with low.elsewhere(low.unlikely(low.b.icmp_unsigned("==", ahead, word(NOT_LENT)), "not_lent")):
            low.slow()
        return low.b.add(low.now(), ahead)
    timebase = low.b.add(low.now(), low.read("tb_adjust"))
    if v.detail == "TBU":
        return low.b.trunc(low.b.lshr(timebase, word(32)), I32)
    return timebase


def _write_live(low: Lowering, v: Value, a: ir.Value) -> None:
    """Set DEC: its deadline. On the machine's own clock a later deadline is noticed in time anyway."""
    ticks = _large(low, _sign_extended(low, a, 32), _sign_extended(low, a, _LARGE_BITS))
    now = low.now()
    low.write("dec_deadline", low.b.add(now, ticks))
    low.write("dec_written", word(1))
    low.write("dec_written_at", now)
    due = low.b.icmp_signed("<=", ticks, word(0))
    low.attend(low.b.or_(_is_virtual(low), due), Left.RESYNC)


def _new_context(low: Lowering, v: Value) -> None:
    """Registers have changed that translation depends on. If AMR is the one, only the TLB changes."""
    if v.detail != "AMR":
        low.attend(ir.Constant(I1, 1), Left.CONTEXT)
        _resync(low, v)
        return
    key = low.b.lshr(low.read("AMR"), word(KEY_SHIFT))
    tlb = low.b.load(low.at(low.field("tlb_by_key"), low.b.shl(key, word(3))), typ=I64)
    with low.elsewhere(low.unlikely(low.b.icmp_unsigned("==", tlb, word(0)), "unknown")):
        low.leave_done(Left.CONTEXT, low.following())
    low.use_tlb(tlb)


def _forget_translations(low: Lowering, v: Value, process: ir.Value, first: ir.Value, last: ir.Value) -> None:
    low.write("forget_all", word(int(v.detail == "all")))
    for name, value in (("process", process), ("first", first), ("last", last)):
        low.write(f"forget_{name}", value)
    low.leave_done(Left.INVALIDATE, low.following())
    low.ended = True


def _await_invalidations(low: Lowering, v: Value) -> None:
    waits = low.b.icmp_unsigned("!=", low.read("invalidated"), word(0))
    with low.elsewhere(low.unlikely(waits, "waits")):
        low.leave_done(Left.SYNCHRONIZE, low.following())


#: The live registers that native code reads and writes itself; the rest are the concrete evaluator's.
LIVE_READ = frozenset({"TB", "TBU", "DEC", *_COUNTERS})
LIVE_WRITTEN = frozenset({"DEC"})


#: Every operation that native code does itself.
LOWERINGS: dict[str, Row] = {
    **PURE_ROWS,
    "ieee": ieee,
    "read_file": _read_file,
    "write_file": _write_file,
    "get": _get,
    "set": _set,
    "load": _load,
    "store": _store,
    "load_reserved": _load_reserved,
    "store_conditional": _store_conditional,
    "zero_block": _zero_block,
    "invalidate_code": _invalidate_code,
    "probe": _probe,
    "read_live": _read_live,
    "write_live": _write_live,
    "barrier": _barrier,
    "interrupt": _interrupt,
    "resync": _resync,
    "new_context": _new_context,
    "forget_translations": _forget_translations,
    "await_invalidations": _await_invalidations,
}

#: The registers of a guest's kernel that translation depends on.
_NATIVE_CONTEXT = frozenset({"PIDR", "AMR", "IAMR"})

#: Operations that are done when an instruction is decoded.
IN_RECORD = frozenset({"operand"})

#: Operations that make a program the concrete evaluator's.
CONCRETE_ALONE = frozenset(
    {
        *("random", "load_real", "update_real", "store_real", "translated"),
        *("read_shared", "exchange_shared", "init_page"),
        *("read_word", "exchange_word", "set_words", "host_io", "nap", "alarm", "watch", "decline"),
    }
)


@cache
def has_wide_atomics() -> bool:
    """Whether this machine exchanges 16 bytes in one step."""
    return target_has("cx16")


#: The sizes in bytes of what a machine exchanges in one step, by whether it has wide atomics.
ATOMIC_SIZES = {False: (1, 2, 4, 8), True: (1, 2, 4, 8, 16)}

#: Operations that need an atomic instruction of their width.
_ATOMIC = frozenset({"load_reserved", "store_conditional"})


def _is_native(statement: Value) -> bool:
    if statement.op in CONCRETE_ALONE:
        return False
    if isinstance(statement.detail, LaneFunction):
        return all(one.op != "ieee" and _is_native(one) for one in statement.detail.body)
    if statement.op == "ieee":
        return is_hosted(statement)
    if statement.op == "permute":
        return target_has("ssse3")
    if statement.op == "new_context":
        return statement.detail in _NATIVE_CONTEXT
    if statement.op == "read_live":
        return statement.detail in LIVE_READ
    if statement.op == "write_live":
        return statement.detail in LIVE_WRITTEN
    wide = any(a.width > 64 for a in (statement, *statement.args))
    return not (statement.op in _ATOMIC and wide) or has_wide_atomics()


def is_native(program: Program) -> bool:
    """Whether native code does all of a program itself."""
    return all(_is_native(statement) for statement in program.statements())
