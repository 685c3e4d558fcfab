"""A vCPU's registers by name: one way to read and write whatever KVM keeps in regs, sregs or one-register
ids.

Names are those of KVM and the ISA in upper case: R0 to R31, PC, MSR, CR, LR, CTR, XER, SRR0, SRR1, SPRG0 to
SPRG7, PVR, and every one-register name (TB_OFFSET, DEC_EXPIRY, VTB, LPCR_64, …). Lower case is accepted.
"""

from __future__ import annotations

import contextlib
from typing import Final

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.ids import ONE_REG_BY_NAME
from chronovisor.kvm.interface import Vcpu
from chronovisor.kvm.structures import Regs, Sregs

_SCALARS: Final = {name.upper(): name for name in ("pc", "cr", "ctr", "lr", "xer", "msr", "srr0", "srr1")}
_ARRAYS: Final = {
    **{f"R{n}": ("gpr", n) for n in range(32)},
    **{f"SPRG{n}": ("sprg", n) for n in range(8)},
}


class RegisterError(ValueError):
    """A register name that does not exist, or a value that does not fit the register."""


def register_names() -> tuple[str, ...]:
    """Every name that `read_register` takes."""
    return (*_ARRAYS, *_SCALARS, "PVR", *ONE_REG_BY_NAME)


def register_size(name: str) -> int:
    """The size of a register in bytes; RegisterError for an unknown name."""
    name = name.upper()
    if name in _SCALARS or name in _ARRAYS:
        return 8
    if name == "PVR":
        return 4
    if name in ONE_REG_BY_NAME:
        return ONE_REG_BY_NAME[name].size
    raise RegisterError(
        f"there is no register {name!r}; names are R0…R31, PC, MSR, …, TB_OFFSET, DEC_EXPIRY, …"
    )


def _in_regs(regs: Regs, name: str) -> int:
    if name in _SCALARS:
        value: int = getattr(regs, _SCALARS[name])
        return value
    array, index = _ARRAYS[name]
    element: int = getattr(regs, array)[index]
    return element


def registers_of(regs: Regs, sregs: Sregs) -> dict[str, int]:
    """What these structures hold, by the names that `read_register` takes."""
    return {**{name: _in_regs(regs, name) for name in (*_ARRAYS, *_SCALARS)}, "PVR": sregs.pvr}


def read_register(vcpu: Vcpu, name: str) -> int:
    """The register's value, unsigned. RegisterError: unknown name; KvmError: this host lacks it."""
    name = name.upper()
    register_size(name)
    if name in ONE_REG_BY_NAME:
        return vcpu.get_one_reg(ONE_REG_BY_NAME[name].id)
    if name == "PVR":
        return vcpu.get_sregs().pvr
    return _in_regs(vcpu.get_regs(), name)


def all_registers(vcpu: Vcpu) -> dict[str, int]:
    """Return every register that this host's processor has, by name, unsigned."""
    found = {}
    for name in register_names():
        # This host's processor may have no register of that name.
        with contextlib.suppress(KvmError):
            found[name] = read_register(vcpu, name)
    return found


def write_register(vcpu: Vcpu, name: str, value: int) -> None:
    """Set the register to an unsigned value, or a negative one in two's complement.

    RegisterError for an unknown name or a value too wide, KvmError where KVM refuses it.
    """
    name = name.upper()
    bits = 8 * register_size(name)
    if not -(1 << (bits - 1)) <= value < 1 << bits:
        raise RegisterError(f"{value:#x} does not fit {name}, which has {bits} bits")
    value &= (1 << bits) - 1
    if name in ONE_REG_BY_NAME:
        vcpu.set_one_reg(ONE_REG_BY_NAME[name].id, value)
    elif name == "PVR":
        sregs = vcpu.get_sregs()
        sregs.pvr = value
        vcpu.set_sregs(sregs)
    else:
        regs = vcpu.get_regs()
        if name in _SCALARS:
            setattr(regs, _SCALARS[name], value)
        else:
            array, index = _ARRAYS[name]
            getattr(regs, array)[index] = value
        vcpu.set_regs(regs)
