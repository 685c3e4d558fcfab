"""Interrupts: their vectors, and how one is entered (Power ISA 3.0B Book III chapter 6)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from chronovisor.isa.bits import LPCR, MSR
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Program, Value
from chronovisor.isa.verifier import verify

#: Bits of SRR1 that do not come from MSR: they are zero, or say what the cause was (bits 33:36 and 42:47).
SRR1_CAUSE = 0x783F0000

#: Where interrupts go with LPCR[AIL] = 3 and translation on, besides their vector's own address.
AIL3_OFFSET = 0xC000_0000_0000_4000

#: Trace interrupts always have this bit of SRR1, and one of the others after a load or a store (6.5.15).
TRACE_CAUSE = 1 << (63 - 33)
TRACE_LOAD = 1 << (63 - 35)
TRACE_STORE = 1 << (63 - 36)

#: Instructions that no trace interrupt follows (6.5.15).
UNTRACED = frozenset({"rfid", "hrfid", "rfscv", "stop"})

#: Instructions that branch tracing (MSR[BE]) sees.
BRANCHES = frozenset({"b", "bc", "bclr", "bcctr", "bctar"})


@dataclass(frozen=True, slots=True)
class Interrupt:
    """An interrupt that a guest can take.

    ``after``: SRR0 points behind the instruction that was executing, not at it.
    ``relocatable``: LPCR[AIL] applies. ``keeps_me``: MSR[ME] stays. ``hypervisor``: it goes to
    hypervisor state, through HSRR0 and HSRR1.
    """

    name: str
    vector: int
    after: bool = False
    relocatable: bool = True
    keeps_me: bool = True
    hypervisor: bool = False


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
        # A change of MSR lets a floating-point exception interrupt that was there before it (6.5.9).
        Interrupt("DELAYED_PROGRAM", 0x700, after=True),
        Interrupt("FP_UNAVAILABLE", 0x800),
        Interrupt("DECREMENTER", 0x900),
        Interrupt("HYPERVISOR_DECREMENTER", 0x980, relocatable=False, hypervisor=True),
        Interrupt("DOORBELL", 0xA00),
        Interrupt("SYSTEM_CALL", 0xC00, after=True),
        Interrupt("TRACE", 0xD00, after=True),
        Interrupt("PERFORMANCE_MONITOR", 0xF00),
        Interrupt("VECTOR_UNAVAILABLE", 0xF20),
        Interrupt("VSX_UNAVAILABLE", 0xF40),
        Interrupt("FACILITY_UNAVAILABLE", 0xF60),
    )
}

#: A number for each interrupt, from 1 up, for states that keep one.
INTERRUPT_NUMBERS: dict[str, int] = {name: number for number, name in enumerate(INTERRUPTS, 1)}
INTERRUPT_NAMES: dict[int, str] = {number: name for name, number in INTERRUPT_NUMBERS.items()}

#: `sc 1`: not a guest's interrupt but a call of the hypervisor, which the engine hands up.
HYPERCALL = "HYPERCALL"


def relocated(m: Machine) -> Value:
    """1 bit: interrupts leave translation on and go to their other address (LPCR[AIL] = 3, 6.2.4)."""
    translation = int(MSR.IR | MSR.DR)
    return (m["MSR"] & translation).eq(translation) & (m["LPCR"] & int(LPCR.AIL)).eq(int(LPCR.AIL))


def entered(m: Machine, kept: int) -> Value:
    """MSR as an interrupt to the guest's kernel leaves it, translation off; ``kept`` bits stay (6.5)."""
    little = (m["LPCR"] & int(LPCR.ILE)).ne(0).zext(64)
    return (m["MSR"] & kept) | int(MSR.SF) | little


@cache
def entry(name: str) -> Program:
    """The program that enters an interrupt; its operand ``cause`` gives SRR1's cause bits.

    It does not change CIA, and puts the vector's address into NIA.
    """
    interrupt = INTERRUPTS[name]
    m = Machine()
    came_from = m["NIA"] if interrupt.after else m["CIA"]
    state = (m["MSR"] & ~SRR1_CAUSE) | m.operand("cause")
    if interrupt.hypervisor:
        # To hypervisor state, big-endian (no HID[HILE] here); RI stays, so that the guest's SRRs are safe.
        m["HSRR0"], m["HSRR1"] = came_from, state
        m["MSR"] = (m["MSR"] & int(MSR.ME | MSR.RI)) | int(MSR.SF | MSR.HV)
        m["NIA"] = m.value(interrupt.vector)
    else:
        m["SRR0"], m["SRR1"] = came_from, state
        new = entered(m, MSR.HV | MSR.ME if interrupt.keeps_me else MSR.HV)
        if interrupt.relocatable:
            elsewhere = relocated(m)
            m["NIA"] = m.select(elsewhere, interrupt.vector + AIL3_OFFSET, interrupt.vector)
            new = m.select(elsewhere, new | int(MSR.IR | MSR.DR), new)
        else:
            m["NIA"] = m.value(interrupt.vector)
        m["MSR"] = new
    return verify(m.trace.program(f"interrupt_{name.lower()}", ("cause",)))
