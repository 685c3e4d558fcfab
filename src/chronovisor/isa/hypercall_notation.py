"""The notation of programs that answer hypercalls: what ``m`` offers to them beside what it offers to
instructions.
"""

from __future__ import annotations

from chronovisor.isa.notation import Machine
from chronovisor.isa.source_lines import NOTATION
from chronovisor.isa.values import Value

NOTATION.add(__file__)


class HypercallMachine(Machine):
    """A thread that has made a hypercall, as a program sees it."""

    def shared(self, number: int) -> Value:
        """A word that the thread shares with its hypervisor. The hypervisor may change it at any time."""
        return self.trace.emit("read_shared", 64, (), number)

    def exchange_shared(self, number: int, expected: Value, new: Value) -> Value:
        """Set a shared word in one step if it still is as expected; 1 bit: it was."""
        return self.trace.emit("exchange_shared", 1, (expected, new), number)

    def zero_page(self, page: Value) -> Value:
        """Make a page of 4 KiB at a real address zeros; 1 bit: there is memory."""
        return self.trace.emit("init_page", 1, (page, page), "zero")

    def copy_page(self, page: Value, source: Value) -> Value:
        """Make a page of 4 KiB at a real address what another one is; 1 bit: there is memory at both."""
        return self.trace.emit("init_page", 1, (page, source), "copy")

    def fill_words(self, table: Value, first: Value | int, count: Value | int, value: Value) -> Value:
        """Make words of a table that hypercalls set one value; 1 bit: there is such a table, and has them."""
        return self._set_words("fill", table, first, count, value)

    def copy_words(self, table: Value, first: Value | int, count: Value | int, source: Value) -> Value:
        """Make words of a table the big-endian doublewords at a real address; 1 bit: as above, and there is
        memory.
        """
        return self._set_words("copy", table, first, count, source)

    def _set_words(self, how: str, table: Value, *operands: Value | int) -> Value:
        return self.trace.emit("set_words", 1, (table, *map(self.value, operands)), how)

    def word(self, table: Value, number: Value | int) -> Value:
        """A word of such a table, or 0 if the table or the word does not exist.

        Others may change it at any time.
        """
        return self.trace.emit("read_word", 64, (table, self.value(number)))

    def exchange_word(
        self, table: Value, number: Value | int, expected: Value | int, new: Value | int
    ) -> Value:
        """Set a word of such a table in one step if it still is as expected; 1 bit: it was."""
        return self.trace.emit("exchange_word", 1, (table, *map(self.value, (number, expected, new))))

    def read_host(self, descriptor: Value, offset: Value, real: Value, size: Value) -> Value:
        """Have the machine read from one of its files into memory at a real address, if it can at once.

        How many bytes it has read; another number if it cannot, or if it may have read over code, which has
        to be decoded anew. Offset and size are in bytes.
        """
        return self._host_io("read", descriptor, offset, real, size)

    def write_host(self, descriptor: Value, offset: Value, real: Value, size: Value) -> Value:
        """Have the machine write memory to one of its files; how many bytes it has, as `read_host`."""
        return self._host_io("write", descriptor, offset, real, size)

    def send_host(self, descriptor: Value, head: Value, real: Value, size: Value) -> Value:
        """Have the machine send memory, behind the 4 bytes of a number unless that is all ones, without
        waiting; how many bytes it has, or another number.
        """
        return self._host_io("send", descriptor, head, real, size)

    def _host_io(self, how: str, *operands: Value) -> Value:
        return self.trace.emit("host_io", 64, operands, how)

    def peek_host(self, descriptor: Value, real: Value, room: Value) -> Value:
        """Look at what a connection has next, if that is whole behind its size in 4 bytes, and fits into so
        many bytes of memory, which it is copied to; its size, or a number larger than the room.
        """
        return self._host_io("peek", descriptor, self.value(0), real, room)

    def skip_host(self, descriptor: Value, size: Value) -> Value:
        """Take what was looked at; 64 bits: how many bytes those were, with the 4 in front."""
        return self._host_io("skip", descriptor, self.value(0), self.value(0), size)

    def nap(self, ticks: Value, descriptor: Value) -> Value:
        """Do nothing until one of the machine's files can be read (none if its descriptor is all ones), an
        external interrupt waits, or the hypervisor wants something of the thread: at most for so many ticks
        and for as long as the hypervisor allows. 1 bit: the file can be read.
        """
        return self.trace.emit("nap", 1, (ticks, descriptor))

    def alarm(self, timer: Value, ticks: Value | int) -> Value:
        """Have one of the machine's timers go off after so many ticks, less than a second, or not at all (0);
        1 bit: done.
        """
        return self.trace.emit("alarm", 1, (timer, self.value(ticks)))

    def watch(self, epoll: Value, descriptor: Value, told: Value | int) -> Value:
        """Have who waits by an epoll instance be told of a file, or not (0); 1 bit: done."""
        return self.trace.emit("watch", 1, (epoll, descriptor, self.value(told)))

    def decline(self) -> None:
        """End, and leave the hypercall to the hypervisor's own code. Nothing may have been changed."""
        self.trace.emit("decline", 0)
