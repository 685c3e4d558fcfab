"""A vCPU's state as KVM's registers: what a move carries, read and written through the interface alone."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.ids import ONE_REG_BY_ID, ONE_REG_BY_NAME, ONE_REGS
from chronovisor.kvm.interface import Vcpu
from chronovisor.kvm.structures import Regs, Sregs

_NOT_COPIED: Final = frozenset(
    {
        # Time is handed over, not copied: the destination chooses its own offset, and the deadline follows.
        "TB_OFFSET",
        "DEC_EXPIRY",
        # The lower half of LPCR_64, and the upper halves of the VSRs, under older names. (VR0 to VR31 are no
        # part of the VSRs that have ids: they are what the ISA calls VSR32 to VSR63.)
        "LPCR",
        *(f"FPR{n}" for n in range(32)),
        # The kernel chooses it.
        "DEBUG_INST",
        # The state of XIVE, an interrupt controller that no guest of ours is given.
        "VP_STATE",
    }
)

_LAST: Final = ("VPA_SLB", "VPA_DTL")
"""Refused while the vCPU has no VPA, so they follow it."""

TB_OFFSET: Final = ONE_REG_BY_NAME["TB_OFFSET"].id
DEC_EXPIRY: Final = ONE_REG_BY_NAME["DEC_EXPIRY"].id

CARRIED: Final = tuple(
    sorted(
        (register for register in ONE_REGS if register.name not in _NOT_COPIED),
        key=lambda register: register.name in _LAST,
    )
)
"""The one-register ids that a move carries, in the order in which they are set."""


@dataclass(frozen=True, slots=True)
class VcpuState:
    """A stopped vCPU: its registers by KVM's names, and when its decrementer expires."""

    id: int
    regs: Regs
    sregs: Sregs
    one_regs: dict[str, int]
    """Of `CARRIED` those that the source's KVM has, unsigned."""
    dec_expiry: int
    """DEC + timebase, guest time (64-bit ticks)."""


def save(vcpu: Vcpu) -> VcpuState:
    """Read the state of a vCPU outside `run()` with no answer pending; registers that its KVM does not have
    are left out.
    """
    return VcpuState(
        id=vcpu.id,
        regs=vcpu.get_regs(),
        sregs=vcpu.get_sregs(),
        one_regs={
            register.name: value
            for register in CARRIED
            if (value := _get_if_there(vcpu, register.id)) is not None
        },
        dec_expiry=vcpu.get_one_reg(DEC_EXPIRY),
    )


def in_use(state: VcpuState) -> tuple[int, ...]:
    """Return KVM's ids of the registers that are not 0."""
    return tuple(ONE_REG_BY_NAME[name].id for name, value in state.one_regs.items() if value)


def misfit(vcpu: Vcpu, sregs: Sregs, registers: Iterable[int]) -> str | None:
    """Return what of a guest this vCPU, which never ran, cannot keep; None if it can keep all of it.

    `sregs` are set; of `registers` (KVM's ids) it is asked whether they exist.
    """
    try:
        vcpu.set_sregs(sregs)
    except KvmError as error:
        return error.message
    for register_id in registers:
        try:
            vcpu.get_one_reg(register_id)
        except KvmError as error:
            register = ONE_REG_BY_ID.get(register_id)
            name = register.name if register is not None else f"the register with the id {register_id:#x}"
            return f"the guest uses {name}: {error.message}"
    return None


def load(vcpu: Vcpu, state: VcpuState) -> None:
    """Set all registers but those of time; KvmError, naming the register, if one is refused."""
    vcpu.set_sregs(state.sregs)
    vcpu.set_regs(state.regs)
    for register in CARRIED:
        if register.name in state.one_regs:
            try:
                vcpu.set_one_reg(register.id, state.one_regs[register.name])
            except KvmError as error:
                raise KvmError(
                    error.errno or errno.EINVAL,
                    f"vCPU {vcpu.id}: {register.name} cannot be set to "
                    f"{state.one_regs[register.name]:#x} at the destination: {error.message}",
                ) from error


def _get_if_there(vcpu: Vcpu, register_id: int) -> int | None:
    try:
        return vcpu.get_one_reg(register_id)
    except KvmError as error:
        # ENXIO: the vCPU has no interrupt controller that could have a state.
        if error.errno in (errno.EINVAL, errno.ENXIO):
            return None
        raise
