"""Opening a system by its provider's name."""

from __future__ import annotations

import errno

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.interface import HostOptions, System

PROVIDERS = ("embedded", "linux")


def open_system(options: HostOptions, provider: str = "embedded") -> System:
    """Open a system: `embedded` runs guests in Chronovisor's own hypervisor, `linux` on the kernel's
    `/dev/kvm`.

    Raises KvmError: EINVAL for another name or options that make no sense, ENOSYS for what is not built yet.
    """
    if provider == "embedded":
        # Imported here: a host that drives the kernel's KVM needs nothing of the embedded hypervisor.
        from chronovisor.kvm.embedded.system import EmbeddedSystem

        return EmbeddedSystem(options)
    if provider == "linux":
        raise KvmError(errno.ENOSYS, "the linux provider is not built yet; use the embedded one")
    raise KvmError(errno.EINVAL, f"there is no provider {provider!r}; choose one of {', '.join(PROVIDERS)}")
