"""The one-register ids: how each is read and written in the hypervisor, and with which errors.

The functions are called with the vCPU outside its run. Sources: the kernel's documentation of
KVM_SET_ONE_REG, and what Linux 6.1 answered in tests.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final, NamedTuple

from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.hypervisor.vpa import AreaError
from chronovisor.isa.registers import REGISTERS, VIEWS, RegisterView
from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.ids import ONE_REG_BY_ID, ONE_REG_BY_NAME, OneReg
from chronovisor.timebase.tbu40 import NoTbu40Error
from chronovisor.timebase.types import MASK64, GuestTime, Offset

DEBUG_INSTRUCTION: Final = 0x00DD_DD00
"""The instruction that KVM wants at a debugger's software breakpoint: an illegal one."""

_LOW_32: Final = 0xFFFF_FFFF


class Stored:
    """Registers of a vCPU that this hypervisor's processor does not use: kept as they are set."""

    def __init__(self) -> None:
        self.plain: dict[str, int] = {}


class Access(NamedTuple):
    """How a register is read and written."""

    get: Callable[[VirtualCpu, Stored], int]
    set: Callable[[VirtualCpu, Stored, int], None]


def get_one_reg(vcpu: VirtualCpu, stored: Stored, register_id: int) -> int:
    """Return the register's value; KvmError if no register has this id."""
    register = _register(vcpu, register_id)
    return _ACCESS[register.name].get(vcpu, stored)


def set_one_reg(vcpu: VirtualCpu, stored: Stored, register_id: int, value: int) -> None:
    """Set the register; KvmError if no register has this id, or if it cannot hold `value`."""
    register = _register(vcpu, register_id)
    if not 0 <= value < 1 << (8 * register.size):
        raise KvmError(
            errno.EINVAL, f"{value:#x} does not fit {register.name}, which has {register.size} bytes"
        )
    try:
        _ACCESS[register.name].set(vcpu, stored, value)
    except (AreaError, NoTbu40Error) as error:
        raise KvmError(errno.EINVAL, str(error)) from None


def _register(vcpu: VirtualCpu, register_id: int) -> OneReg:
    register = ONE_REG_BY_ID.get(register_id)
    if register is None:
        raise KvmError(errno.EINVAL, f"there is no register with the id {register_id:#x}")
    xics = vcpu.machine.xics
    presented = register.name == "ICP_STATE" and xics is not None and vcpu.number in xics.presenters
    if register.name in _NEEDS_INTERRUPT_CONTROLLER and not presented:
        raise KvmError(
            errno.ENXIO, f"{register.name}: the vCPU has no interrupt controller in the kernel's half"
        )
    if register.name not in _ACCESS:
        raise KvmError(errno.EINVAL, f"this host's processor has no {register.name}")
    return register


# The registers, by the object that holds them


def _in_thread(name: str, writable: int = MASK64) -> Access:
    """A register of the ISA's table."""

    def store(vcpu: VirtualCpu, stored: Stored, value: int) -> None:
        vcpu.state.set(name, value & writable)

    return Access(lambda vcpu, stored: vcpu.state.get(name), store)


def _plain(name: str) -> Access:
    def store(vcpu: VirtualCpu, stored: Stored, value: int) -> None:
        stored.plain[name] = value

    return Access(lambda vcpu, stored: stored.plain.get(name, 0), store)


def _vector_scalar(number: int) -> Access:
    def store(vcpu: VirtualCpu, stored: Stored, value: int) -> None:
        vcpu.state.vsr[number] = value

    return Access(lambda vcpu, stored: vcpu.state.vsr[number], store)


def _in_view(view: RegisterView, number: int) -> Access:
    """A vector-scalar register, or a half of one, under its older name."""

    def store(vcpu: VirtualCpu, stored: Stored, value: int) -> None:
        view.set(vcpu.state.vsr, number, value)

    return Access(lambda vcpu, stored: view.get(vcpu.state.vsr, number), store)


def _set_tb_offset(vcpu: VirtualCpu, stored: Stored, value: int) -> None:
    vcpu.set_offset(Offset.rounded_up(value))


def _set_dec_expiry(vcpu: VirtualCpu, stored: Stored, value: int) -> None:
    vcpu.decrementer_expiry = GuestTime(value)


def _set_vtb(vcpu: VirtualCpu, stored: Stored, value: int) -> None:
    vcpu.vcore.vtb.value = value


def _set_purr(vcpu: VirtualCpu, stored: Stored, value: int) -> None:
    vcpu.purr.value = value


def _set_spurr(vcpu: VirtualCpu, stored: Stored, value: int) -> None:
    vcpu.spurr.value = value


def _set_dpdes(vcpu: VirtualCpu, stored: Stored, value: int) -> None:
    vcpu.vcore.dpdes = value


