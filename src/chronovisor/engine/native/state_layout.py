"""How a thread's state lies in memory for native code.

The state is one ctypes structure whose registers come from the register table. Native code reaches its fields
by the offsets computed here.
"""

from __future__ import annotations

import ctypes
from typing import TypeAlias

from chronovisor.isa.interrupts import INTERRUPT_NUMBERS
from chronovisor.isa.registers import FILES, REGISTERS, SHARED_WORDS, RegisterFile

STORED = tuple(r.name for r in REGISTERS.values() if not r.live)


def file_field(file: RegisterFile) -> str:
    """The name of the field that holds a register file. Python's own view of the registers is apart."""
    return f"{file.attribute}_words"


#: How many samples a thread's state has room for: a power of two.
SAMPLES = 256

#: The most instructions that a region leaves of a piece.
MOST_UNSPENT = 512
#: Ticks since the decrementer expired after which only Python knows whether its exception still exists: a
#: register of 32 bits is positive again by then.
LONG_AGO = 1 << 31

#: In ``handlers_from`` in place of a record: handlers execute the rest of a region's budget; or they begin at
#: the address at which the thread's last piece ended.
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


_Field: TypeAlias = tuple[str, type]

_FILES: list[_Field] = [
    # Behind each file is a register that is always zero: (RA|0) reads it if RA is 0. The words of a
    # wide register are in this machine's byte order, as native code loads them at once.
    field
    for file in FILES.values()
    for field in (
        (file_field(file), ctypes.c_uint64 * (file.count * file.width // 64)),
        (f"{file.attribute}_zero", ctypes.c_uint64 * (file.width // 64)),
    )
]

#: The registers apart from files that native code uses most.
_HOT_REGISTERS = ("CIA", "LR", "CTR", "XER", "FPSCR", "MSR")

#: What native code loads and stores most: see `ALIKE`.
_HOT: list[_Field] = [
    *((name, ctypes.c_uint64) for name in _HOT_REGISTERS),
    # The fields of CR, a byte each: native code sets one without the others
    ("CR_FIELDS", ctypes.c_uint64),
    # The effective address of the page that is being executed, and where its entry is in the table of
    # decoded pages
    ("page_base", ctypes.c_uint64),
    ("page_entry", ctypes.c_uint64),
    # The record at which handlers took over, or SPENT or SOMEWHERE
    ("handlers_from", ctypes.c_uint64),
    # Instructions left of the piece of the run that is being executed
    ("budget", ctypes.c_int64),
    # Whether the piece is the run's last one: it ends after exactly its budget. A region may leave up to
    # MOST_UNSPENT instructions of another one.
    ("last_piece", ctypes.c_uint64),
    # Instructions that regions have executed, of all that the thread has
    ("done_in_regions", ctypes.c_uint64),
    # A reservation: its real address (all ones: none), size in bytes and the value read
    ("reserved_address", ctypes.c_uint64),
    ("reserved_size", ctypes.c_uint64),
    ("reserved_low", ctypes.c_uint64),
    ("reserved_high", ctypes.c_uint64),
    # The access that the TLB lacks, if a handler was left for that: its effective address and its size in
    # bytes
    ("missing_address", ctypes.c_uint64),
    ("missing_size", ctypes.c_uint64),
    # An interrupt that a handler has raised: its number, and SRR1's bits for its cause
    ("raised", ctypes.c_uint64),
    ("cause", ctypes.c_uint64),
    # Addresses, limits in bytes, masks
    ("tlb", ctypes.c_uint64),
    ("memory_at", ctypes.c_uint64),
    ("memory_size", ctypes.c_uint64),
    ("page_table", ctypes.c_uint64),
    ("page_count", ctypes.c_uint64),
    ("ea_mask", ctypes.c_uint64),
    ("data_translation", ctypes.c_uint64),
    # The function that reads the clock: handlers name no address, so that they can be copied anywhere
    ("now", ctypes.c_uint64),
    # The function that finds the records of other pages: see `define_reach`
    ("reach", ctypes.c_uint64),
    # Handlers with which regions are left: see `define_end_of_piece` and `define_plain`
    ("end_of_piece", ctypes.c_uint64),
    ("plain", ctypes.c_uint64),
    # The functions that find pages which are not where regions look first
    *((finding_field(*kind), ctypes.c_uint64) for kind in FINDINGS),
]

_OTHERS: list[_Field] = [
    *((name, ctypes.c_uint64) for name in STORED if name != "CR" and name not in _HOT_REGISTERS),
    # What native code works with: addresses
    ("dirty_pages", ctypes.c_uint64),
    ("page_contents", ctypes.c_uint64),  # what each real page held when a fetch was last led to it; or 0
    ("watched_pages", ctypes.c_uint64),  # a byte for each page of memory (WATCHED); 0 for none
    ("code_blocks", ctypes.c_uint64),  # a byte for each cache block of memory: 1 once it was decoded
    # The bytes of an access that lies in two pages
    ("crossing", ctypes.c_uint64 * 2),
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
    # The latest interrupt: its number (0: none), the address at which it came, its DAR and its vector
    *((f"latest_{part}", ctypes.c_uint64) for part in ("interrupt", "address", "dar", "vector")),
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
    # Instructions left of the run; those that were executed since the clock was last looked at
    ("run_left", ctypes.c_int64),
    ("unpolled", ctypes.c_int64),
    ("begin", ctypes.c_int64),
    # How often native code has entered each interrupt, by its number
    ("interrupts", ctypes.c_uint64 * (len(INTERRUPT_NUMBERS) + 1)),
]

#: A load may wait for a store to another address with the same low 10 bits. Of two fields that were alike in
#: this, one was stored before each region and one loaded in it: a guest's grep took 2.4 times as long (AMD's
#: Zen 4). So no two of the hot fields are alike, and none is like a GPR. They are like VSR14 to VSR31, the
#: FPRs that functions keep for their callers: most programs do not use them.
ALIKE = 1 << 10
_GPRS, _VSR = _FILES[:2], 16
_HOT_AT = ALIKE + sum(ctypes.sizeof(kind) for _, kind in _GPRS) + 14 * _VSR
#: Of the others, all of 8 bytes, those that come before the hot ones.
_BEFORE = (_HOT_AT - sum(ctypes.sizeof(kind) for _, kind in _FILES)) // 8


class Registers(ctypes.Structure):
    """The register files, every stored register in 64 bits, and what else native code needs."""

    _fields_ = [*_FILES, *_OTHERS[:_BEFORE], *_HOT, *_OTHERS[_BEFORE:]]


OFFSETS: dict[str, int] = {name: getattr(Registers, name).offset for name, *_ in Registers._fields_}
