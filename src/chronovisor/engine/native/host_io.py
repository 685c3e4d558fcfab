"""System calls from native code: they move bytes between guest memory and this machine's files, and wait.

A hypercall's program asks for them (`host_io`, `nap`). Native code runs on x86-64 alone: the numbers are
those of Linux there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

from chronovisor.engine.native.emitter import I1, I8, I32, I64, POINTER, ThreadEmitter, word
from chronovisor.engine.native.layout import PAGE_SHIFT
from chronovisor.engine.state import CACHE_BLOCK
from chronovisor.isa.values import Value

_READ, _PWRITE64, _WRITEV, _RECVMSG, _EPOLL_CTL, _PPOLL = 0, 18, 20, 47, 233, 271
_TIMERFD_SETTIME, _PREADV2 = 286, 327
_POLLIN = _EPOLLIN = 1
_EPOLL_CTL_MOD = 3
_MSG_PEEK, _MSG_DONTWAIT = 0x2, 0x40
_LONGEST_SKIPPED = 4096
"""Bytes, without the size in front."""
_RWF_NOWAIT = 8
"""Of preadv2(2): fail if the file's contents are not in the machine's cache."""
#: 64 ticks are 125 ns.
_NANOSECONDS, _TICK_SHIFT = 125, 6
_NOTHING = word(-1)
"""What a call returns that was not made."""
_PIECE = 16
"""Bytes of a `struct iovec`: an address and a size."""
_ARGUMENTS = ("{rdi}", "{rsi}", "{rdx}", "{r10}", "{r8}", "{r9}")
_CLOBBERED = "~{rcx},~{r11},~{memory},~{dirflag},~{fpsr},~{flags}"


def host_io(
    e: ThreadEmitter, v: Value, file: ir.Value, place: ir.Value, real: ir.Value, size: ir.Value
) -> ir.Value:
    """How many bytes were moved, or what else the call returned."""
    b = e.b
    memory = e.read("memory_size")
    fits = b.and_(b.icmp_unsigned("<=", size, memory), b.icmp_unsigned("<=", real, b.sub(memory, size)))
    result = b.alloca(I64)
    b.store(_NOTHING, result)
    with e.if_(fits):
        at = b.ptrtoint(e.memory_at(real), I64)
        with _outside(e):
            b.store(_WAYS[str(v.detail)](e, file, place, at, size), result)
        if v.detail in ("read", "peek"):
            with e.if_(_has_written(e, real, size)):
                b.store(_NOTHING, result)
    return b.load(result, typ=I64)


@contextmanager
def _outside(e: ThreadEmitter) -> Iterator[None]:
    """Have the thread count as one that uses no translation meanwhile: it may take long."""
    e.b.fence("release")
    e.write("inside", word(0))
    yield
    e.write("inside", word(1))
    e.b.fence("seq_cst")


def nap(e: ThreadEmitter, v: Value, ticks: ir.Value, file: ir.Value) -> ir.Value:
    """1 bit: the thread has napped until the file could be read."""
    b = e.b
    readable = b.alloca(I1)
    b.store(ir.Constant(I1, 0), readable)
    most, bell = e.read("most_nap"), e.read("bell")
    ticks = b.select(b.icmp_unsigned("<", ticks, most), ticks, most)
    naps = b.icmp_unsigned("!=", ticks, word(0))
    with e.if_(naps):
        e.write("napping", word(1))
        # Before it looks whether there is anything to do: who has made that so then looks whether it naps.
        b.fence("seq_cst")
        wanted = b.icmp_unsigned("!=", e.read("exit_request"), word(0))
        with e.if_(b.not_(b.or_(wanted, e.external_waits()))), _outside(e):
            time = _words(e, _timespec(e, ticks))
            # A `struct pollfd`: the descriptor and the events in 32 and 16 bits, and what is found in 16. One
            # with a descriptor below 0 is passed over.
            wanted = [b.or_(b.and_(one, word(0xFFFF_FFFF)), word(_POLLIN << 32)) for one in (bell, file)]
            place = _words(e, wanted)
            _system_call(e, _PPOLL, [place, word(2), time, word(0)])
            rung, found = (
                b.icmp_unsigned(
                    "!=", b.lshr(b.load(e.at(b.inttoptr(place, POINTER), at), typ=I64), word(48)), word(0)
                )
                for at in (0, 8)
            )
            b.store(found, readable)
            with e.if_(rung):
                _system_call(e, _READ, [bell, place, word(8)])
        e.write("napping", word(0))
    return b.load(readable, typ=I1)


def alarm(e: ThreadEmitter, v: Value, timer: ir.Value, ticks: ir.Value) -> ir.Value:
    """1 bit: the timer is set."""
    # A `struct itimerspec`: it goes off once.
    time = _words(e, [word(0), word(0), *_timespec(e, ticks)])
    done = _system_call(e, _TIMERFD_SETTIME, [timer, word(0), time, word(0)])
    return e.b.icmp_unsigned("==", done, word(0))


def _timespec(e: ThreadEmitter, ticks: ir.Value) -> list[ir.Value]:
    """Less than a second as a `struct timespec`."""
    return [word(0), e.b.lshr(e.b.mul(ticks, word(_NANOSECONDS)), word(_TICK_SHIFT))]


def watch(e: ThreadEmitter, v: Value, epoll: ir.Value, file: ir.Value, told: ir.Value) -> ir.Value:
    """1 bit: who waits by the epoll instance is told of the file from now on, or not."""
    b = e.b
    # A `struct epoll_event`: the events in 32 bits, and what Python knows the file by in 64.
    events = b.select(b.icmp_unsigned("!=", told, word(0)), word(_EPOLLIN), word(0))
    event = _words(e, [b.or_(events, b.shl(file, word(32))), b.lshr(file, word(32))])
    done = _system_call(e, _EPOLL_CTL, [epoll, word(_EPOLL_CTL_MOD), file, event])
    return b.icmp_unsigned("==", done, word(0))


def _read(e: ThreadEmitter, file: ir.Value, offset: ir.Value, at: ir.Value, size: ir.Value) -> ir.Value:
    piece = _pieces(e, [(at, size)])
    return _system_call(e, _PREADV2, [file, piece, word(1), offset, word(0), word(_RWF_NOWAIT)])


def _write(e: ThreadEmitter, file: ir.Value, offset: ir.Value, at: ir.Value, size: ir.Value) -> ir.Value:
    return _system_call(e, _PWRITE64, [file, at, size, offset])


def _send(e: ThreadEmitter, file: ir.Value, head: ir.Value, at: ir.Value, size: ir.Value) -> ir.Value:
    b = e.b
    place = b.alloca(I32)
    b.store(b.bswap(b.trunc(head, I32)), place)
    pieces = _pieces(e, [(b.ptrtoint(place, I64), word(4)), (at, size)])
    has_head = b.icmp_unsigned("!=", head, word(-1))
    first = b.select(has_head, pieces, b.add(pieces, word(_PIECE)))
    return _system_call(e, _WRITEV, [file, first, b.select(has_head, word(2), word(1))])


def _peek(e: ThreadEmitter, file: ir.Value, unused: ir.Value, at: ir.Value, size: ir.Value) -> ir.Value:
    b = e.b
    head = _words(e, [word(0)])
    pieces = _pieces(e, [(head, word(4)), (at, size)])
    # A `struct msghdr`: no name, the pieces and their number, nothing besides.
    message = _words(e, [word(0), word(0), pieces, word(2), word(0), word(0), word(0)])
    there = _system_call(e, _RECVMSG, [file, message, word(_MSG_PEEK | _MSG_DONTWAIT)])
    length = b.zext(b.bswap(b.load(b.inttoptr(head, POINTER), typ=I32)), I64)
    fits = b.icmp_unsigned("<=", length, size)
    is_whole = b.and_(fits, b.icmp_signed(">=", there, b.add(length, word(4))))
    return b.select(is_whole, length, _NOTHING)


def _skip(e: ThreadEmitter, file: ir.Value, unused: ir.Value, at: ir.Value, size: ir.Value) -> ir.Value:
    b = e.b
    place = b.alloca(I8, word(4 + _LONGEST_SKIPPED))
    most = word(_LONGEST_SKIPPED)
    size = b.select(b.icmp_unsigned("<", size, most), size, most)
    return _system_call(e, _READ, [file, b.ptrtoint(place, I64), b.add(size, word(4))])


_WAYS = {"read": _read, "write": _write, "send": _send, "peek": _peek, "skip": _skip}


def _pieces(e: ThreadEmitter, pieces: list[tuple[ir.Value, ir.Value]]) -> ir.Value:
    """The address of the `struct iovec` of some pieces of this process's memory."""
    return _words(e, [part for piece in pieces for part in piece])


