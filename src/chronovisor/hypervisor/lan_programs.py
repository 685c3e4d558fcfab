"""Programs of a network card's hypercalls, and what a vCPU in H_CEDE does with frames that come
(`hypercall_programs` has the rules that they keep).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from chronovisor.hypervisor.device_programs import (
    BUFFERS,
    GATES,
    IDLE_GATE,
    MOST,
    READ,
    SIGNAL_MODES,
    WRITE,
    Gate,
)
from chronovisor.hypervisor.hypercall_declarations import answers, decline_if, end
from chronovisor.hypervisor.interrupt_programs import Source
from chronovisor.hypervisor.xics import PRESENTER_WORD
from chronovisor.isa.hypercall_notation import HypercallMachine
from chronovisor.isa.values import Value
from chronovisor.memory.gate import MOST_LENT, Place
from chronovisor.memory.guest_memory import PAGE_SIZE
from chronovisor.memory.word_queue import FIRST, LIMIT, PLACES, TAIL
from chronovisor.papr.hcalls import LAN_HEADER, SHORTEST_FRAME, Hcall
from chronovisor.papr.logical_lan import EntryFlag
from chronovisor.timebase.types import Ticks

_ENTRY_SIZE: Final = 16
"""Bytes of an entry of the receive queue."""
_NONE: Final = (1 << 64) - 1
"""What stands for no file, and what no word is that says yes or no."""


@answers(Hcall.SEND_LOGICAL_LAN)
def _send_lan(m: HypercallMachine) -> None:
    """Sends a frame that lies in one piece, if the other end takes it at once."""
    unit, piece, second, token = m.gpr[4], m.gpr[5], m.gpr[6], m.gpr[11]
    size = (piece >> 32) & 0xFF_FFFF
    decline_if(m, (unit >> 32).ne(0) | (piece >> 63).eq(0) | (second >> 63).ne(0) | token.ne(0))
    decline_if(m, size.ult(SHORTEST_FRAME) | ~size.ult(MOST + 1))
    gate = Gate(m, unit | GATES)
    frame, is_mapped = gate.mapped(piece & 0xFFFF_FFFF, size, READ)
    decline_if(m, ~is_mapped)
    gate.enter()
    prefixed = gate.word(Place.PREFIXED).ne(0)
    whole = size + m.select(prefixed, m.value(4), m.value(0))
    head = m.select(prefixed, size, m.value((1 << 64) - 1))
    sent = m.send_host(gate.word(Place.DESCRIPTOR), head, frame, size)
    with m.when(sent.ult(whole) & sent.ne(0)):
        # Nobody can go on behind a part of a frame.
        gate.put(Place.OPEN, 0)
        gate.put(Place.CUT, 1)
    gate.leave_if(sent.ne(whole))
    gate.leave()
    m.gpr[4] = m.value(0)
    end(m)


# Frames that come

_SIZE_SHIFT: Final = 32
_SIZE: Final = 0xFF_FFFF
"""The bits of a buffer's descriptor that are its size, and how far they are from the right end."""


class _Lent(Gate):
    """The gate by which vCPUs in H_CEDE receive frames, and the buffers that the card lends them."""

    def __init__(self, m: HypercallMachine) -> None:
        super().__init__(m, m.value(IDLE_GATE))

    def is_left(self) -> Value:
        """1 bit: there is a buffer that was not used."""
        return self.word(Place.USED).ult(self.word(Place.LENT) + self.word(Place.ADDED))

    def takes(self, size: Value) -> Value:
        """1 bit: a buffer of this size may take the place of one that was used."""
        is_alike = self._size(self.word(Place.BUFFER)).eq(size)
        return self.word(Place.OPEN).ne(0) & is_alike & self.word(Place.ADDED).ult(self.word(Place.USED))

    def add(self, buffer: Value) -> None:
        """Have another buffer, having entered."""
        added = self.word(Place.ADDED)
        self.put(self._place(self.word(Place.LENT) + added), buffer)
        self.put(Place.ADDED, added + 1)

    def first(self) -> tuple[Value, Value]:
        """The I/O address and the size of the buffer that is next."""
        buffer = self.word(self._place(self.word(Place.USED)))
        return buffer & 0xFFFF_FFFF, self._size(buffer)

    def _place(self, number: Value) -> Value:
        return (number & (MOST_LENT - 1)) + int(Place.BUFFER)

    def _size(self, buffer: Value) -> Value:
        return (buffer >> _SIZE_SHIFT) & _SIZE


@answers(Hcall.ADD_LOGICAL_LAN_BUFFER)
def _add_lan_buffer(m: HypercallMachine) -> None:
    """Lends the buffer to vCPUs in H_CEDE in place of one that they have used, or leaves it in the card's
    queue, if that takes one.
    """
    unit, buffer = m.gpr[4], m.gpr[5]
    size = (buffer >> _SIZE_SHIFT) & _SIZE
    decline_if(m, (unit >> 32).ne(0) | (buffer >> 63).eq(0) | size.ult(LAN_HEADER + 1) | (buffer & 3).ne(0))
    lent = _Lent(m)
    wanted = lent.takes(size) & lent.word(Place.UNIT).eq(unit)
    has_entered = lent.exchange(Place.BUSY, m.select(wanted, m.value(0), m.value(_NONE)), 1)
    is_lent = has_entered & lent.takes(size)
    with m.when(is_lent):
        lent.add(buffer)
    with m.when(has_entered):
        lent.leave()
    with m.when(~is_lent):
        queue = unit | BUFFERS
        tail = m.word(queue, TAIL)
        decline_if(m, ~tail.ult(m.word(queue, LIMIT)))
        decline_if(m, ~m.exchange_word(queue, TAIL, tail, tail + 1))
        place = (tail & (PLACES - 1)) + FIRST
        decline_if(m, ~m.fill_words(queue, place, 1, buffer))
    end(m)


