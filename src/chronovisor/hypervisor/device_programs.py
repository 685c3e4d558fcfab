"""Programs of virtual devices' hypercalls (`hypercall_programs` has the rules that they keep)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from chronovisor.hypervisor.hypercall_declarations import answers, decline_if, end
from chronovisor.hypervisor.interrupt_programs import Source
from chronovisor.isa.hypercall_notation import HypercallMachine
from chronovisor.isa.values import Value
from chronovisor.memory.gate import Place
from chronovisor.memory.guest_memory import PAGE_SHIFT, PAGE_SIZE
from chronovisor.papr import scsi, srp
from chronovisor.papr.hcalls import MOST_STUFFED, Hcall
from chronovisor.timebase.types import Ticks

GATES: Final = 1 << 35
"""A device's gate (`memory.gate`) is the table of the number of its unit with this bit."""

IDLE_GATE: Final = 1 << 36
"""The number of the table that is the gate by which vCPUs in H_CEDE receive a network card's frames."""

SIGNAL_MODES: Final = 1 << 32
"""The table of one word that says whether a device may interrupt (H_VIO_SIGNAL) has the number of its unit
with this bit. The entries of a device's window (TCEs) are the table of the window's number, of 32 bits.
"""

BUFFERS: Final = 1 << 33
"""The queue (`memory.word_queue`) of the buffers that a network card is given has the number of its unit with
this bit.
"""


def _set_entries(
    m: HypercallMachine, count: Value | int, are_set: Callable[..., Value], value: Value
) -> None:
    """Set entries of a device's window, from the page of an I/O address on."""
    window, address = m.gpr[4], m.gpr[5]
    decline_if(m, (window >> 32).ne(0) | (address & (PAGE_SIZE - 1)).ne(0))
    decline_if(m, ~are_set(window, address >> PAGE_SHIFT, count, value))
    end(m)


@answers(Hcall.PUT_TCE)
def _put_tce(m: HypercallMachine) -> None:
    _set_entries(m, 1, m.fill_words, m.gpr[6])


