"""Interrupts: their vectors, and how one is entered (Power ISA 3.0B Book III chapter 6)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from chronovisor.isa.bits import LPCR, MSR
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Program

#: Bits of SRR1 that do not come from MSR: they are zero, or say what the cause was (bits 33:36 and 42:47).
SRR1_CAUSE = 0x783F0000

#: Where interrupts go with LPCR[AIL] = 3 and translation on, besides their vector's own address.
AIL3_OFFSET = 0xC000_0000_0000_4000


@dataclass(frozen=True, slots=True)
class Interrupt:
    """An interrupt that a guest can take.

    ``after``: SRR0 points behind the instruction that was executing, not at it.
    ``relocatable``: LPCR[AIL] applies. ``keeps_me``: MSR[ME] stays.
    """

    name: str
    vector: int
    after: bool = False
    relocatable: bool = True
    keeps_me: bool = True


INTERRUPTS: dict[str, Interrupt] = {
    interrupt.name: interrupt
    for interrupt in (
        Interrupt("SYSTEM_RESET", 0x100, relocatable=False),
        Interrupt("MACHINE_CHECK", 0x200, relocatable=False, keeps_me=False),
        Interrupt("DATA_STORAGE", 0x300),
        Interrupt("DATA_SEGMENT", 0x380),
        Interrupt("INSTRUCTION_STORAGE", 0x400),
        Interrupt("INSTRUCTION_SEGMENT", 0x480),
        Interrupt("EXTERNAL", 0x500),
        Interrupt("ALIGNMENT", 0x600),
        Interrupt("PROGRAM", 0x700),
        Interrupt("FP_UNAVAILABLE", 0x800),
        Interrupt("DECREMENTER", 0x900),
        Interrupt("HYPERVISOR_DECREMENTER", 0x980),
        Interrupt("DOORBELL", 0xA00),
        Interrupt("SYSTEM_CALL", 0xC00, after=True),
        Interrupt("TRACE", 0xD00, after=True),
        Interrupt("PERFORMANCE_MONITOR", 0xF00),
        Interrupt("VECTOR_UNAVAILABLE", 0xF20),
        Interrupt("VSX_UNAVAILABLE", 0xF40),
        Interrupt("FACILITY_UNAVAILABLE", 0xF60),
    )
}

#: `sc 1`: not a guest's interrupt but a call of the hypervisor, which the engine hands up.
HYPERCALL = "HYPERCALL"


@cache
def entry(name: str) -> Program:
    """The program that enters an interrupt; its operand ``cause`` gives SRR1's cause bits.

    It leaves CIA alone and puts the vector's address into NIA.
    """
    interrupt = INTERRUPTS[name]
    m = Machine()
    msr, lpcr = m["MSR"], m["LPCR"]
    m["SRR0"] = m["NIA"] if interrupt.after else m["CIA"]
    m["SRR1"] = (msr & ~SRR1_CAUSE) | m.operand("cause")
    kept = int(MSR.HV | MSR.ME) if interrupt.keeps_me else int(MSR.HV)
    translation = int(MSR.IR | MSR.DR)
    little = (lpcr & int(LPCR.ILE)).ne(0).zext(64)
    entered = (msr & kept) | int(MSR.SF) | little
    if interrupt.relocatable:
        relocated = (msr & translation).eq(translation) & (lpcr & int(LPCR.AIL)).eq(int(LPCR.AIL))
        m["MSR"] = m.select(relocated, entered | translation, entered)
        m["NIA"] = m.select(relocated, interrupt.vector + AIL3_OFFSET, interrupt.vector)
    else:
        m["MSR"] = entered
        m["NIA"] = m.value(interrupt.vector)
    return m.trace.program(f"interrupt_{name.lower()}", ("cause",))
