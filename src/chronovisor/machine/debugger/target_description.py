"""The registers as gdb knows them: their numbers, sizes and names, and the XML that tells gdb of them.

The numbers and names of the standard features are those that gdb's powerpc:common64 expects (gdb's manual,
"PowerPC Features"). All other registers that the host reads are in a feature of our own, by KVM's names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal
from xml.sax.saxutils import quoteattr

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.interface import Vcpu
from chronovisor.kvm.registers import read_register, register_names, register_size

CORE: Final = "org.gnu.gdb.power.core"
FPU: Final = "org.gnu.gdb.power.fpu"
ALTIVEC: Final = "org.gnu.gdb.power.altivec"
VSX: Final = "org.gnu.gdb.power.vsx"
OWN: Final = "org.chronovisor.power.spr"
_COUNT: Final = 32
_ARRAYS: Final = ("FPR", "VR", "VSR", "TM_GPR", "TM_VSR")
"""Registers that are reached by other names, or that the processor does not have."""
_LOW: Final = (1 << 64) - 1
_VECTOR_TYPES: Final = """<vector id="v4f" type="ieee_single" count="4"/>
<vector id="v4i32" type="int32" count="4"/>
<vector id="v8i16" type="int16" count="8"/>
<vector id="v16i8" type="int8" count="16"/>
<union id="vec128">
<field name="uint128" type="uint128"/>
<field name="v4_float" type="v4f"/>
<field name="v4_int32" type="v4i32"/>
<field name="v8_int16" type="v8i16"/>
<field name="v16_int8" type="v16i8"/>
</union>
"""


@dataclass(frozen=True, slots=True)
class DescribedRegister:
    """A register as gdb sees it: `low_half` of a register of 128 bits, or all of one."""

    number: int
    name: str
    bits: int
    feature: str
    kvm_name: str
    type: str = "int"
    group: str = ""
    low_half: bool = False

    def value(self, whole: int) -> int:
        """What gdb sees of KVM's register."""
        return whole & ((1 << self.bits) - 1)

    def changed(self, whole: int, value: int) -> int:
        """What KVM's register becomes if gdb sets this one."""
        return (whole & ~_LOW) | value if self.low_half else value

    def encode(self, whole: int, order: Literal["little", "big"]) -> bytes:
        """The bytes that gdb gets for KVM's register."""
        return self.value(whole).to_bytes(self.bits // 8, order)

    @property
    def xml(self) -> str:
        """Its element."""
        group = f' group="{self.group}"' if self.group else ""
        return (
            f'<reg name={quoteattr(self.name)} bitsize="{self.bits}" type="{self.type}" '
            f'regnum="{self.number}"{group}/>\n'
        )


def _standard() -> Iterator[DescribedRegister]:
    for n in range(_COUNT):
        yield DescribedRegister(n, f"r{n}", 64, CORE, f"R{n}", "uint64")
    for number, name, bits, kind in (
        *((64, "pc", 64, "code_ptr"), (65, "msr", 64, "uint64"), (66, "cr", 32, "uint32")),
        *((67, "lr", 64, "code_ptr"), (68, "ctr", 64, "uint64"), (69, "xer", 32, "uint32")),
    ):
        yield DescribedRegister(number, name, bits, CORE, name.upper(), kind)
    for n in range(_COUNT):
        yield DescribedRegister(32 + n, f"f{n}", 64, FPU, f"FPR{n}", "ieee_double")
    yield DescribedRegister(70, "fpscr", 64, FPU, "FPSCR", "int", "float")
    for n in range(_COUNT):
        yield DescribedRegister(71 + n, f"vr{n}", 128, ALTIVEC, f"VR{n}", "vec128")
    yield DescribedRegister(103, "vscr", 32, ALTIVEC, "VSCR", "int", "vector")
    yield DescribedRegister(104, "vrsave", 32, ALTIVEC, "VRSAVE", "int", "vector")
    for n in range(_COUNT):
        yield DescribedRegister(105 + n, f"vs{n}h", 64, VSX, f"VSR{n}", "uint64", "", True)


def described_registers(vcpu: Vcpu) -> list[DescribedRegister]:
    """The registers that this vCPU's host has, by their numbers in order."""
    registers = list(_standard())
    taken = {register.kvm_name for register in registers}
    arrays = {f"{array}{n}" for array in _ARRAYS for n in range(2 * _COUNT)}
    number = max(register.number for register in registers) + 1
    for name in register_names():
        if name in taken or name in arrays or not _is_there(vcpu, name):
            continue
        bits = 8 * register_size(name)
        registers.append(DescribedRegister(number, name.lower(), bits, OWN, name, f"uint{bits}", "system"))
        number += 1
    return sorted(registers, key=lambda register: register.number)


def _is_there(vcpu: Vcpu, name: str) -> bool:
    try:
        read_register(vcpu, name)
    except KvmError:
        return False
    return True


def target_description(registers: list[DescribedRegister]) -> bytes:
    """The XML that gdb reads as target.xml."""
    parts = ['<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "gdb-target.dtd">\n<target version="1.0">\n']
    parts.append("<architecture>powerpc:common64</architecture>\n")
    for feature in (CORE, FPU, ALTIVEC, VSX, OWN):
        parts.append(f'<feature name="{feature}">\n{_VECTOR_TYPES if feature == ALTIVEC else ""}')
        parts += [register.xml for register in registers if register.feature == feature]
        parts.append("</feature>\n")
    parts.append("</target>\n")
    return "".join(parts).encode()