@answers(Hcall.PUT_TCE_INDIRECT)
def _put_tce_indirect(m: HypercallMachine) -> None:
    source, count = m.gpr[6], m.gpr[7]
    decline_if(m, (source & (PAGE_SIZE - 1)).ne(0) | ~(count - 1).ult(PAGE_SIZE // 8))
    _set_entries(m, count, m.copy_words, source)


@answers(Hcall.STUFF_TCE)
def _stuff_tce(m: HypercallMachine) -> None:
    count = m.gpr[7]
    decline_if(m, ~count.ult(MOST_STUFFED + 1))
    _set_entries(m, count, m.fill_words, m.gpr[6])


@answers(Hcall.VIO_SIGNAL)
def _vio_signal(m: HypercallMachine) -> None:
    unit, mode = m.gpr[4], m.gpr[5]
    decline_if(m, (unit >> 32).ne(0) | ~mode.ult(2))
    # In one step, which orders the machine's accesses. The guest next looks whether the device has left it
    # something to do, while the device, having left it something, looks whether it may interrupt the guest.
    table = unit | SIGNAL_MODES
    decline_if(m, ~m.exchange_word(table, 0, m.word(table, 0), mode))
    end(m)


# Devices whose gates are open


class Gate:
    """A device's gate (`memory.gate`), through which a program serves what the guest asks of the device."""

    def __init__(self, m: HypercallMachine, table: Value) -> None:
        self._m = m
        self._table = table

    def word(self, place: Place | Value) -> Value:
        """A word of the device's."""
        return self._m.word(self._table, place if isinstance(place, Value) else int(place))

    def exchange(self, place: Place, expected: Value | int, new: Value | int) -> Value:
        """Set a word in one step if it still is as expected; 1 bit: it was."""
        return self._m.exchange_word(self._table, int(place), expected, new)

    def put(self, place: Place | Value, value: Value | int) -> None:
        """Set a word, having entered."""
        value = value if isinstance(value, Value) else self._m.value(value)
        self._m.fill_words(self._table, place if isinstance(place, Value) else int(place), 1, value)

    def enter(self) -> None:
        """Decline if the gate is closed, or somebody is in it."""
        decline_if(self._m, ~self.exchange(Place.BUSY, 0, 1))
        self.leave_if(self.word(Place.OPEN).eq(0))

    def leave(self) -> None:
        """Let others enter."""
        self.put(Place.BUSY, 0)

    def leave_if(self, condition: Value) -> None:
        """Leave and decline if a condition holds."""
        with self._m.when(condition):
            self.leave()
            self._m.decline()

    def mapped(self, address: Value, size: Value | int, access: Value | int) -> tuple[Value, Value]:
        """The real address of some memory, and 1 bit: the device may use it so.

        Only if it lies in one page of I/O addresses, or in two that lie side by side in memory.
        """
        m, window = self._m, self.word(Place.WINDOW)
        first, last = address >> PAGE_SHIFT, (address + size - 1) >> PAGE_SHIFT
        begin, behind = m.word(window, first), m.word(window, last)
        distance, pages = last - first, ~(PAGE_SIZE - 1)
        usable = (begin & behind & access).eq(access) & distance.ult(2)
        adjoin = ((begin & pages) + (distance << PAGE_SHIFT)).eq(behind & pages)
        return (begin & pages) + (address & (PAGE_SIZE - 1)), usable & adjoin


READ, WRITE = 1, 2
"""What an entry of a window lets the device do."""
_REQUEST: Final = srp.Message.REQUEST << 8 | srp.Format.SRP
"""The first 16 bits of a message that names an SRP unit."""
_DIRECT_COMMAND: Final = 64
"""Bytes of a command with one descriptor."""
_INTO, _OUT = srp.DIRECT, srp.DIRECT << 4
"""The buffer formats of a command with data from the disk alone, and to it alone."""
_DISK: Final = 0x3FFF
"""The bits of a LUN's first two bytes that are 0 for the disk."""
MOST: Final = 4096
"""Bytes of a read or a write that is done here."""
_SECTOR_SHIFT: Final = 9
_LONG: Final = Ticks.from_ns(20_000_000).value
"""Ticks that a write takes only if the host holds it up."""
_ANSWER: Final = srp.response(0, scsi.Status.GOOD, b"", 0, 0)
_ANSWER_WORDS: Final = struct.unpack(">5Q", _ANSWER.ljust(40, b"\0"))
"""The answer, and half a word behind it."""
_TAG_WORD: Final = 1
"""The number of the word that is the command's tag."""
_MESSAGE_SIZE: Final = 16
_MESSAGE_WORD: Final = struct.unpack(">Q8x", srp.answer_message(srp.Format.SRP, len(_ANSWER), 0))[0]
"""The message behind an answer, in front of the tag."""


class _Command:
    """A SCSI command in an SRP unit at a real address; declines those that are not served here.

    These are reads and writes of 10 bytes, of at most `MOST` bytes of data in one piece, that need not be
    safe at once.
    """

    def __init__(self, m: HypercallMachine, at: Value) -> None:
        head, self.tag, lun, rest, cdb, cdb_end, self.address, last = (
            m.load_real(at + place) for place in range(0, _DIRECT_COMMAND, 8)
        )
        form, operation = (head >> 16) & 0xFF, cdb >> 56
        self.reads = form.eq(_INTO) & operation.eq(scsi.Operation.READ_10)
        writes = form.eq(_OUT) & operation.eq(scsi.Operation.WRITE_10)
        decline_if(m, (head >> 56).ne(srp.Opcode.COMMAND) | ~(self.reads | writes))
        # No other unit, no bytes behind the CDB, no flags: the data need not be safe at once.
        flags = (cdb >> 48) & 0xFF
        decline_if(m, (((lun >> 16) & _DISK) | (rest & 0xFC) | flags).ne(0))
        self.first = (cdb >> 16) & 0xFFFF_FFFF
        self.count = (cdb & 0xFF) << 8 | cdb_end >> 56
        self.size = self.count << _SECTOR_SHIFT
        decline_if(m, (last & 0xFFFF_FFFF).ne(self.size) | self.size.eq(0) | ~self.size.ult(MOST + 1))


@answers(Hcall.SEND_CRQ)
def _send_crq(m: HypercallMachine) -> None:
    """Reads or writes a little of a disk, if the host does it at once and only the caller is interrupted."""
    unit, head, address = m.gpr[4], m.gpr[5], m.gpr[6]
    decline_if(m, (unit >> 32).ne(0) | (head >> 48).ne(_REQUEST) | (head & 0xFFFF).ult(_DIRECT_COMMAND))
    gate = Gate(m, unit | GATES)
    decline_if(m, gate.word(Place.OPEN).eq(0))
    at, is_mapped = gate.mapped(address, _DIRECT_COMMAND, READ | WRITE)
    decline_if(m, ~is_mapped)
    command = _Command(m, at)
    decline_if(m, gate.word(Place.SECTORS).ult(command.first + command.count))
    access = m.select(command.reads, m.value(WRITE), m.value(READ))
    data, is_mapped = gate.mapped(command.address, command.size, access)
    # A unit that is read over cannot be looked at again.
    overlaps = (at - data).ult(command.size) | (data - at).ult(_DIRECT_COMMAND)
    decline_if(m, ~is_mapped | overlaps)
    signals = m.word(unit | SIGNAL_MODES, 0).ne(0)
    source = Source(m, gate.word(Place.SOURCE))
    decline_if(m, signals & ~source.can_interrupt)

    gate.enter()
    following, place = gate.word(Place.NEXT), gate.word(Place.QUEUE)
    entry, is_mapped = gate.mapped(place + following, _MESSAGE_SIZE, READ | WRITE)
    gate.leave_if(~is_mapped)
    descriptor, offset = gate.word(Place.DESCRIPTOR), command.first << _SECTOR_SHIFT
    with m.when(command.reads):
        gate.leave_if(m.read_host(descriptor, offset, data, command.size).ne(command.size))
    with m.when(~command.reads):
        gate.leave_if(gate.word(Place.WRITES).eq(0))
        begun = m["TB"]
        written = m.write_host(descriptor, offset, data, command.size)
        with m.when(~(m["TB"] - begun).ult(_LONG)):
            # The device decides when writes come here again.
            gate.put(Place.WRITES, 0)
        gate.leave_if(written.ne(command.size))
    # Data may have come there.
    gate.leave_if((m.load_real(entry) >> 56).ne(0))
    with m.when(signals):
        # If the device does it all once more, that does no harm, and neither does one interrupt too many.
        gate.leave_if(~source.show())
        gate.leave_if(~source.present())

    *words, last = _ANSWER_WORDS
    for number, value in enumerate(words):
        m.store_real(at + (8 * number), command.tag if number == _TAG_WORD else value)
    half = at + (8 * len(words))
    m.store_real(half, (m.load_real(half) & 0xFFFF_FFFF) | last)
    m.store_real(entry + 8, command.tag)
    # Last: the guest may look at any time.
    m.store_real(entry, _MESSAGE_WORD)
    behind = following + _MESSAGE_SIZE
    gate.put(Place.NEXT, m.select(behind.eq(gate.word(Place.QUEUE_SIZE)), m.value(0), behind))
    gate.leave()
    end(m)
    m.resync()
