"""KVM's register structures (`struct kvm_regs`, `struct kvm_sregs` of powerpc) as Python values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Regs:
    """`struct kvm_regs`. Every field is an unsigned 64-bit integer."""

    pc: int = 0
    cr: int = 0
    ctr: int = 0
    lr: int = 0
    xer: int = 0
    msr: int = 0
    srr0: int = 0
    srr1: int = 0
    pid: int = 0
    sprg: list[int] = field(default_factory=lambda: [0] * 8)
    """SPRG0 to SPRG7; Book3S has 0 to 3 and keeps the others as they are set."""
    gpr: list[int] = field(default_factory=lambda: [0] * 32)


@dataclass(slots=True)
class Sregs:
    """`struct kvm_sregs`, the part that Book3S HV uses."""

    pvr: int = 0
    """Processor version, 32 bits. 0x4e1200 is POWER9 DD2.0, what the embedded processor says of itself."""
    sdr1: int = 0
    slb: list[tuple[int, int]] = field(default_factory=list)
    """Segment lookaside buffer entries (slbe, slbv), at most 64; empty under radix and in real mode."""
