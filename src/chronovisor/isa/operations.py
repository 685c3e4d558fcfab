"""The operations of which programs are made.

Each evaluator in ``chronovisor.engine`` gives every operation of :data:`OPERATIONS` a reading of its own:
Python source over ints, z3 terms, machine code. The table is the contract: a test fails if an evaluator
lacks one of its rows.
"""

from __future__ import annotations

#: Every operation, with what it means. Operands are unsigned, of the stated widths in bits.
OPERATIONS: dict[str, str] = {
    # pure: the same operands always give the same result
    "const": "the number `detail`",
    "operand": "the instruction's field named `detail`, 64 bits (signed fields are sign-extended)",
    "add": "a + b, modulo 2^width",
    "sub": "a - b, modulo 2^width",
    "mul": "a * b, modulo 2^width",
    "udiv": "a // b, unsigned; 0 if b is 0",
    "urem": "a mod b, unsigned; 0 if b is 0",
    "sdiv": "a / b, signed, truncated; 0 if b is 0, a if it overflows",
    "srem": "the remainder that goes with sdiv; 0 if b is 0 or it overflows",
    "and": "bitwise and",
    "or": "bitwise or",
    "xor": "bitwise exclusive or",
    "not": "bitwise complement",
    "shl": "a << b; 0 if b >= width",
    "lshr": "a >> b, zeros shifted in; 0 if b >= width",
    "ashr": "a >> b, the sign shifted in; all sign if b >= width",
    "eq": "1 bit: a = b",
    "ult": "1 bit: a < b, unsigned",
    "slt": "1 bit: a < b, signed",
    "select": "b if the 1-bit a is 1, else c",
    "zext": "a with zeros above it, up to width",
    "sext": "a with its sign above it, up to width",
    "extract": "`width` bits of a from bit `detail` up (0 is the least significant)",
    "concat": "a above b",
    "clz": "the number of zeros above a's highest one; its width if a is 0",
    "ctz": "the number of zeros below a's lowest one; its width if a is 0",
    "popcount": "the number of ones in a",
    "byteswap": "a with its bytes in reverse order; its width is a multiple of 8",
    "permute": "for each byte of b the byte of a whose number, from the right, its low four bits give",
    "ieee": "the IEEE arithmetic that `detail` names (isa/ieee): its result, what it raises of FPSCR above",
    "lane": "within the function of an `each`: the present lane of the operand number `detail`",
    "each": "the function `detail` of each lane of the operands, with its results side by side",
    # state: in the order in which the program lists them
    "read_file": "register number a of the register file named `detail`",
    "write_file": "register number a of the register file named `detail` becomes b",
    "get": "the register named `detail`",
    "set": "the register named `detail` becomes a",
    "read_live": "the present value of the register named `detail`, which moves by itself",
    "write_live": "the register named `detail`, which moves by itself, becomes a",
    "load": "the `width` bits in memory at effective address a, in the thread's byte order",
    "store": "memory at effective address a becomes b, in the thread's byte order",
    "load_reserved": "as load, and makes a reservation of the place",
    "store_conditional": "1 bit: as store and 1 if the reservation holds, else 0; it ends the reservation",
    "invalidate_code": "instructions of the block at effective address a are fetched from memory again",
    "zero_block": "the cache block that holds effective address a becomes zeros",
    "probe": "check the access that `detail` names ('load' or 'store') to the byte at a; do not make it",
    "barrier": "order accesses: all ('full'), or all but a store and a later load ('light')",
    "random": "64 random bits",
    "load_real": "the `width` bits in memory at real address a, big-endian; 0 if they lie outside memory",
    "update_real": "the big-endian doubleword at real address a becomes c if it is b; else start anew",
    "store_real": "the big-endian doubleword at real address a becomes b, if there is memory",
    "translated": "the address that was asked for is real address a, in a page of 2^b bytes, which may be "
    "loaded from if c",
    "new_context": "the register named `detail` changed, which address translation depends on",
    "forget_translations": "every thread ('all') or this one ('own') forgets what it translated for process "
    "a, or for all if a is all ones, in the effective pages of 4 KiB from b to c; the instruction ends",
    "await_invalidations": "what this thread had others forget is not used any more",
    "read_shared": "the word number `detail` of those that the thread shares with its hypervisor",
    "exchange_shared": "1 bit: the shared word number `detail` was a, and becomes b in one step; else 0",
    "init_page": "1 bit: there is memory at real address a, and its page of 4 KiB becomes zeros ('zero') or "
    "what the page at b is ('copy'), where memory must be too; else 0, and nothing changes",
    "set_words": "1 bit: the table of words number a, which hypercalls set, has c words from word b on, and "
    "they become d ('fill') or the big-endian doublewords at real address d ('copy'), where memory must be; "
    "else 0, and nothing changes",
    "read_word": "word b of the table of words number a; 0 if there is none",
    "exchange_word": "1 bit: word b of the table of words number a was c, and becomes d in one step; else 0",
    "host_io": "how many bytes the machine has moved at once between d bytes of memory at real address c and "
    "its file with the descriptor a, from offset b on ('read', 'write'), or to a connection, behind the 4 "
    "bytes of b unless b is all ones ('send'); or the size of what a connection has next behind that size in "
    "4 bytes, which stays there ('peek') until it is taken ('skip'); another number if it cannot, or if it "
    "may have read over code",
    "nap": "1 bit: the machine's file b can be read, unless b is all ones; the thread has done nothing up to "
    "then, or until somebody wanted something of it, for at most a ticks",
    "alarm": "1 bit: the machine's timer that is its file a goes off in b ticks, or not at all if b is 0",
    "watch": "1 bit: the epoll instance a now tells of its file b (c is 1), or does not (c is 0)",
    "decline": "the program ends, and the hypervisor does what it was for; it has changed nothing",
    "interrupt": "the instruction ends in the interrupt `detail`, a are SRR1's bits for its cause",
    "resync": "the machine state is looked at again before the next instruction",
}

#: Operations whose result depends only on their operands.
PURE = frozenset(list(OPERATIONS)[: list(OPERATIONS).index("read_file")])

#: Operations that yield no value.
EFFECTS = frozenset(
    {
        *("write_file", "set", "write_live", "store", "invalidate_code", "zero_block", "probe", "barrier"),
        *(
            "update_real",
            "store_real",
            "translated",
            "new_context",
            "forget_translations",
            "await_invalidations",
        ),
        *("interrupt", "resync", "decline"),
    }
)
