"""Layouts that hypervisor and guest share in the guest's memory: virtual processor area, dispatch trace log,
SLB shadow.

All of them are big-endian whatever the guest's byte order is. Offsets and sizes are in bytes. Source: LoPAR
1.1, section 14.11 "Shared Processor LPAR Option" (the virtual processor area and its registration, the
dispatch trace log buffers).
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass
from enum import IntEnum, IntFlag
from typing import Final

ALIGNMENT: Final = 128
"""What the address of every area registered with H_REGISTER_VPA is a multiple of (a cache line)."""

PAGE_SIZE: Final = 4096
"""The boundary that a virtual processor area must not cross."""


@dataclass(frozen=True, slots=True)
class AreaField:
    """A big-endian unsigned number in an area: where it lies and how wide it is."""

    offset: int
    size: int

    def pack(self, value: int) -> bytes:
        """Return the field's bytes; OverflowError if `value` does not fit."""
        return value.to_bytes(self.size, "big")

    @staticmethod
    def unpack(data: bytes) -> int:
        """Return the number that a field's bytes hold."""
        return int.from_bytes(data, "big")


VPA_SIZE: Final = 640
"""The least size of a virtual processor area, and the size of ours."""

VPA_LENGTH: Final = AreaField(0x04, 2)
"""The area's own length, which the guest writes before it registers it."""
VPA_STATUS: Final = AreaField(0x09, 1)
"""Bits of the processor's status; `STATUS_SHARED` is the one that the hypervisor sets."""
VPA_DTL_ENABLE_MASK: Final = AreaField(0xB8, 1)
"""Which events the guest asks to be logged: `LogEvents`."""
VPA_IDLE: Final = AreaField(0xFE, 1)
VPA_YIELD_COUNT: Final = AreaField(0x100, 4)
"""Counted up at each dispatch and at each yield: even while the processor runs, odd while it does not."""
VPA_DISPERSION_COUNT: Final = AreaField(0x104, 4)
"""Dispatches on another physical processor than the one before."""
VPA_ENQUEUE_DISPATCH_TB: Final = AreaField(0x158, 8)
"""Ticks that the processor has waited, ready, for a physical one, since the area was registered."""
VPA_READY_ENQUEUE_TB: Final = AreaField(0x160, 8)
"""Ticks from when it had something to run for until it was queued for a physical processor."""
VPA_WAIT_READY_TB: Final = AreaField(0x168, 8)
"""Ticks that it has waited for something to run for, having given its processor up."""
VPA_DTL_INDEX: Final = AreaField(0x218, 8)
"""Entries written to the dispatch trace log since it was registered; stored after the entry itself."""

STATUS_SHARED: Final = 2
"""In `VPA_STATUS`: the partition shares its physical processors."""

AREA_LENGTH: Final = AreaField(0x04, 4)
"""The own length of a dispatch trace log or an SLB shadow, which the guest writes before it registers it."""

SLB_SHADOW_SIZE: Final = 16
"""The least size of an SLB shadow: its header."""

_ENTRY: Final = struct.Struct(">BBHIIIQQQQ")
DTL_ENTRY_SIZE: Final = _ENTRY.size


class DispatchReason(IntEnum):
    """Why a virtual processor was dispatched: an entry's first byte."""

    EXTERNAL_INTERRUPT = 0
    FIRMWARE_EVENT = 1
    PROD = 2
    DECREMENTER_INTERRUPT = 3
    SYSTEM_RESET = 4
    OTHER_FIRMWARE_EVENT = 5
    CONFERRED_CYCLES = 6
    TIME_SLICE = 7
    """Its turn has come. The one reason that KVM ever gives."""
    VIRTUAL_MEMORY_PAGE_FAULT = 8
    EXPROPRIATED_ADJUNCT = 9
    PRIVILEGED_DOORBELL = 10


class PreemptReason(IntEnum):
    """Why it did not run before that dispatch: an entry's second byte."""

    NONE = 0
    FIRMWARE_EVENT = 1
    CEDE = 2
    CONFER = 3
    TIME_SLICE = 4
    MIGRATION_PAGE_FAULT = 5
    VIRTUAL_MEMORY_PAGE_FAULT = 6
    CONFER_ADJUNCT = 7
    HCALL_ADJUNCT = 8
    HDEC_ADJUNCT = 9


class LogEvents(IntFlag):
    """What `VPA_DTL_ENABLE_MASK` is made of: after which preemptions a dispatch is logged."""

    CEDE = 1
    """The guest gave the processor up."""
    PREEMPT = 2
    """The hypervisor took it."""
    FAULT = 4
    """A page of the partition's memory was not there."""

    @classmethod
    def of(cls, reason: PreemptReason) -> LogEvents:
        """Return which of them a preemption is."""
        match reason:
            case PreemptReason.CEDE | PreemptReason.CONFER:
                return cls.CEDE
            case PreemptReason.MIGRATION_PAGE_FAULT | PreemptReason.VIRTUAL_MEMORY_PAGE_FAULT:
                return cls.FAULT
            case _:
                return cls.PREEMPT


@dataclass(frozen=True, slots=True)
class DispatchLogEntry:
    """One entry of a dispatch trace log (48 bytes): one dispatch of a virtual processor."""

    dispatch_reason: int
    preempt_reason: int
    processor_id: int
    """The physical processor that it was dispatched on."""
    enqueue_to_dispatch: int
    """Ticks that it waited, ready, for a physical processor."""
    ready_to_enqueue: int
    waiting_to_ready: int
    timebase: int
    """When it was dispatched: the guest's timebase, 64 bits."""
    fault_addr: int
    srr0: int
    """The guest address at which it continued."""
    srr1: int

    def pack(self) -> bytes:
        """Return the entry's 48 bytes; struct.error if a number does not fit its field."""
        return _ENTRY.pack(*astuple(self))

    @classmethod
    def unpack(cls, data: bytes) -> DispatchLogEntry:
        """Return the entry that 48 bytes hold; struct.error for any other number of bytes."""
        return cls(*_ENTRY.unpack(data))


def entries_in(length: int) -> int:
    """Return how many entries a log of `length` bytes holds before it wraps."""
    return length // DTL_ENTRY_SIZE
