"""How a thread's state and a decoded instruction lie in memory for native code.

The state is one ctypes structure whose registers come from the register table; native code reaches
them by the offsets computed here. A decoded instruction is a fixed-size record: the address of its
handler, its place in its page, and its operands. Records belong to a page of real memory, which may be mapped
at several effective addresses: the thread's ``page_base`` says at which one it executes the page.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum

from chronovisor.engine.state import CACHE_BLOCK
from chronovisor.isa.interrupts import INTERRUPT_NUMBERS
from chronovisor.isa.registers import FILES, REGISTERS, SHARED_WORDS, RegisterFile

STORED = tuple(r.name for r in REGISTERS.values() if not r.live)


def file_field(file: RegisterFile) -> str:
    """The name of the field that holds a register file. Python's own view of the registers is apart."""
    return f"{file.attribute}_words"


#: How many samples of where a thread was are kept, a power of two.
SAMPLES = 256

#: The most instructions that a region leaves of a piece.
MOST_UNSPENT = 512
#: Ticks since the decrementer expired after which only Python knows whether its exception still exists: a
#: register of 32 bits is positive again by then.
LONG_AGO = 1 << 31

#: Handlers took over for the rest of a region's budget; or where the thread happened to be.
SPENT, SOMEWHERE = 0, 1

#: How regions have pages found that are not where they look first: the use, and the access that is made.
FINDINGS = (("load", "load"), ("store", "store"), ("both", "load"), ("both", "store"))


def finding_field(use: str, access: str) -> str:
    """The name of the field that has the address of such a function."""
    return f"find_{use}_by_{access}"


#: The values of AMR's two bits for key 0, the one that radix translation uses.
KEYS = 4


class Sample(ctypes.Structure):
    """Where handlers were: the page as in page_entry and page_base, and the thread's TLB.

    ``handlers_from`` is as in the state. ``offset`` is that of code in the page which handlers executed.
    """

    _fields_ = [(name, ctypes.c_uint64) for name in ("entry", "base", "offset", "tlb", "handlers_from")]


