"""Opening a system by its provider's name."""

from __future__ import annotations

import errno
import os
from typing import Final

from chronovisor.kvm.code_cache import CodeCache
from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.interface import HostOptions, System

PROVIDERS = ("auto", "embedded", "linux")
_POWER: Final = ("ppc64le", "ppc64")
"""What `uname` calls 64-bit Power."""


def open_system(options: HostOptions, provider: str = "embedded") -> System:
    """Open a system: `embedded` runs guests in Chronovisor's own hypervisor, `linux` on the kernel's
    `/dev/kvm`, `auto` on the kernel's where this machine has one that can be what the options ask for.

    Raises KvmError: EINVAL for another name or options that make no sense, and what says why there is no KVM
    for us on this machine.
    """
    # Each is imported here: a host that drives the kernel's KVM needs nothing of the embedded hypervisor.
    provider = settled(options, provider)
    if provider == "embedded":
        from chronovisor.kvm.embedded.system import EmbeddedSystem, hypervisor_for

        return EmbeddedSystem(hypervisor_for(options))
    from chronovisor.kvm.linux.system import LinuxSystem

    return LinuxSystem(options)


def code_cache() -> CodeCache:
    """The files in which the embedded provider keeps native code; another provider makes none."""
    from chronovisor.kvm.embedded.code_cache import kept_code

    return kept_code()


def settled(options: HostOptions, provider: str) -> str:
    """Return the provider that this is, `embedded` or `linux`: for `auto`, linux on a Power machine whose KVM
    can be what the options ask for. KvmError (EINVAL) for another name.
    """
    if provider not in PROVIDERS:
        raise KvmError(
            errno.EINVAL, f"there is no provider {provider!r}; choose one of {', '.join(PROVIDERS)}"
        )
    if provider != "auto":
        return provider
    if os.uname().machine not in _POWER:
        return "embedded"
    from chronovisor.kvm.linux.system import obstacle, unfulfillable

    return "embedded" if unfulfillable(options) is not None or obstacle() is not None else "linux"
