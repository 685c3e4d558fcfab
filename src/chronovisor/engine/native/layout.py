"""How decoded instructions and translations lie in memory for native code.

A decoded instruction is a fixed-size record: the address of its handler, its place in its page, and its
operands. Records belong to a page of real memory, which may be mapped at several effective addresses: the
thread's ``page_base`` says at which one it executes the page. The thread's state is in `state_layout`.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum

from chronovisor.engine.native.state_layout import KEYS
from chronovisor.engine.state import CACHE_BLOCK

#: The bits that say that loads from a page, or stores to it, are the concrete evaluator's.
WATCHED_LOADS, WATCHED_STORES = 1, 2

TLB_ENTRIES = 1024
TLB_INVALID = (1 << 64) - 1
#: How many places side by side are emptied together: a guest that flushes often has filled few.
TLB_GROUP = TLB_ENTRIES // 64


class DataEntry(ctypes.Structure):
    """A page of data: the difference between its address in this process and its effective one.

    The number of the effective page is a tag for each use that the entry may be made of, TLB_INVALID for the
    others. ``both`` is for loads and stores alike: those that are near each other share one look.
    """

    _fields_ = [(name, ctypes.c_uint64) for name in ("load", "store", "both", "data")]


#: The uses of a page of data.
DATA_USES = ("load", "store", "both")

#: How many entries a page of data may be in, side by side. Code looks at the first one first. Few pages that
#: are used all the time are enough for some two to be in each other's way.
WAYS = 2


class FetchEntry(ctypes.Structure):
    """A page of code: its entry in the table of decoded pages, by the address of that.

    The tag is the number of the effective page, or TLB_INVALID.
    """

    _fields_ = [("fetch", ctypes.c_uint64), ("data", ctypes.c_uint64)]


class Tlb(ctypes.Structure):
    """What a thread has translated, by the number of the effective page.

    ``generation`` counts how often entries were invalidated: a thread withdraws an entry that it has made
    from tables that it read before. ``moves`` is odd while the thread moves entries: see `moving`. A bit of
    ``empty_data`` or ``empty_code`` is 1 if all entries of a group of places are known to be empty.
    """

    _fields_ = [
        ("generation", ctypes.c_uint64),
        ("moves", ctypes.c_uint64),
        # To the size of a page's entries, so that they are in one cache line.
        ("empty_data", ctypes.c_uint64),
        ("empty_code", ctypes.c_uint64),
        ("unused", ctypes.c_uint64 * 4),
        ("of_data", DataEntry * WAYS * TLB_ENTRIES),
        ("of_code", FetchEntry * TLB_ENTRIES),
    ]


class ThreadContext(ctypes.Structure):
    """The TLBs of one state of the registers that translation depends on: one for each value of AMR's key 0.

    ``key`` is the state in one number, 0 if the context is unused. A TLB that is ``stale`` has to be emptied
    before it is used.
    """

    _fields_ = [
        ("key", ctypes.c_uint64),
        ("stale", ctypes.c_uint64 * KEYS),
        ("tlbs", ctypes.c_uint64 * KEYS),
    ]


#: How many contexts a thread has, a power of two.
CONTEXTS = 64


class ModePages(ctypes.Structure):
    """The table of decoded pages of a machine mode, 0 if native code has none, and how many pages it has.

    ``early`` is the address of a byte for each page, 1 if handlers to come will change the page's records.
    ``decoding`` is the address of the mode's `Decoding`, ``lines`` that of its `Lines`.
    """

    _fields_ = [(name, ctypes.c_uint64) for name in ("table", "count", "early", "decoding", "lines")]


class PageNote(ctypes.Structure):
    """What samples have to know of a page.

    ``lines`` has a bit for each block that has a line. If the block's bit of ``quiet`` is 1, too, its samples
    are only counted, in ``samples``.
    """

    _fields_ = [("lines", ctypes.c_uint32), ("quiet", ctypes.c_uint32), ("samples", ctypes.c_uint64)]


class Lines(ctypes.Structure):
    """How native code puts the lines of a guest's blocks together in a machine mode.

    ``notes`` is the address of a `PageNote` for each page. ``in_chunk`` is that of a byte for each page, 1 if
    the present chunk has lines of the page. ``book`` is what `assemble` needs. A line may begin at ``next``,
    which moves on, up to ``last``.
    """

    _fields_ = [(name, ctypes.c_uint64) for name in ("notes", "in_chunk", "book", "next", "last")]


class Decoding(ctypes.Structure):
    """How native code decodes in a machine mode: the table of slots, 0 before there is one.

    Whoever changes it, records or the table of decoded pages has ``lock``, which is 1 then. ``swapped`` is 1
    if the bytes of instruction words are reversed, ``complete`` is 1 if no pairs are still to come.
    """

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("lock", "significant", "slots", "slot_count", "swapped", "complete")
    ]


def mode_number(mode: tuple[bool, bool]) -> int:
    """The place of a machine mode, (64-bit, little-endian), in the thread's ``modes``."""
    return 2 * mode[0] + mode[1]