class Registers(ctypes.Structure):
    """The register files, every stored register in 64 bits, and what else native code needs."""

    _fields_ = [
        # Behind each file is a register that is always zero: (RA|0) reads it if RA is 0. The words of a
        # wide register are in this machine's byte order, as native code loads them at once.
        *(
            field
            for file in FILES.values()
            for field in (
                (file_field(file), ctypes.c_uint64 * (file.count * file.width // 64)),
                (f"{file.attribute}_zero", ctypes.c_uint64 * (file.width // 64)),
            )
        ),
        *((name, ctypes.c_uint64) for name in STORED if name != "CR"),
        # The fields of CR, a byte each: native code sets one without the others
        ("CR_FIELDS", ctypes.c_uint64),
        # What native code works with: addresses, limits in bytes, masks
        ("dirty_pages", ctypes.c_uint64),
        ("memory_at", ctypes.c_uint64),
        ("memory_size", ctypes.c_uint64),
        ("page_table", ctypes.c_uint64),
        ("page_count", ctypes.c_uint64),
        ("page_contents", ctypes.c_uint64),  # what each real page held when a fetch was last led to it; or 0
        ("watched_pages", ctypes.c_uint64),  # a byte for each page of memory (WATCHED); 0 for none
        ("code_blocks", ctypes.c_uint64),  # a byte for each cache block of memory: 1 once it was decoded
        ("ea_mask", ctypes.c_uint64),
        ("data_translation", ctypes.c_uint64),
        # A reservation: its real address (all ones: none), size in bytes and the value read
        ("reserved_address", ctypes.c_uint64),
        ("reserved_size", ctypes.c_uint64),
        ("reserved_low", ctypes.c_uint64),
        ("reserved_high", ctypes.c_uint64),
        # The function that reads the clock: handlers name no address, so that they can be copied anywhere
        ("now", ctypes.c_uint64),
        # Handlers with which regions are left: see `define_end_of_piece` and `define_plain`
        ("end_of_piece", ctypes.c_uint64),
        ("plain", ctypes.c_uint64),
        # The functions that find pages which are not where regions look first
        *((finding_field(*kind), ctypes.c_uint64) for kind in FINDINGS),
        # The access that the TLB lacks, if a handler was left for that: its effective address and its size in
        # bytes; the bytes of an access that lies in two pages; and the TLB
        ("missing_address", ctypes.c_uint64),
        ("missing_size", ctypes.c_uint64),
        ("crossing", ctypes.c_uint64 * 2),
        ("tlb", ctypes.c_uint64),
        # The real address that a fetch was last led to by the walk
        ("fetched", ctypes.c_uint64),
        # The TLBs that hold once AMR's key 0 becomes 0, 1, 2 or 3 and nothing else changes; 0: not empty yet
        ("tlb_by_key", ctypes.c_uint64 * KEYS),
        # The array of contexts; the one in use, and the registers that chose it (0: none was chosen)
        ("contexts", ctypes.c_uint64),
        ("context", ctypes.c_uint64),
        ("context_key", ctypes.c_uint64),
        ("context_table", ctypes.c_uint64),
        # The decoded pages of each machine mode, and the threads of the guest
        ("modes", ctypes.c_uint64),
        ("peers", ctypes.c_uint64),
        # Whether the thread may be using translations, and how many pieces of its runs it has begun
        ("inside", ctypes.c_uint64),
        ("pieces", ctypes.c_uint64),
        # An invalidation: does it concern every thread, which process (ALL_PROCESSES), which effective pages
        ("forget_all", ctypes.c_uint64),
        ("forget_process", ctypes.c_uint64),
        ("forget_first", ctypes.c_uint64),
        ("forget_last", ctypes.c_uint64),
        # Whether the thread has to wait for others at its next tlbsync
        ("invalidated", ctypes.c_uint64),
        # How often other threads asked for all contexts to be emptied, and how often that was done
        ("flushes_asked", ctypes.c_uint64),
        ("flushes_done", ctypes.c_uint64),
        # How often translations of the thread were invalidated
        ("forgotten", ctypes.c_uint64),
        # An interrupt that a handler has raised: its number, and SRR1's bits for its cause
        ("raised", ctypes.c_uint64),
        ("cause", ctypes.c_uint64),
        # The latest interrupt: its number (0: none), the address where it came, its DAR and its vector
        *((f"latest_{part}", ctypes.c_uint64) for part in ("interrupt", "address", "dar", "vector")),
        # The effective address of the page that is being executed, and where its entry is in the table of
        # decoded pages
        ("page_base", ctypes.c_uint64),
        ("page_entry", ctypes.c_uint64),
        # The record at which handlers took over, or SPENT or SOMEWHERE
        ("handlers_from", ctypes.c_uint64),
        # The samples for Python; how many there were in all; how many others were only counted; how many
        # instructions there are until the next one, if regions execute none of them; and how many regions had
        # executed when that was last computed
        ("samples", Sample * SAMPLES),
        ("sample_count", ctypes.c_uint64),
        ("samples_counted", ctypes.c_uint64),
        ("until_sample", ctypes.c_int64),
        ("sampled_in_regions", ctypes.c_uint64),
        # Time: T = clock + tb_adjust. Where ticks_per_instruction is 0 the clock is the machine's own, else
        # it stands at virtual_ticks when a run begins and moves with each instruction.
        ("tb_adjust", ctypes.c_uint64),
        ("dec_deadline", ctypes.c_int64),
        # Whether DEC was written, and the tick of the last write
        ("dec_written", ctypes.c_uint64),
        ("dec_written_at", ctypes.c_int64),
        ("virtual_ticks", ctypes.c_int64),
        ("ticks_per_instruction", ctypes.c_uint64),
        # By how much PURR and SPURR are ahead of the clock; NOT_LENT leaves them to the concrete evaluator
        ("purr_ahead", ctypes.c_uint64),
        ("spurr_ahead", ctypes.c_uint64),
        # Whether native code enters the decrementer's interrupt in virtual time, too: at the very instruction
        # before which it comes. Otherwise the budget ends there.
        ("enters_decrementer", ctypes.c_uint64),
        # Words that the thread shares with its hypervisor, and the bits of the first that raise the external
        # interrupt
        ("shared_words", ctypes.c_uint64 * SHARED_WORDS),
        ("line_mask", ctypes.c_uint64),
        # Hypercalls: the function that answers some (0: none), which of them it may, and how many it has
        ("hypercalls", ctypes.c_uint64),
        ("answers", ctypes.c_uint64),
        ("hypercalls_answered", ctypes.c_uint64),
        # The tables of words that they set (WordTables)
        ("word_tables", ctypes.c_uint64),
        # Set from outside: an interrupt is pending, come back soon
        ("pending", ctypes.c_uint64),
        ("exit_request", ctypes.c_uint64),
        # Naps: whether the thread is in one, the most ticks of one (less than a second), and the eventfd
        # that ends it
        ("napping", ctypes.c_uint64),
        ("most_nap", ctypes.c_uint64),
        ("bell", ctypes.c_uint64),
        # Instructions left of the run, and of the piece of it that is being executed; those that were
        # executed since the clock was last looked at
        ("run_left", ctypes.c_int64),
        ("unpolled", ctypes.c_int64),
        ("begin", ctypes.c_int64),
        ("budget", ctypes.c_int64),
        # Whether the piece is the run's last one: it ends after exactly its budget. A region may leave up to
        # MOST_UNSPENT instructions of another one.
        ("last_piece", ctypes.c_uint64),
        # Instructions that regions have executed, of all that the thread has
        ("done_in_regions", ctypes.c_uint64),
        # How often native code has entered each interrupt, by its number
        ("interrupts", ctypes.c_uint64 * (len(INTERRUPT_NUMBERS) + 1)),
        # The function that finds the records of other pages: see `define_reach`. It is behind all others: a
        # Debian guest's Python and grep ran up to twice as long in regions with it beside `now`, where it
        # moves what regions use most by 8 bytes.
        ("reach", ctypes.c_uint64),
    ]


OFFSETS: dict[str, int] = {name: getattr(Registers, name).offset for name, *_ in Registers._fields_}

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
