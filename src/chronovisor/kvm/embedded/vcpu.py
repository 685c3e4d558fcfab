"""A vCPU of the embedded provider."""

from __future__ import annotations

import errno
import logging
from collections.abc import Sequence
from typing import Final

from chronovisor.hypervisor import exits as hypervisor_exits
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.kvm.embedded.one_regs import Stored, get_one_reg, set_one_reg
from chronovisor.kvm.embedded.xics_device import XICS_DESCRIPTOR
from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.exits import (
    DebugExit,
    Exit,
    FailEntry,
    HcallExit,
    InternalError,
    Interrupted,
    SystemEvent,
)
from chronovisor.kvm.ids import Cap, SystemEventType
from chronovisor.kvm.structures import Regs, Sregs
from chronovisor.papr.hcalls import CALL_ARGUMENTS
from chronovisor.timebase.run_trace import RunTrace
from chronovisor.timebase.types import MASK64

_SCALARS: Final = {
    "pc": "CIA",
    "cr": "CR",
    "ctr": "CTR",
    "lr": "LR",
    "xer": "XER",
    "msr": "MSR",
    "srr0": "SRR0",
    "srr1": "SRR1",
    "pid": "PIDR",
}
"""Fields of `Regs` and the registers that they are."""

_SPRGS: Final = 4
"""SPRG0 to SPRG3 are registers of the processor; the other four of `Regs` are only kept."""

log = logging.getLogger(__name__)