_SOON: Final = Ticks.from_ns(500_000).value
"""How long the card's thread leaves frames to a vCPU that has just received one."""
_TOGGLE_SHIFT: Final = EntryFlag.TOGGLE.bit_length() - 1


class Listening:
    """A network card whose frames the calling vCPU waits for in H_CEDE, in the place of the card's thread."""

    def __init__(self, m: HypercallMachine, wanted: Value) -> None:
        self._m = m
        gate = self._gate = _Lent(m)
        able = gate.word(Place.OPEN).ne(0) & gate.is_left()
        wanted = wanted & able & m.shared(PRESENTER_WORD).ne(0)
        self._listens = gate.exchange(Place.LISTENER, m.select(wanted, m.value(0), m.value(_NONE)), 1)
        self._epoll, self._file = gate.word(Place.WATCH), gate.word(Place.DESCRIPTOR)
        self.file = m.select(self._listens, self._file, m.value(_NONE))
        """The descriptor of what frames come from; all ones if it waits for none."""
        with m.when(self._listens):
            was_watched = gate.word(Place.WATCHED).ne(0)
            with m.when(was_watched):
                m.watch(self._epoll, self._file, 0)
            with m.when(~was_watched):
                m.alarm(gate.word(Place.ALARM), 0)
            gate.put(Place.WATCHED, 1)

    def end(self) -> None:
        """Have the card's thread wait again: it takes what is left.

        A vCPU that has just received a frame may soon wait for the next one. Until then the thread sleeps on,
        if a buffer is left for that.
        """
        m, gate = self._m, self._gate
        with m.when(self._listens):
            is_watched = gate.word(Place.WATCHED).ne(0) | ~gate.is_left()
            with m.when(is_watched):
                gate.put(Place.WATCHED, 1)
                m.watch(self._epoll, self._file, 1)
            with m.when(~is_watched):
                m.alarm(gate.word(Place.ALARM), _SOON)
            gate.put(Place.LISTENER, 0)

    def receive(self) -> None:
        """Put one or two frames that have come into buffers, if they are short, and interrupt the guest."""
        m, gate = self._m, self._gate
        with m.when(gate.exchange(Place.BUSY, 0, 1)):
            with m.when(gate.word(Place.OPEN).ne(0)):
                self._put_frame(interrupts=True)
                with m.when(gate.word(Place.WATCHED).eq(0)):
                    # Another one needs no interrupt of its own: the guest has executed nothing since.
                    self._put_frame(interrupts=False)
            gate.leave()

    def _put_frame(self, interrupts: bool) -> None:
        m, gate = self._m, self._gate
        is_left = gate.is_left()
        buffer, size = gate.first()
        most = m.value(PAGE_SIZE)
        room = m.select(size.ult(most), size, most)
        start, is_mapped = gate.mapped(buffer, room, READ | WRITE)
        queue, following = gate.word(Place.QUEUE), gate.word(Place.NEXT)
        entry, has_entry = gate.mapped(queue + following, _ENTRY_SIZE, READ | WRITE)
        signals = m.word(gate.word(Place.UNIT) | SIGNAL_MODES, 0).ne(0)
        source = Source(m, gate.word(Place.SOURCE))
        able = is_left & is_mapped & has_entry
        if interrupts:
            able = able & signals & source.can_interrupt
        with m.when(able):
            at = start + LAN_HEADER
            frame = m.peek_host(self._file, at, room - LAN_HEADER)
            head = m.load_real(at)
            is_ours = (head >> 16).eq(gate.word(Place.ADDRESS)) | ((head >> 56) & 1).ne(0)
            is_good = frame.ult(most) & ~frame.ult(SHORTEST_FRAME) & is_ours
            with ExitStack() as conditions:
                conditions.enter_context(m.when(is_good))
                if interrupts:
                    # One interrupt too many does no harm.
                    conditions.enter_context(m.when(source.show()))
                    conditions.enter_context(m.when(source.present()))
                m.skip_host(self._file, frame)
                m.store_real(entry + 8, m.load_real(start))
                toggle = gate.word(Place.TOGGLE)
                # Last: the guest may look at any time.
                m.store_real(entry, ((gate.word(Place.FLAGS) | (toggle << _TOGGLE_SHIFT)) << 32) | frame)
                behind = following + _ENTRY_SIZE
                wraps = behind.eq(gate.word(Place.QUEUE_SIZE))
                gate.put(Place.NEXT, m.select(wraps, m.value(0), behind))
                gate.put(Place.TOGGLE, toggle ^ wraps.zext(64))
                gate.put(Place.USED, gate.word(Place.USED) + 1)
                gate.put(Place.WATCHED, 0)
