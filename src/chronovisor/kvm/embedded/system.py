"""The embedded provider: our own hypervisor in the place of the kernel's `/dev/kvm`."""

from __future__ import annotations

import errno
from typing import Final
from weakref import WeakSet

from chronovisor.engine.choice import engine_named
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.virtual_machine import VirtualMachine
from chronovisor.isa.bits import LPCR
from chronovisor.kvm.embedded.vm import MAX_VCPU_ID, MAX_VCPUS, EmbeddedVm
from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.ids import Cap, VmType
from chronovisor.kvm.interface import HostFacts, HostOptions
from chronovisor.memory.guest_memory import PAGE_SIZE
from chronovisor.processor.cpu_model import CPU_MODELS, POWER9
from chronovisor.timebase.clock import HostClock

_HAVE: Final = {
    **dict.fromkeys((Cap.USER_MEMORY, Cap.SYNC_MMU, Cap.ONE_REG, Cap.ENABLE_CAP, Cap.ENABLE_CAP_VM), 1),
    **dict.fromkeys((Cap.PPC_PAPR, Cap.PPC_ENABLE_HCALL, Cap.PPC_HWRNG, Cap.IMMEDIATE_EXIT), 1),
    **dict.fromkeys((Cap.PPC_UNSET_IRQ, Cap.PPC_IRQ_LEVEL, Cap.PPC_HIOR, Cap.IRQ_XICS), 1),
    Cap.MAX_VCPUS: MAX_VCPUS,
    Cap.MAX_VCPU_ID: MAX_VCPU_ID,
}
"""The capabilities of every host; one that is neither here nor in `check_extension` is 0."""


def hypervisor_for(options: HostOptions) -> Hypervisor:
    """Return a host as the options say. KvmError (EINVAL) for options that make no host."""
    model = POWER9 if options.cpu_model == "auto" else CPU_MODELS.get(options.cpu_model)
    if model is None:
        raise KvmError(
            errno.EINVAL,
            f"there is no processor {options.cpu_model!r}; choose one of {', '.join(CPU_MODELS)}",
        )
    try:
        return Hypervisor(
            options.source,
            options.tb_origin,
            options.cores,
            options.threads_per_core,
            model,
            options.ticks_per_instruction,
            options.observer,
            engine_named(options.engine),
        )
    except ValueError as error:
        raise KvmError(errno.EINVAL, str(error)) from None


class EmbeddedSystem:
    """`kvm.interface.System` over one host."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self.hypervisor = hypervisor
        processor, model = hypervisor.processor, hypervisor.cpu_model
        self.host = HostFacts(
            provider="embedded",
            pvr=model.pvr,
            frequency=hypervisor.source.frequency,
            cores=processor.physical_cores,
            threads_per_core=processor.threads_per_physical_core,
            has_tbu40=model.has_tbu40,
            dec_bits=model.large_decrementer,
            page_size=PAGE_SIZE,
        )
        # A machine that was given up, as a guest's that has moved away, must not stay with its memory.
        self._vms: WeakSet[EmbeddedVm] = WeakSet()

    @property
    def clock(self) -> HostClock:
        """The host's timebase, and the monotonic clock that it counts with."""
        return self.hypervisor.clock

    def check_extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION."""
        host = self.hypervisor
        independent = host.cpu_model.independent_threads
        match cap:
            case Cap.NR_VCPUS:
                return len(host.cores) * host.threads_per_core
            case Cap.PPC_SMT:
                return 1 if independent else host.threads_per_core
            case Cap.PPC_SMT_POSSIBLE:
                return 15 if independent else 2 * host.threads_per_core - 1
            case Cap.PPC_MMU_RADIX:
                return int(bool(host.guest_model.lpcr & LPCR.HR))
            case Cap.PPC_AIL_MODE_3:
                return int(bool(host.guest_model.lpcr_writable & LPCR.AIL))
            case _:
                return _HAVE.get(Cap(cap), 0) if cap in Cap.__members__.values() else 0

    def create_vm(self, vm_type: int = VmType.HV) -> EmbeddedVm:
        """KVM_CREATE_VM."""
        if vm_type not in (VmType.AUTO, VmType.HV):
            raise KvmError(
                errno.EINVAL, f"there is no kind {vm_type} of virtual machine: choose 0 (automatic) or 1 (HV)"
            )
        machine = VirtualMachine(self.hypervisor, stride=self.hypervisor.threads_per_core)
        vm = EmbeddedVm(machine, self.check_extension)
        self._vms.add(vm)
        return vm

    def close(self) -> None:
        """Close every machine."""
        for vm in list(self._vms):
            vm.close()
        self._vms.clear()