def _words(e: ThreadEmitter, values: Sequence[ir.Value]) -> ir.Value:
    """The address of some words in this process's memory."""
    b = e.b
    place = b.alloca(I64, word(len(values)))
    for number, value in enumerate(values):
        b.store(value, e.at(place, 8 * number))
    return b.ptrtoint(place, I64)


def _system_call(e: ThreadEmitter, number: int, arguments: list[ir.Value]) -> ir.Value:
    constraints = ",".join(("={rax}", "{rax}", *_ARGUMENTS[: len(arguments)], _CLOBBERED))
    kind = ir.FunctionType(I64, [I64] * (1 + len(arguments)))
    return e.b.asm(kind, "syscall", constraints, [word(number), *arguments], True)


def _has_written(e: ThreadEmitter, real: ir.Value, size: ir.Value) -> ir.Value:
    """Log pages of memory that were written; 1 bit: code of them may have been decoded.

    A thread marks a block of code before it reads the block to decode it.
    """
    b = e.b
    last = b.sub(b.add(real, size), word(1))

    def count(shift: int) -> ir.Value:
        return b.add(b.sub(b.lshr(last, word(shift)), b.lshr(real, word(shift))), word(1))

    with e.each(count(PAGE_SHIFT)) as number:
        e.log_page(b.add(real, b.shl(number, word(PAGE_SHIFT))))
    block_shift = CACHE_BLOCK.bit_length() - 1
    marks = b.inttoptr(e.read("code_blocks"), POINTER)
    first, found = b.lshr(real, word(block_shift)), b.alloca(I8)
    b.store(ir.Constant(I8, 0), found)
    with e.each(count(block_shift)) as number:
        mark = b.load(e.at(marks, b.add(first, number)), typ=I8)
        b.store(b.or_(b.load(found, typ=I8), mark), found)
    return b.icmp_unsigned("!=", b.load(found, typ=I8), ir.Constant(I8, 0))
