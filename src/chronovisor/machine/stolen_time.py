"""The time for which a guest's vCPUs waited for a physical core, ready to run: stolen time.

The hypervisor counts it in each vCPU's virtual processor area (LoPAR 1.1, section 14.11.2.1), where the guest
reads it, too.
"""

from __future__ import annotations

from chronovisor.kvm.registers import read_register
from chronovisor.machine.guest import Guest
from chronovisor.memory import AddressError
from chronovisor.papr.vpa import VPA_ENQUEUE_DISPATCH_TB
from chronovisor.timebase.types import Ticks


def stolen_time(guest: Guest) -> Ticks | None:
    """Return the sum over the vCPUs that have registered an area; None if none has.

    A running guest is paused for a moment.
    """
    field, found = VPA_ENQUEUE_DISPATCH_TB, []
    with guest.held():
        for vcpu in guest.vcpus:
            area = read_register(vcpu, "VPA_ADDR")
            if area:
                try:
                    found.append(guest.memory.load(area + field.offset, field.size, little=False))
                except AddressError:
                    # Nor does the hypervisor use an area outside memory.
                    continue
    return Ticks(sum(found)) if found else None
