"""Reservations and atomic updates of memory."""

from __future__ import annotations

from collections.abc import Callable

from chronovisor.isa.bits import DSISR
from chronovisor.isa.forms import X
from chronovisor.isa.instruction import section
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

reservation = section("Book II 4.6.2")
load_atomic = section("Book II 4.5.1")
store_atomic = section("Book II 4.5.2")


def _declare_reservation(suffix: str, size: int, load: int, store: int) -> None:
    @reservation(f"l{suffix}arx RT,RA,RB,EH", X, 31, load)
    def larx(m: Machine, RT: Value, RA: Value, RB: Value) -> None:
        ea = m.base(RA) + m.gpr[RB]
        m.aligned(ea, size)
        m.gpr[RT] = m.load_reserved(ea, size).zext(64)

    @reservation(f"st{suffix}cx. RS,RA,RB", X, 31, store, Rc=1)
    def stcx(m: Machine, RS: Value, RA: Value, RB: Value) -> None:
        ea = m.base(RA) + m.gpr[RB]
        m.aligned(ea, size)
        _record(m, m.store_conditional(ea, m.gpr[RS].trunc(size * 8)))


def _record(m: Machine, done: Value) -> None:
    """CR field 0: 0 0 done SO."""
    m.cr[0] = m.concat(m.value(0, 2), done, m["XER"].extract(31, 1))


_declare_reservation("b", 1, 52, 694)
_declare_reservation("h", 2, 116, 726)
_declare_reservation("w", 4, 20, 150)
_declare_reservation("d", 8, 84, 214)


@reservation("lqarx RT,RA,RB,EH", X, 31, 276, static=("RT",))
def lqarx(m: Machine, RT: int, RA: Value, RB: Value) -> None:
    if RT & 1:
        m.illegal()
        return
    ea = m.base(RA) + m.gpr[RB]
    m.aligned(ea, 16)
    both = m.load_reserved(ea, 16)
    m.gpr[RT] = both.extract(64, 64)
    m.gpr[RT + 1] = both.trunc(64)


@reservation("stqcx. RS,RA,RB", X, 31, 182, static=("RS",), Rc=1)
def stqcx(m: Machine, RS: int, RA: Value, RB: Value) -> None:
    if RS & 1:
        m.illegal()
        return
    ea = m.base(RA) + m.gpr[RB]
    m.aligned(ea, 16)
    _record(m, m.store_conditional(ea, m.concat(m.gpr[RS], m.gpr[RS + 1])))


# Atomic memory operations. Each execution is an attempt: if another thread stored between the load and the
# store, the instruction is executed again. The attempt uses the thread's reservation, which the book allows
# to be lost at any time.
#
# Some operations use a second word beside the word at EA. The book requires that both lie in one aligned
# block of 32 bytes. Such an operation exchanges both words in one access if machines can do that. Machines
# cannot for doublewords that straddle the middle of their block (the lower address is 8 modulo 16). Then the
# operation reads the second doubleword, and Store Twin writes it, in another access: only the doubleword at
# EA is replaced atomically. The same holds for words in two blocks.


def _replace(m: Machine, ea: Value, change: Callable[[Value], Value], size: int) -> tuple[Value, Value]:
    """Replace memory by what ``change`` makes of it; return what was there, and 1 bit: it was done."""
    old = m.load_reserved(ea, size)
    return old, _attempt(m, ea, change(old))


def _attempt(m: Machine, ea: Value, new: Value) -> Value:
    """Store if the reservation holds; return 1 bit: it was done. If not, execute the instruction again."""
    done = m.store_conditional(ea, new)
    with m.when(~done):
        m["NIA"] = m["CIA"]
    return done


def _exchanged_together(lower: Value, size: int) -> Value:
    """Return 1 bit: two words of ``size`` bytes from an address on are exchanged in one access.

    Machines exchange any 8 bytes within an aligned block of 32, and 16 bytes if they are aligned.
    """
    return lower.trunc(4).eq(0) if size == 8 else lower.trunc(5).ne(32 - size)


def _joined(m: Machine, lower: Value, upper: Value) -> Value:
    """Return two words as one, in the order that they have in memory."""
    return m.concat(upper, lower) if m.little else m.concat(lower, upper)


def _parted(m: Machine, both: Value) -> tuple[Value, Value]:
    """Return the word at the lower address and the one at the higher address."""
    bits = both.width // 2
    high, low = both.extract(bits, bits), both.trunc(bits)
    return (low, high) if m.little else (high, low)


def _bad_function(m: Machine, ea: Value) -> None:
    """A function code that is not there: data storage interrupt (Book II 4.5)."""
    m["DAR"] = m.data_address(ea)
    m["DSISR"] = int(DSISR.FUNCTION_CODE)
    m.interrupt("DATA_STORAGE")