class EmbeddedVcpu:
    """`kvm.interface.Vcpu` over the embedded hypervisor."""

    def __init__(self, vcpu: VirtualCpu) -> None:
        self._vcpu = vcpu
        self._stored = Stored()
        self._other_sprgs = [0] * (8 - _SPRGS)
        self._unanswered: HcallExit | None = None

    @property
    def id(self) -> int:
        """The id that it was made with."""
        return self._vcpu.number

    def run(self) -> Exit:
        """KVM_RUN."""
        try:
            answered, self._unanswered = self._unanswered, None
            if answered is None:
                ended = self._vcpu.run()
            else:
                results = answered.results
                ended = self._vcpu.run(answered.ret & MASK64, self._as_words(results) if results else ())
            if isinstance(ended, HcallExit):
                self._unanswered = ended
                return ended
            return self._exit(ended)
        except Exception as error:
            # A mistake of ours. The vCPU is out of the guest; the others continue.
            log.exception("vCPU %d", self.id)
            return InternalError(f"vCPU {self.id}: {type(error).__name__}: {error}")

    def kick(self) -> None:
        """`kvm_run.immediate_exit`, and a signal to the thread."""
        self._vcpu.kick()

    def bind(self) -> None:
        """Take turns from now on, in virtual time."""
        self._vcpu.host.scheduler.bind(self._vcpu.seat)

    def unbind(self) -> None:
        """Stop taking turns."""
        self._vcpu.host.scheduler.unbind(self._vcpu.seat)

    def get_one_reg(self, register_id: int) -> int:
        """KVM_GET_ONE_REG."""
        with self._vcpu.access():
            return get_one_reg(self._vcpu, self._stored, register_id)

    def set_one_reg(self, register_id: int, value: int) -> None:
        """KVM_SET_ONE_REG."""
        with self._vcpu.access():
            set_one_reg(self._vcpu, self._stored, register_id, value)

    def get_regs(self) -> Regs:
        """KVM_GET_REGS."""
        with self._vcpu.access():
            state = self._vcpu.state
            return Regs(
                **{field: state.get(name) for field, name in _SCALARS.items()},
                sprg=[*(state.get(f"SPRG{n}") for n in range(_SPRGS)), *self._other_sprgs],
                gpr=list(state.gpr),
            )

    def set_regs(self, regs: Regs) -> None:
        """KVM_SET_REGS. If a value is not an unsigned 64-bit number: EINVAL, and nothing is set."""
        values = {name: getattr(regs, field) for field, name in _SCALARS.items()}
        if len(regs.gpr) != 32 or len(regs.sprg) != 8:
            raise KvmError(errno.EINVAL, "there are 32 general purpose registers and 8 SPRGs")
        for value in (*values.values(), *regs.gpr, *regs.sprg):
            if not 0 <= value <= MASK64:
                raise KvmError(errno.EINVAL, f"{value:#x} does not fit a register of 64 bits")
        # Instructions are words at multiples of 4: the processor has no other bits of their address.
        values["CIA"] &= ~3
        with self._vcpu.access():
            state = self._vcpu.state
            for name, value in values.items():
                state.set(name, value)
            for n in range(_SPRGS):
                state.set(f"SPRG{n}", regs.sprg[n])
            self._other_sprgs = list(regs.sprg[_SPRGS:])
            state.gpr[:] = regs.gpr

    def get_sregs(self) -> Sregs:
        """KVM_GET_SREGS."""
        return Sregs(pvr=self._vcpu.host.cpu_model.pvr)

    def set_sregs(self, sregs: Sregs) -> None:
        """KVM_SET_SREGS. EINVAL for another processor's version, and for an SDR1 or SLB entry, which this
        processor does not have.
        """
        model = self._vcpu.host.cpu_model
        if sregs.pvr != model.pvr:
            raise KvmError(
                errno.EINVAL,
                f"a guest of processor version {sregs.pvr:#x} cannot run on {model.pvr:#x} ({model.name})",
            )

        if sregs.sdr1 or any(slbe or slbv for slbe, slbv in sregs.slb):
            raise KvmError(
                errno.EINVAL,
                "this host's processor translates no addresses by hashed page tables: it cannot keep "
                f"SDR1 {sregs.sdr1:#x} and {len(sregs.slb)} SLB entries",
            )

    def enable_cap(self, cap: int, *args: int, flags: int = 0) -> None:
        """KVM_ENABLE_CAP; hypercalls reach user space in any case, as they do under the kernel's HV."""
        if cap == Cap.IRQ_XICS and not flags:
            self._connect_xics(*(*args, 0, 0)[:2])
        elif cap != Cap.PPC_PAPR or flags:
            raise KvmError(errno.EINVAL, f"capability {cap} cannot be enabled on a vCPU")

    def _connect_xics(self, descriptor: int, server: int) -> None:
        xics = self._vcpu.machine.xics
        if xics is None or descriptor != XICS_DESCRIPTOR:
            raise KvmError(errno.EPERM, f"the descriptor {descriptor} names no interrupt controller")
        if server != self.id:
            raise KvmError(errno.EINVAL, f"vCPU {self.id} as server {server}: the numbers must be equal")
        try:
            with self._vcpu.host.scheduler.monitor:
                xics.connect(server, self._vcpu)
        except ValueError as error:
            raise KvmError(errno.EBUSY, str(error)) from None

    def single_step(self, on: bool) -> None:
        """KVM_SET_GUEST_DEBUG."""
        with self._vcpu.access():
            self._vcpu.debugged.single_step = on

    def translate(self, address: int) -> int | None:
        """KVM_TRANSLATE."""
        with self._vcpu.access():
            return self._vcpu.state.looked_up(address)

    def trace(self, trace: RunTrace | None) -> None:
        """Tell what happens inside runs."""
        with self._vcpu.access():
            self._vcpu.trace = trace

    def interrupt(self, level: bool) -> None:
        """KVM_INTERRUPT."""
        self._vcpu.set_external(level)

    @staticmethod
    def _as_words(results: Sequence[int]) -> Sequence[int]:
        """Return user space's results of a hypercall as registers hold them."""
        if len(results) > CALL_ARGUMENTS:
            raise KvmError(errno.EINVAL, f"a hypercall has at most {CALL_ARGUMENTS} results, r4 to r12")
        return [word & MASK64 for word in results]

    def _exit(self, ended: hypervisor_exits.Exit) -> Exit:
        match ended:
            case hypervisor_exits.Kicked():
                return Interrupted()
            case hypervisor_exits.Debugged(address, stepped, watchpoint):
                return DebugExit(address, stepped, watchpoint)
            case hypervisor_exits.FailedEntry(message):
                return FailEntry(0, message)
            case hypervisor_exits.Crashed(vector, srr0, srr1, message):
                return SystemEvent(SystemEventType.CRASH, (vector, srr0, srr1), message)
            case _:
                raise TypeError(f"a run ended with {ended}, which KVM does not know")