def _set_arch_compat(vcpu: VirtualCpu, stored: Stored, value: int) -> None:
    host = vcpu.host
    if value and value not in host.guest_model.compatible:
        raise KvmError(
            errno.EINVAL, f"a {host.cpu_model.name} cannot be compatible with processor version {value:#x}"
        )
    vcpu.vcore.compatibility = value


def _set_debug_instruction(vcpu: VirtualCpu, stored: Stored, value: int) -> None:
    raise KvmError(errno.EINVAL, "DEBUG_INST is the kernel's to choose: it can only be read")


def _split(value: int) -> tuple[int, int]:
    return value >> 64, value & MASK64


def _get_icp_state(vcpu: VirtualCpu, stored: Stored) -> int:
    assert vcpu.machine.xics is not None
    return vcpu.machine.xics.state(vcpu.number)


def _set_icp_state(vcpu: VirtualCpu, stored: Stored, value: int) -> None:
    assert vcpu.machine.xics is not None
    vcpu.machine.xics.set_state(vcpu.number, value)


_ACCESS: Final[dict[str, Access]] = {
    # Time, which the hypervisor keeps
    "TB_OFFSET": Access(lambda vcpu, stored: vcpu.vcore.offset.value, _set_tb_offset),
    "DEC_EXPIRY": Access(lambda vcpu, stored: vcpu.decrementer_expiry.value, _set_dec_expiry),
    "VTB": Access(lambda vcpu, stored: vcpu.vcore.vtb.value, _set_vtb),
    "PURR": Access(lambda vcpu, stored: vcpu.purr.value, _set_purr),
    "SPURR": Access(lambda vcpu, stored: vcpu.spurr.value, _set_spurr),
    "ICP_STATE": Access(_get_icp_state, _set_icp_state),
    # Registers of the virtual core
    "LPCR_64": Access(
        lambda vcpu, stored: vcpu.vcore.lpcr,
        lambda vcpu, stored, value: vcpu.vcore.set_lpcr(value, MASK64),
    ),
    "LPCR": Access(
        lambda vcpu, stored: vcpu.vcore.lpcr & _LOW_32,
        lambda vcpu, stored, value: vcpu.vcore.set_lpcr(value, _LOW_32),
    ),
    "DPDES": Access(lambda vcpu, stored: vcpu.vcore.dpdes, _set_dpdes),
    "ARCH_COMPAT": Access(lambda vcpu, stored: vcpu.vcore.compatibility, _set_arch_compat),
    # Areas in the guest's memory
    "VPA_ADDR": Access(
        lambda vcpu, stored: vcpu.areas.vpa.address,
        lambda vcpu, stored, value: vcpu.areas.set_vpa(value),
    ),
    "VPA_SLB": Access(
        lambda vcpu, stored: (vcpu.areas.slb_shadow.address << 64) | vcpu.areas.slb_shadow.length,
        lambda vcpu, stored, value: vcpu.areas.set_slb_shadow(*_split(value)),
    ),
    "VPA_DTL": Access(
        lambda vcpu, stored: (
            (vcpu.areas.dispatch_trace_log.address << 64) | vcpu.areas.dispatch_trace_log.length
        ),
        lambda vcpu, stored, value: vcpu.areas.set_dispatch_trace_log(*_split(value)),
    ),
    "DEBUG_INST": Access(lambda vcpu, stored: DEBUG_INSTRUCTION, _set_debug_instruction),
    # Registers of the processor, under KVM's names
    "PID": _in_thread("PIDR"),
    "DAWR": _in_thread("DAWR0"),
    "DAWRX": _in_thread("DAWRX0"),
    "PSSCR": _in_thread("PSSCR", REGISTERS["PSSCR"].writable),
    # Registers of the processor that nothing here reads
    **{
        name: _plain(name)
        for name in (
            *(
                "HIOR",
                "DABR",
                "DABRX",
                "ONLINE",
                "ACOP",
                "CSIGR",
                "TACR",
                "TCSCR",
                "DAWR1",
                "DAWRX1",
            ),
            *("MMCRS", "MMCR3", "SIER2", "SIER3", "PMC7", "PMC8", "SPMC1", "SPMC2"),
        )
    },
    # KVM has ids for the first 32 vector-scalar registers alone: the others are the vector registers.
    **{f"VSR{n}": _vector_scalar(n) for n in range(32)},
    **{f"{view.name}{n}": _in_view(view, n) for view in VIEWS.values() for n in range(view.count)},
}

# Every other register that has the same name in the ISA's table and in KVM's.
_ACCESS.update(
    (name, _in_thread(name))
    for name, register in REGISTERS.items()
    if name in ONE_REG_BY_NAME and name not in _ACCESS and not register.live
)

_NEEDS_INTERRUPT_CONTROLLER: Final = frozenset({"ICP_STATE", "VP_STATE"})
