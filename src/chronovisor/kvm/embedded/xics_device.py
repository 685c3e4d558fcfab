"""The XICS device of the embedded provider: sources as device attributes, in the kernel's layout."""

from __future__ import annotations

import errno
from contextlib import AbstractContextManager
from typing import Final

from chronovisor.hypervisor.xics import FIRST_SOURCE, LEAST_FAVORED, Source, Xics
from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.ids import XicsGroup, XicsSource

XICS_DESCRIPTOR: Final = 1
"""Names the one device that a machine can have."""
_SERVER_MASK: Final = 0xFFFF_FFFF
_SOURCES: Final = range(FIRST_SOURCE, 1 << 20)
"""Numbers that a source can have."""


class XicsDevice:
    """`kvm.interface.Device` over the hypervisor's interrupt controller."""

    def __init__(self, xics: Xics, descriptor: int, monitor: AbstractContextManager[bool]) -> None:
        self.xics = xics
        self._descriptor = descriptor
        self._monitor = monitor

    @property
    def descriptor(self) -> int:
        """What names it to KVM_ENABLE_CAP."""
        return self._descriptor

    def set_attr(self, group: int, attr: int, value: int) -> None:
        """KVM_SET_DEVICE_ATTR: make a source, or set its state."""
        self._check(group, attr)
        source = Source(
            server=value & _SERVER_MASK,
            priority=value >> XicsSource.PRIORITY_SHIFT & 0xFF,
            level_sensitive=bool(value & XicsSource.LEVEL_SENSITIVE),
            pending=bool(value & XicsSource.PENDING),
            presented=bool(value & XicsSource.PRESENTED),
            masked=bool(value & XicsSource.MASKED),
        )
        source.asserted = source.level_sensitive and source.pending
        with self._monitor:
            self.xics.set_source(attr, source)

    def get_attr(self, group: int, attr: int) -> int:
        """KVM_GET_DEVICE_ATTR: a source's state."""
        self._check(group, attr)
        with self._monitor:
            if attr not in self.xics:
                raise KvmError(errno.ENOENT, f"there is no interrupt source {attr}")
            source = self.xics.source(attr)
            value = source.server | source.priority << XicsSource.PRIORITY_SHIFT
            for flag, holds in (
                (XicsSource.LEVEL_SENSITIVE, source.level_sensitive),
                (XicsSource.MASKED, source.masked or source.priority == LEAST_FAVORED),
                (XicsSource.PENDING, source.pending or source.asserted),
                (XicsSource.PRESENTED, source.presented),
            ):
                value |= flag if holds else 0
            return value

    @staticmethod
    def _check(group: int, attr: int) -> None:
        if group != XicsGroup.SOURCES:
            raise KvmError(errno.ENXIO, f"the interrupt controller has no attributes of group {group}")
        if attr not in _SOURCES:
            raise KvmError(errno.EINVAL, f"an interrupt source {attr}: {_SOURCES[0]} to {_SOURCES[-1]}")
