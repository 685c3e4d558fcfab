"""A thread whose registers are in memory that native code reads and writes."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, MutableSequence
from functools import partial
from typing import Literal, Protocol, SupportsIndex, cast, overload

from chronovisor.engine.live_registers import NOT_LENT, LiveRegisters
from chronovisor.engine.native.layout import ModePages, Peers, WordTables
from chronovisor.engine.native.library import runtime
from chronovisor.engine.native.operations import ATOMIC_SIZES, has_wide_atomics
from chronovisor.engine.native.state_layout import OFFSETS, SAMPLES, STORED, Registers, Sample, file_field
from chronovisor.engine.native.translations import ThreadContexts
from chronovisor.engine.state import REAL_MODE_MASK, CodeCache, Thread
from chronovisor.engine.translation import Translations
from chronovisor.isa.bits import MSR
from chronovisor.isa.interrupts import INTERRUPT_NUMBERS
from chronovisor.isa.registers import FILES, REGISTERS, SHARED_WORDS, RegisterFile
from chronovisor.memory.guest_memory import AddressError, GuestMemory

NO_RESERVATION = (1 << 64) - 1


class WideRegisters(MutableSequence[int]):
    """The registers of a file wider than 64 bits, where native code keeps them."""

    def __init__(self, thread: Registers, file: RegisterFile) -> None:
        self._size = file.width // 8
        self._count = file.count
        at = ctypes.addressof(thread) + OFFSETS[file_field(file)]
        whole = (ctypes.c_ubyte * (self._size * file.count)).from_address(at)
        self._bytes = memoryview(whole).cast("B")

    def __len__(self) -> int:
        return self._count

    def _place(self, index: SupportsIndex) -> slice:
        number = range(self._count)[index]
        return slice(number * self._size, (number + 1) * self._size)

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> list[int]: ...

    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [self[number] for number in range(self._count)[index]]
        return int.from_bytes(self._bytes[self._place(index)], sys.byteorder)

    @overload
    def __setitem__(self, index: int, value: int) -> None: ...

    @overload
    def __setitem__(self, index: slice, value: Iterable[int]) -> None: ...

    def __setitem__(self, index: int | slice, value: int | Iterable[int]) -> None:
        if isinstance(index, slice):
            for number, each in zip(range(self._count)[index], value, strict=True):  # type: ignore[arg-type]
                self[number] = each
        else:
            assert isinstance(value, int)
            self._bytes[self._place(index)] = value.to_bytes(self._size, sys.byteorder)

    def __delitem__(self, index: int | slice) -> None:
        raise TypeError("a register file keeps its length")

    def insert(self, index: int, value: int) -> None:
        """Refuse: TypeError."""
        raise TypeError("a register file keeps its length")


def _view(thread: Registers, file: RegisterFile) -> MutableSequence[int]:
    """The registers of a file. A field of the structure would make a new array at each access."""
    if file.width > 64:
        return WideRegisters(thread, file)
    at = ctypes.addressof(thread) + OFFSETS[file_field(file)]
    return cast("MutableSequence[int]", (ctypes.c_uint64 * file.count).from_address(at))


class NativeSharedWords:
    """The words that a thread shares with its hypervisor, where native code changes them."""

    __slots__ = ("_at", "_exchange", "words")

    def __init__(self, thread: int) -> None:
        self._at = thread + OFFSETS["shared_words"]
        words = (ctypes.c_uint64 * SHARED_WORDS).from_address(self._at)
        self.words = cast("MutableSequence[int]", memoryview(words).cast("B").cast("Q"))
        self._exchange = runtime().exchange_word

    def exchange(self, number: int, expected: int, new: int) -> bool:
        """Set a word if it still is as expected; whether it was."""
        done: bool = self._exchange(self._at + 8 * number, expected, new)
        return done


class NativeGuest(CodeCache, Protocol):
    """What native code shares among the threads of a guest."""

    code_blocks_at: int
    """The address of the map of decoded blocks."""
    page_contents: ctypes.Array[ctypes.c_uint64]
    """What each page held when a fetch was last led to it."""
    watched_pages_at: int
    """The address of a byte for each page (`WATCHED`); 0 if no page is watched."""
    modes: ctypes.Array[ModePages]
    peers: Peers
    native_word_tables: WordTables


#: A sample: the numbers that are the fields of `Sample`, in their order.
Taken = tuple[int, int, int, int, int]
_SAMPLE = struct.Struct(f"{len(Sample._fields_)}Q")

_SF, _LE, _DR = int(MSR.SF), int(MSR.LE), int(MSR.DR)


class NativeThread(Registers, Thread):
    """A thread's registers as a structure in memory; everything of :class:`Thread` works on it too."""

    # An attribute of a structure takes five times as long if it has no slot.
    __slots__ = (
        *("_contexts", "_counted_before", "_known_forgotten", "_ordering", "_samples", "arguments"),
        *("at", "code", "executed", "guest", "interpreted", "lent_deadline", "lent_level", "live"),
        *("look_due", "memory", "reference", "samples_taken", "shared", "translations"),
        *(file.attribute for file in FILES.values()),
    )

    def __new__(cls, *_: object) -> NativeThread:
        """A thread whose structure begins a page of the machine's memory.

        So its fields lie in the processor's cache lines alike in each thread.
        """
        return cls.from_buffer(mmap.mmap(-1, ctypes.sizeof(cls)))

    def __init__(self, memory: GuestMemory, live: LiveRegisters, guest: NativeGuest) -> None:
        super().__init__()
        self.guest = guest
        self.at = ctypes.addressof(self)
        """Where the structure is."""
        # Not of `self`: the garbage collector does not see through it and would never free this.
        self.reference = ctypes.byref(ctypes.c_char.from_address(self.at))
        for file in FILES.values():
            setattr(self, file.attribute, _view(self, file))
        samples = (ctypes.c_ubyte * (SAMPLES * _SAMPLE.size)).from_address(self.at + OFFSETS["samples"])
        self._samples = memoryview(samples).cast("B")
        self.code = guest
        self.code_blocks = guest.code_blocks_at
        self.modes = ctypes.addressof(guest.modes)
        self.peers = ctypes.addressof(guest.peers)
        self.word_tables = ctypes.addressof(guest.native_word_tables)
        self._contexts = ThreadContexts()
        self.contexts = self._contexts.address
        self.translations = Translations()
        self._known_forgotten = 0
        self.lent_deadline = self.lent_level = 0
        self.purr_ahead = self.spurr_ahead = NOT_LENT
        self.look_due = 0
        """When the number of samples is looked at next, as a count of `executed`."""
        self.samples_taken = 0
        """How many samples of where the thread was have been looked at."""
        self._counted_before = 0
        self.memory = memory
        self.live = live
        self.executed = 0
        self.interpreted = 0
        """How many instructions the concrete evaluator has executed, of all that the thread has."""
        self.now, self.reach = runtime().now_address, runtime().reach_address
        self.end_of_piece, self.plain = runtime().end_of_piece_address, runtime().plain_address
        for field, address in runtime().finding_addresses.items():
            setattr(self, field, address)
        self.memory_at = ctypes.addressof(ctypes.c_char.from_buffer(memory.data))
        self.memory_size = memory.size
        self.watched_pages = guest.watched_pages_at
        for name in STORED:
            setattr(self, name, REGISTERS[name].reset)
        self.reservation = None
        self.shared = NativeSharedWords(self.at)
        self.page_contents = ctypes.addressof(guest.page_contents)
        self.dirty_pages = ctypes.addressof(ctypes.c_char.from_buffer(memory.dirty.pages))
        self.set_msr(self.MSR)
        self._ordering = threading.Lock()
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self.bell)

    @property
    def CR(self) -> int:
        """The condition register. The structure has each of its fields in a byte, the first field first."""
        return int(self.CR_FIELDS.to_bytes(8, "little").hex()[1::2], 16)

    @CR.setter
    def CR(self, value: int) -> None:
        self.CR_FIELDS = int.from_bytes(bytes.fromhex("0" + "0".join(f"{value & 0xFFFFFFFF:08x}")), "little")

    def request_exit(self) -> None:
        """Have a run come back soon, even from a nap. From any thread."""
        self.exit_request = 1
        self._ring()

    def notice_line(self) -> None:
        """Have the thread see that the first shared word raises the external interrupt. From any thread."""
        if self.ticks_per_instruction:
            self.request_exit()
        else:
            # Native code looks at the word by itself.
            self._ring()

    def _ring(self) -> None:
        """End a nap of the thread's."""
        # Taking a lock orders this thread's accesses: it looks behind what it has just changed.
        # By name: a `with` takes longer than the lock itself.
        self._ordering.acquire()
        self._ordering.release()
        if self.napping:
            os.eventfd_write(self.bell, 1)

    def entered_natively(self, interrupt: str) -> int:
        """How often native code has entered an interrupt of this name.

        Those that come behind an instruction, such as system calls, are not counted.
        """
        count: int = self.interrupts[INTERRUPT_NUMBERS[interrupt]]
        return count

    def take_samples(self) -> list[Taken]:
        """The samples that native code has left for Python since the last call, the oldest first.

        Too many are written over from the first one on.
        """
        count = self.sample_count
        first, self.samples_taken = max(self.samples_taken, count - SAMPLES), count
        begin, end = first % SAMPLES * _SAMPLE.size, count % SAMPLES * _SAMPLE.size
        pieces = [self._samples[begin:end]] if begin < end else [self._samples[begin:], self._samples[:end]]
        found = [one for piece in pieces for one in _SAMPLE.iter_unpack(piece)]
        return cast("list[Taken]", found if first < count else [])

    def take_counted(self) -> int:
        """How many samples were only counted since this was called last."""
        before, self._counted_before = self._counted_before, self.samples_counted
        return self._counted_before - before

    def reader(self, first: int, count: int) -> Callable[[], tuple[int, ...]]:
        """What reads so many general purpose registers from number `first` on, at each call."""
        # Several times as fast as a slice of an array.
        registers = memoryview(cast("ctypes.Array[ctypes.c_uint64]", self.gpr)).cast("B")
        return partial(struct.Struct(f"{count}Q").unpack, registers[8 * first : 8 * (first + count)])

    @property
    def mode(self) -> tuple[bool, bool]:  # type: ignore[override]
        """Whether the thread is in 64-bit mode, and whether it is little-endian."""
        return (bool(self.MSR & _SF), bool(self.MSR & _LE))

    def set_msr(self, value: int) -> None:
        """Set MSR and what follows from it for the concrete evaluator. Native code adopts its context."""
        self.MSR = value
        self.ea_mask = REAL_MODE_MASK if value & _SF else 0xFFFFFFFF
        self.data_translation = bool(value & _DR)
        self.translations.choose(self)

    def catch_up(self) -> None:
        """Take over what native code did to MSR and to the registers that translation depends on."""
        self.set_msr(self.MSR)

    def address(self, ea: int, store: bool) -> int:
        """The guest real address behind an effective address; a storage interrupt if there is none."""
        self._forget_if_told()
        return super().address(ea, store)

    def fetch_address(self) -> int:
        """The guest real address of the instruction at CIA; an instruction storage interrupt if there is
        none.
        """
        self._forget_if_told()
        return super().fetch_address()

    def _forget_if_told(self) -> None:
        """Have the concrete evaluator forget what native code of this thread or another has invalidated."""
        if self.forgotten != self._known_forgotten:
            self._known_forgotten = self.forgotten
            self.translations.forget()
            self.translations.choose(self)

    def forget_translations(self, whose: str) -> None:
        """Look translations up anew: this thread's (`own`) or every thread's (`all`)."""
        if whose == "own":
            runtime().ask_flush(self.at)
            return
        # The thread uses no translation now. Others may be waiting for it, as it waits for them.
        self.inside = 0
        self.code.forget_translations()
        self.inside = 1

    def exchange(self, address: int, expected: int, new: int, size: int, little: bool) -> bool:
        """With the machine's own instruction: native code of other threads heeds no lock of Python's."""
        if size not in ATOMIC_SIZES[has_wide_atomics()]:
            return super().exchange(address, expected, new, size, little)
        if address + size > self.memory.size:
            raise AddressError(address, size, self.memory.size)
        self.memory.about_to_store(address, size)
        order: Literal["little", "big"] = "little" if little else "big"
        place = self.memory_at + address
        done: bool = runtime().exchange(
            place, size, expected.to_bytes(size, order), new.to_bytes(size, order)
        )
        if done:
            self.memory.dirty.mark(address, size)
        return done

    @property
    def reservation(self) -> tuple[int, int, int] | None:
        """The reservation as (real address, bytes, value read); None if the thread has none."""
        if self.reserved_address == NO_RESERVATION:
            return None
        value = (self.reserved_high << 64) | self.reserved_low
        return self.reserved_address, self.reserved_size, value

    @reservation.setter
    def reservation(self, made: tuple[int, int, int] | None) -> None:
        if made is None:
            self.reserved_address = NO_RESERVATION
        else:
            self.reserved_address, self.reserved_size, value = made
            self.reserved_low, self.reserved_high = value & ((1 << 64) - 1), value >> 64
