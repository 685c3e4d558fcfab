"""A thread's state over ints: what the concrete evaluator reads and writes."""

from __future__ import annotations

import contextlib
import sys
from array import array
from collections.abc import Callable, Mapping, MutableSequence
from typing import Protocol

from chronovisor.engine.endings import GuestInterrupt, TableChanged
from chronovisor.engine.hypercalls import PlainSharedWords, SharedWords
from chronovisor.engine.live_registers import LiveRegisters
from chronovisor.engine.translation import PAGE_MASK, PAGE_SHIFT, Translations, looked_up
from chronovisor.isa.bits import DSISR, LPCR, MSR
from chronovisor.isa.radix import Access
from chronovisor.isa.registers import FILES, REGISTERS, TRANSLATION_CONTEXT
from chronovisor.memory.guest_memory import PAGE_SIZE, AddressError, GuestMemory

#: Real mode ignores the four most significant bits of an effective address (Book III 5.7.3).
REAL_MODE_MASK = (1 << 60) - 1

CACHE_BLOCK = 128


class CodeCache(Protocol):
    """What the threads of a guest share: decoded instructions, and who has to look up translations anew."""

    def forget(self, address: int) -> None:
        """Decode the block that holds the real address anew before it is executed again."""

    def forget_translations(self) -> None:
        """Have every thread of the guest look its translations up anew."""

    @property
    def word_tables(self) -> Mapping[int, memoryview]:
        """The tables of words that hypercalls set, by their numbers."""

    def exchange_word(self, table: int, number: int, expected: int, new: int) -> bool:
        """Set a word of a table if it still is as expected; whether it was. One step for all threads."""


class StoredRegisters:
    """An attribute for every stored register of the table, with its reset value."""

    __slots__ = tuple(r.name for r in REGISTERS.values() if not r.live)

    CIA: int
    NIA: int
    MSR: int
    CR: int
    XER: int
    LR: int
    CTR: int
    DAR: int
    DSISR: int
    SIAR: int
    SRR0: int
    SRR1: int
    LPCR: int
    DPDES: int

    def __init__(self) -> None:
        for name in StoredRegisters.__slots__:
            setattr(self, name, REGISTERS[name].reset)


