"""Random cases of one instruction: a word, a state and memory in which most accesses meet memory."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from chronovisor.engine.symbolic.state import STORED
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.isa.decode import decode
from chronovisor.isa.forms import FIELDS
from chronovisor.isa.instruction import INSTRUCTIONS, RESERVED, UNIMPLEMENTED, Instruction
from chronovisor.isa.registers import FILES, REGISTERS, SPR_READ, SPR_WRITE

MEMORY_SIZE = 1 << 18
LIVE = tuple(name for name, register in REGISTERS.items() if register.live)
_BOUNDARIES = (0, 1, (1 << 64) - 1, 1 << 63, (1 << 63) - 1, 1 << 31, (1 << 64) - (1 << 31), (1 << 32) - 1)
#: One instruction for each facility: the others of the facility do the same.
UNAVAILABLE = tuple({one.meaning: one for one in UNIMPLEMENTED}.values())
ALL = (*INSTRUCTIONS, *RESERVED, *UNAVAILABLE)


@dataclass(frozen=True)
class Drawn:
    """One case: what is executed, in which mode, from which registers (r0 to r31, vs0 to vs63 among them)."""

    instruction: Instruction
    word: int
    registers: dict[str, int]
    live: dict[str, int]
    reservation: tuple[int, int, int] | None

    @property
    def mode(self) -> tuple[bool, bool]:
        return bool(self.registers["MSR"] & MSR.SF), bool(self.registers["MSR"] & MSR.LE)


def drawn(seed: int, count: int) -> list[Drawn]:
    """About so many cases, spread evenly over all instructions: at least one of each.

    Those of an instruction depend on the seed and its encoding alone, so another instruction changes none.
    """
    found = []
    for one in ALL:
        random = source(seed, one)
        for _ in range(max(1, count // len(ALL))):
            found.append(draw_state(random, one, draw_word(random, one)))
    return found


def source(seed: int, instruction: Instruction) -> Random:
    """The random numbers of an instruction's cases."""
    return Random(f"{seed} {instruction.mnemonic} {instruction.match:x}")


def draw_word(random: Random, instruction: Instruction) -> int:
    word = 0
    while decode(word) is not instruction:  # an encoding may lie within a wider one
        word = instruction.match | (random.getrandbits(32) & ~instruction.mask)
    if "SPR" in instruction.statics and random.getrandbits(2):
        word &= ~FIELDS["SPR"].encode(0x3FF)
        word |= FIELDS["SPR"].encode(random.choice((*SPR_READ, *SPR_WRITE)))
    return word


def draw_elements(random: Random) -> int:
    """Draw 128 bits: elements of some width, at random or at the ends of their ranges, or a few bits."""
    width = random.choice((8, 16, 32, 64, 128))
    ones = (1 << width) - 1
    ends = (0, 1, ones, ones >> 1, (ones >> 1) + 1, ones - 1)
    value = 0
    for _ in range(128 // width):
        element = random.choice(
            (random.getrandbits(width), random.choice(ends), random.getrandbits(width) & 31)
        )
        value = value << width | element & ones
    return value


def draw_state(
    random: Random, instruction: Instruction, word: int, mode: tuple[bool, bool] | None = None
) -> Drawn:
    """Draw the state for an instruction; in this mode (64-bit, little-endian), or in any."""
    registers = {name: random.getrandbits(REGISTERS[name].width) for name in STORED}
    # Sums of two of them lie in memory, as do sums with a displacement; half of them are aligned.
    low, high = MEMORY_SIZE // 4, MEMORY_SIZE // 2
    align = random.choice((1, 2, 4, 8, 16, 16))
    for n in range(32):
        near = random.randrange(low, high) // align * align
        far = random.choice((random.getrandbits(64), random.choice(_BOUNDARIES)))
        edge = MEMORY_SIZE - random.randrange(20)
        registers[f"r{n}"] = random.choice((near, near, near, far, far, edge))
    for n in range(FILES["VSR"].count):
        registers[f"vs{n}"] = draw_elements(random)
    msr = random.getrandbits(64) & ~int(MSR.DR | MSR.PR | MSR.HV)
    if random.getrandbits(3):
        msr |= int(MSR.FP | MSR.VEC | MSR.VSX)
    for bit in (MSR.DR, MSR.PR, MSR.HV):
        if random.getrandbits(2) == 0:
            msr |= bit
    if mode is not None:
        msr &= ~int(MSR.SF | MSR.LE)
        msr |= (int(MSR.SF) * mode[0]) | (int(MSR.LE) * mode[1])
    registers["MSR"] = msr
    # Translated accesses are compared in tests/engine/test_radix.py: here no tables are there to walk.
    registers["LPCR"] &= ~int(LPCR.HR)
    registers["CIA"] = random.randrange(0, MEMORY_SIZE, 4)
    registers["NIA"] = registers["CIA"] + 4
    live = {name: random.getrandbits(REGISTERS[name].width) for name in LIVE}
    reservation = None
    if random.getrandbits(1):
        reservation = (random.randrange(MEMORY_SIZE), random.choice((1, 2, 4, 8, 16)), random.getrandbits(64))
    return Drawn(instruction, word, registers, live, reservation)