def _pick(m: Machine, signed: bool, largest: bool) -> Callable[[Value, Value], Value]:
    def chosen(memory: Value, operand: Value) -> Value:
        less = memory.slt(operand) if signed else memory.ult(operand)
        return m.select(less, operand, memory) if largest else m.select(less, memory, operand)

    return chosen


def _combinations(m: Machine) -> dict[int, Callable[[Value, Value], Value]]:
    """Function code -> what memory becomes, for the codes that loads and stores share."""
    return {
        0: lambda memory, operand: memory + operand,
        1: lambda memory, operand: memory ^ operand,
        2: lambda memory, operand: memory | operand,
        3: lambda memory, operand: memory & operand,
        4: _pick(m, signed=False, largest=True),
        5: _pick(m, signed=True, largest=True),
        6: _pick(m, signed=False, largest=False),
        7: _pick(m, signed=True, largest=False),
    }


_SWAP, _COMPARE_AND_SWAP_NOT_EQUAL = 8, 16
_INCREMENT_BOUNDED, _INCREMENT_EQUAL, _DECREMENT_BOUNDED = 24, 25, 28
_STORE_TWIN = 24


def _bounded(m: Machine, RT: Value, ea: Value, size: int, FC: int) -> None:
    """Add 1 or -1 to a word unless the word beside it, its limit, says otherwise."""
    down, bits = FC == _DECREMENT_BOUNDED, 8 * size
    lower = ea - size if down else ea
    step = m.value(-1 if down else 1, bits)
    refused = m.value(1 << (bits - 1), bits)

    def goes(old: Value, limit: Value) -> Value:
        return old.eq(limit) if FC == _INCREMENT_EQUAL else old.ne(limit)

    def finish(old: Value, limit: Value, done: Value) -> None:
        with m.when(done):
            m.gpr[RT] = m.select(goes(old, limit), old, refused).zext(64)

    together = _exchanged_together(lower, size)
    with m.when(together):
        words = _parted(m, m.load_reserved(lower, 2 * size))
        limit, old = words if down else words[::-1]
        new = m.select(goes(old, limit), old + step, old)
        both = _joined(m, limit, new) if down else _joined(m, new, limit)
        finish(old, limit, _attempt(m, lower, both))
    with m.when(~together):
        limit = m.load(lower if down else ea + size, size)
        old, done = _replace(m, ea, lambda old: m.select(goes(old, limit), old + step, old), size)
        finish(old, limit, done)


def _store_twin(m: Machine, ea: Value, operand: Value, size: int) -> None:
    """Store to both words if they are equal."""
    together = _exchanged_together(ea, size)
    with m.when(together):
        both = m.load_reserved(ea, 2 * size)
        first, second = _parted(m, both)
        _attempt(m, ea, m.select(first.eq(second), m.concat(operand, operand), both))
    with m.when(~together):
        twin = m.load(ea + size, size)
        old, done = _replace(m, ea, lambda old: m.select(old.eq(twin), operand, old), size)
        with m.when(done & old.eq(twin)):
            m.store(ea + size, operand)


def _declare_atomic(suffix: str, size: int, load: int, store: int) -> None:
    bits = size * 8

    @load_atomic(f"l{suffix}at RT,RA,FC", X, 31, load)
    def lat(m: Machine, RT: Value, RA: Value, FC: int) -> None:
        ea = m.base(RA)
        m.aligned(ea, size)
        combine = _combinations(m).get(FC)
        first = m.gpr[(RT + 1) & 31].trunc(bits)
        second = m.gpr[(RT + 2) & 31].trunc(bits)
        if combine is not None:
            old, done = _replace(m, ea, lambda memory: combine(memory, first), size)
            result = old
        elif FC == _SWAP:
            old, done = _replace(m, ea, lambda memory: first, size)
            result = old
        elif FC == _COMPARE_AND_SWAP_NOT_EQUAL:
            old, done = _replace(m, ea, lambda memory: m.select(memory.ne(first), second, memory), size)
            result = old
        elif FC in (_INCREMENT_BOUNDED, _INCREMENT_EQUAL, _DECREMENT_BOUNDED):
            _bounded(m, RT, ea, size, FC)
            return
        else:
            _bad_function(m, ea)
            return
        with m.when(done):
            m.gpr[RT] = result.zext(64)

    @store_atomic(f"st{suffix}at RS,RA,FC", X, 31, store)
    def stat(m: Machine, RS: Value, RA: Value, FC: int) -> None:
        ea = m.base(RA)
        m.aligned(ea, size)
        operand = m.gpr[RS].trunc(bits)
        combine = _combinations(m).get(FC)
        if combine is not None:
            _replace(m, ea, lambda memory: combine(memory, operand), size)
        elif FC == _STORE_TWIN:
            _store_twin(m, ea, operand, size)
        else:
            _bad_function(m, ea)


_declare_atomic("w", 4, 582, 710)
_declare_atomic("d", 8, 614, 742)