class Thread:
    """A thread: its registers, its view of memory and time, and its reservation.

    ``executed`` counts instructions; it never goes back. ``CIA`` is the next instruction's address
    while the thread is stopped. Where the registers lie is a subclass's matter: every stored register
    of the table is an attribute of its name.
    """

    gpr: MutableSequence[int]
    vsr: MutableSequence[int]
    CIA: int
    NIA: int
    MSR: int
    LPCR: int
    PATE1: int
    PIDR: int
    AMR: int
    IAMR: int
    DPDES: int
    SIAR: int
    DAR: int
    DSISR: int
    ea_mask: int
    translations: Translations
    data_translation: bool
    mode: tuple[bool, bool]
    memory: GuestMemory
    live: LiveRegisters
    code: CodeCache
    executed: int
    #: Set from another thread, to have a run come back before its budget is used up: soon, not at once.
    exit_request: int
    #: The most ticks for which the thread may nap within a hypercall: less than a second.
    most_nap: int
    #: For native code: see `CounterTime`.
    tb_adjust: int
    purr_ahead: int
    spurr_ahead: int
    reservation: tuple[int, int, int] | None
    shared: SharedWords
    #: The bits of the first shared word any of which raises the external interrupt.
    line_mask: int
    #: Reads the arguments of a hypercall that the thread has made.
    arguments: Callable[[], tuple[int, ...]]
    #: Which programs may answer hypercalls, by their places, and how many hypercalls they have answered.
    answers: int
    hypercalls_answered: int
    #: The latest interrupt that an instruction ended in: its number (0: none), the address where it came, DAR
    #: and the vector. If a handler's first instruction fails, the interrupt that called the handler stays.
    latest_interrupt: int
    latest_address: int
    latest_dar: int
    latest_vector: int

    def request_exit(self) -> None:
        """Have a run come back soon, even from a nap. From any thread."""
        self.exit_request = 1

    def notice_line(self) -> None:
        """Have the thread see that the first shared word raises the external interrupt. From any thread."""
        self.request_exit()

    def entered_natively(self, interrupt: str) -> int:
        """How often native code has entered an interrupt of this name."""
        return 0

    def get(self, name: str) -> int:
        """A stored register by its name."""
        return int(getattr(self, name))

    def set(self, name: str, value: int) -> None:
        """Set a stored register by its name, cut to its width."""
        value &= REGISTERS[name].mask
        if name == "MSR":
            self.set_msr(value)
        else:
            setattr(self, name, value)
            if name in TRANSLATION_CONTEXT:
                self.new_context()

    def reader(self, first: int, count: int) -> Callable[[], tuple[int, ...]]:
        """What reads so many general purpose registers from number `first` on, at each call."""
        return lambda: tuple(self.gpr[first : first + count])

    def set_msr(self, value: int) -> None:
        """Set MSR and what follows from it."""
        self.MSR = value
        self.ea_mask = 0xFFFFFFFF if not value & MSR.SF else REAL_MODE_MASK
        self.data_translation = bool(value & MSR.DR)
        self.mode = (bool(value & MSR.SF), bool(value & MSR.LE))
        self.translations.choose(self)

    def new_context(self) -> None:
        """Take over that registers changed which address translation depends on."""
        self.translations.choose(self)

    def forget_translations(self, whose: str) -> None:
        """Look translations up anew: this thread's (`own`) or every thread's (`all`)."""
        if whose == "own":
            self.translations.forget()
        else:
            self.code.forget_translations()

    # Memory, at real addresses

    def load_real(self, address: int) -> int:
        """The big-endian doubleword at a real address; 0 if it lies outside memory."""
        try:
            return self.memory.unwatched.load(address, 8, False)
        except AddressError:
            return 0

    def store_real(self, address: int, value: int) -> None:
        """Store a big-endian doubleword at a real address; nothing if some of it lies outside memory."""
        with contextlib.suppress(AddressError):
            self.memory.unwatched.store(address, 8, value, False)

    def update_real(self, address: int, old: int, new: int) -> None:
        """Replace the big-endian doubleword at a real address; TableChanged if it is no longer `old`."""
        # A watchpoint is about what instructions access, not about what it takes to find that.
        memory, self.memory = self.memory, self.memory.unwatched
        try:
            if not self.exchange(address, old, new, 8, False):
                raise TableChanged
        finally:
            self.memory = memory

    # Memory, at effective addresses

    def address(self, ea: int, store: bool) -> int:
        """The guest real address behind an effective address; a storage interrupt if there is none."""
        if not self.data_translation:
            return ea & self.ea_mask
        if not self.mode[0]:
            ea &= 0xFFFFFFFF
        if not self.LPCR & LPCR.HR:
            # Hashed page tables are not there.
            self._storage_fault(ea, DSISR.NO_TRANSLATION, store)
        access = Access.STORE if store else Access.LOAD
        distance = self.translations.pages[access].get(ea >> PAGE_SHIFT)
        return self.translations.walk(self, ea, access) if distance is None else ea + distance

    def fetch_address(self) -> int:
        """The guest real address of the instruction at CIA; an instruction storage interrupt if there is
        none.
        """
        ea = self.CIA
        if not self.MSR & MSR.IR:
            return ea & self.ea_mask
        if not self.LPCR & LPCR.HR:
            raise GuestInterrupt("INSTRUCTION_STORAGE", int(DSISR.NO_TRANSLATION))
        distance = self.translations.pages[Access.FETCH].get(ea >> PAGE_SHIFT)
        return self.translations.walk(self, ea, Access.FETCH) if distance is None else ea + distance

    def looked_up(self, ea: int) -> int | None:
        """The real address to which an effective address leads, for a debugger; None if to none.

        Permissions do not count, and nothing that the guest can see changes.
        """
        if not self.MSR & MSR.SF:
            ea &= 0xFFFFFFFF
        if self.MSR & MSR.DR:
            found = looked_up(self, self.load_real, ea) if self.LPCR & LPCR.HR else None
        else:
            found = ea & REAL_MODE_MASK
        return found if found is not None and found < self.memory.size else None

    def _storage_fault(self, ea: int, why: int, store: bool) -> None:
        self.DAR = ea if self.MSR & MSR.SF else ea & 0xFFFFFFFF
        self.DSISR = int(why | (DSISR.STORE if store else 0))
        raise GuestInterrupt("DATA_STORAGE")

    def load(self, ea: int, size: int, little: bool) -> int:
        """``size`` bytes; data storage interrupt if there is no memory."""
        if (first := PAGE_MASK + 1 - (ea & PAGE_MASK)) < size:
            low, high = self.load(ea, first, little), self.load(ea + first, size - first, little)
            return (high << (8 * first)) | low if little else (low << (8 * (size - first))) | high
        try:
            return self.memory.load(self.address(ea, False), size, little)
        except AddressError:
            self._storage_fault(ea, DSISR.PROTECTION, False)
            raise

    def store(self, ea: int, value: int, size: int, little: bool) -> None:
        """Store ``size`` bytes; data storage interrupt if there is no memory."""
        if (first := PAGE_MASK + 1 - (ea & PAGE_MASK)) < size:
            data = (value & ((1 << (8 * size)) - 1)).to_bytes(size, "little" if little else "big")
            # Both pages are looked at before either is written: an interrupted store stores nothing.
            self.probe(ea, "store")
            self.probe(ea + first, "store")
            self.memory.write(self.address(ea, True), data[:first])
            self.memory.write(self.address(ea + first, True), data[first:])
            return
        try:
            self.memory.store(self.address(ea, True), size, value, little)
        except AddressError:
            self._storage_fault(ea, DSISR.PROTECTION, True)

    def load_reserved(self, ea: int, size: int, little: bool) -> int:
        """Load and make a reservation."""
        value = self.load(ea, size, little)
        self.reservation = (self.address(ea, False), size, value)
        return value

    def store_conditional(self, ea: int, value: int, size: int, little: bool) -> int:
        """Store if the reserved place still holds what was read; 1 if it did."""
        # A conditional store that fails still needs an address that can be stored to. If that ends in an
        # interrupt, nothing was executed: the reservation stays.
        self.probe(ea, "store")
        address = self.address(ea, True)
        self.memory.about_to_store(address, size)
        reservation, self.reservation = self.reservation, None
        if reservation is None or reservation[:2] != (address, size):
            return 0
        return int(self.exchange(address, reservation[2], value, size, little))

    def exchange(self, address: int, expected: int, new: int, size: int, little: bool) -> bool:
        """Store at an aligned real address if what is there is as expected; whether it was."""
        with self.memory.atomic:
            if self.memory.load(address, size, little) != expected:
                return False
            self.memory.store(address, size, new, little)
        return True

    def probe(self, ea: int, access: str) -> None:
        """Data storage interrupt if the byte at ``ea`` cannot be accessed.

        The page of a byte that can be stored to is in the dirty log then, as after a store: native code logs
        a page before it knows whether a conditional store will be made.
        """
        store = access == "store"
        address = self.address(ea, store)
        if address >= self.memory.size:
            self._storage_fault(ea, DSISR.PROTECTION, store)
        if store:
            self.memory.dirty.mark(address, 1)

    def init_page(self, page: int, origin: int | None) -> bool:
        """Make the page at a real address zeros, or what the page at another is; False outside memory."""
        try:
            content = bytes(PAGE_SIZE) if origin is None else self.memory.read(origin, PAGE_SIZE)
            self.memory.write(page, content)
        except AddressError:
            return False
        return True

    def set_words(self, table: int, first: int, count: int, value: int, copies: bool) -> bool:
        """Set words of a table to a value, or copy them from a real address; False if that cannot be."""
        words = self.code.word_tables.get(table)
        if words is None or first + count > len(words):
            return False
        if not copies:
            words[first : first + count] = array("Q", [value]) * count
            return True
        try:
            source = array("Q", self.memory.read(value, 8 * count))
        except AddressError:
            return False
        if sys.byteorder == "little":
            source.byteswap()
        words[first : first + count] = source
        return True

    def read_word(self, table: int, number: int) -> int:
        """Return a word of a table, or 0 if the table or the word does not exist."""
        words = self.code.word_tables.get(table, ())
        return words[number] if number < len(words) else 0

    def zero_block(self, ea: int) -> None:
        """The cache block (128 bytes) that holds ``ea`` becomes zeros."""
        block = ea & ~(CACHE_BLOCK - 1)
        self.probe(block, "store")
        self.memory.write(self.address(block, True), bytes(CACHE_BLOCK))


class ThreadState(StoredRegisters, Thread):
    """A thread whose registers are Python ints."""

    __slots__ = (
        "answers",
        "arguments",
        "code",
        "data_translation",
        "ea_mask",
        "executed",
        "exit_request",
        "hypercalls_answered",
        "latest_address",
        "latest_dar",
        "latest_interrupt",
        "latest_vector",
        "line_mask",
        "live",
        "memory",
        "mode",
        "most_nap",
        "purr_ahead",
        "reservation",
        "shared",
        "spurr_ahead",
        "tb_adjust",
        "translations",
        *(file.attribute for file in FILES.values()),
    )

    def __init__(self, memory: GuestMemory, live: LiveRegisters, code: CodeCache) -> None:
        super().__init__()
        self.code = code
        for file in FILES.values():
            setattr(self, file.attribute, [0] * file.count)
        self.translations = Translations()
        self.memory = memory
        self.live = live
        self.executed = 0
        self.exit_request = self.most_nap = 0
        self.reservation = None
        self.shared = PlainSharedWords()
        self.line_mask = self.answers = self.hypercalls_answered = 0
        self.latest_interrupt = self.latest_address = self.latest_dar = self.latest_vector = 0
        self.set_msr(self.MSR)