#: Threads of one guest that native code can reach: more than any machine has.
MOST_PEERS = 4096


class Peers(ctypes.Structure):
    """The addresses of the states of all threads of a guest."""

    _fields_ = [("count", ctypes.c_uint64), ("states", ctypes.c_uint64 * MOST_PEERS)]


#: Tables of words that a guest's hypercalls can set: four for each device, more than any machine has.
MOST_WORD_TABLES = 64


class WordTable(ctypes.Structure):
    """A table of words that hypercalls set: its number, its address and its count of words."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("number", "at", "count")]


class WordTables(ctypes.Structure):
    """All of a guest's."""

    _fields_ = [("count", ctypes.c_uint64), ("tables", WordTable * MOST_WORD_TABLES)]


#: Bytes of an instruction record, and where its parts are: the handler's address, wide fixed values of 64
#: bits, small ones of a byte, and the instruction's offset within its page in 16 bits. Large programs execute
#: many records once: the fewer bytes they have, the better.
WIDE_COUNT = 2
SMALL_COUNT = 6
RECORD_HANDLER = 0
RECORD_WIDE = 8
RECORD_SMALL = RECORD_WIDE + 8 * WIDE_COUNT
RECORD_OFFSET = RECORD_SMALL + SMALL_COUNT
RECORD_SIZE = RECORD_OFFSET + 2

PAGE_SHIFT = 12
PAGE_INSTRUCTIONS = (1 << PAGE_SHIFT) // 4
PAGE_BLOCKS = (1 << PAGE_SHIFT) // CACHE_BLOCK

#: A page's records, that of the instruction behind it, and then an address for each instruction: that of its
#: own handler if a region begins there, else 0. At last is an address for each block: that of the table of
#: its line, or 0.
PLAIN_AT = (PAGE_INSTRUCTIONS + 1) * RECORD_SIZE
LINES_AT = PLAIN_AT + 8 * PAGE_INSTRUCTIONS
PAGE_RECORDS_SIZE = LINES_AT + 8 * PAGE_BLOCKS


class Left(IntEnum):
    """Why native code handed the thread back; CIA is set for each."""

    BUDGET = 0  # no instructions left to run
    FETCH = 1  # the next instruction's page is not decoded, or there is none
    RESYNC = 2  # done, and the machine state changed or an interrupt is due
    HYPERCALL = 3  # done: the guest called the hypervisor
    DECODE = 4  # not done: the instruction is not decoded yet
    SLOW = 5  # not done, and nothing changed: the concrete evaluator does this one, or says why it cannot be
    # From a handler to `enter`, which goes on by itself:
    MISSING_LOAD = 6  # not done, and nothing changed: the TLB lacks the page of a load, or it lies in two
    MISSING_STORE = 7  # the same for a store
    CONTEXT = 8  # done, and the registers changed that say how to go on
    INTERRUPT = 9  # not done: the instruction raises an interrupt
    INVALIDATE = 10  # done, but for the invalidation that the state describes
    SYNCHRONIZE = 11  # done, but the thread has to wait until others have carried out its invalidations
