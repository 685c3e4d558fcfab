"""The areas of its memory that a guest shares with the hypervisor: their registration and the virtual
processor area.

Registering an area (by H_REGISTER_VPA, or by user space through KVM's registers) tells its address. The
hypervisor begins to use it at the next entry. Rules: LoPAR 1.1, section 14.11.2.1; KVM's documentation of
KVM_REG_PPC_VPA_ADDR, _SLB and _DTL.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from chronovisor.memory.guest_memory import AddressError
from chronovisor.papr.hcalls import Status
from chronovisor.papr.vpa import (
    ALIGNMENT,
    AREA_LENGTH,
    DTL_ENTRY_SIZE,
    PAGE_SIZE,
    SLB_SHADOW_SIZE,
    STATUS_SHARED,
    VPA_LENGTH,
    VPA_SIZE,
    VPA_STATUS,
    VPA_YIELD_COUNT,
    AreaField,
)

if TYPE_CHECKING:
    from chronovisor.memory.guest_memory import GuestMemory


class Function(IntEnum):
    """What H_REGISTER_VPA has to do: three bits of its flags."""

    REGISTER_VPA = 1
    REGISTER_DTL = 2
    REGISTER_SLB_SHADOW = 3
    DEREGISTER_VPA = 5
    DEREGISTER_DTL = 6
    DEREGISTER_SLB_SHADOW = 7


# Plain numbers: each dispatch counts there twice.
_YIELD_COUNT_AT, _YIELD_COUNT_SIZE = VPA_YIELD_COUNT.offset, VPA_YIELD_COUNT.size

FUNCTION_SHIFT = 45
"""The place of the function in the flags of H_REGISTER_VPA (bits 16:18)."""


class AreaError(ValueError):
    """User space asked for an area that KVM refuses."""


class Area:
    """One area: the one that was asked for (`address`, 0 for none, and `length`), and the one in use."""

    __slots__ = ("address", "goes_on", "in_use", "length", "pending", "size_in_use")

    def __init__(self) -> None:
        self.address = 0
        self.length = 0
        self.pending = False
        """Whether the next entry has to begin using what was asked for."""
        self.goes_on = False
        """Whether its counters continue from the values in memory, because it moved here with the guest."""
        self.in_use = 0
        """The address of the area that the hypervisor reads and writes; 0 for none."""
        self.size_in_use = 0

    @property
    def registered(self) -> bool:
        """Whether an area is registered, as far as the guest knows."""
        return self.address != 0

    def ask_for(self, address: int, length: int, goes_on: bool = False) -> None:
        """Ask for the area to be at `address` from the next entry on; 0 asks for no area."""
        self.address, self.length = address, length if address else 0
        self.pending, self.goes_on = True, goes_on

    def take_effect(self, memory: GuestMemory) -> bool:
        """Begin using what was asked for, at an entry; return whether an area came into use."""
        if not self.pending:
            return False
        self.pending = False
        # User space may name an address outside the guest's memory: then no area is used, as in KVM.
        there = _is_inside(memory, self.address, self.length)
        self.in_use, self.size_in_use = (self.address, self.length) if there else (0, 0)
        return self.in_use != 0


class Areas:
    """A vCPU's three areas."""

    def __init__(self) -> None:
        self.vpa = Area()
        self.slb_shadow = Area()
        self.dispatch_trace_log = Area()

    def begin_anew(self) -> None:
        """Begin using the areas that are registered at the next entry, as if the guest had just come here."""
        for area in (self.vpa, self.slb_shadow, self.dispatch_trace_log):
            if area.registered:
                area.ask_for(area.address, area.length, goes_on=area is not self.slb_shadow)

    # As the guest asks

    def call(self, function: int, address: int, memory: GuestMemory) -> Status:
        """Do what H_REGISTER_VPA asks for and return its status; change nothing unless it is SUCCESS."""
        match function:
            case Function.REGISTER_VPA | Function.REGISTER_DTL | Function.REGISTER_SLB_SHADOW:
                return self._register(Function(function), address, memory)
            case Function.DEREGISTER_VPA:
                if self.dispatch_trace_log.registered or self.slb_shadow.registered:
                    return Status.RESOURCE
                self.vpa.ask_for(0, 0)
            case Function.DEREGISTER_DTL:
                self.dispatch_trace_log.ask_for(0, 0)
            case Function.DEREGISTER_SLB_SHADOW:
                self.slb_shadow.ask_for(0, 0)
            case _:
                return Status.PARAMETER
        return Status.SUCCESS

    def _register(self, function: Function, address: int, memory: GuestMemory) -> Status:
        if not address or address % ALIGNMENT:
            return Status.PARAMETER
        is_vpa = function is Function.REGISTER_VPA
        try:
            length = _load(memory, address, VPA_LENGTH if is_vpa else AREA_LENGTH)
        except AddressError:
            return Status.PARAMETER
        if not _is_inside(memory, address, length):
            return Status.PARAMETER
        if is_vpa:
            if length < VPA_SIZE or address % PAGE_SIZE + VPA_SIZE > PAGE_SIZE:
                return Status.PARAMETER
            self.vpa.ask_for(address, length)
            return Status.SUCCESS
        is_log = function is Function.REGISTER_DTL
        if length < (DTL_ENTRY_SIZE if is_log else SLB_SHADOW_SIZE):
            return Status.PARAMETER
        if not self.vpa.registered:
            return Status.RESOURCE
        if is_log:
            self.dispatch_trace_log.ask_for(address, _whole_entries(length))
        else:
            self.slb_shadow.ask_for(address, length)
        return Status.SUCCESS

    # As user space asks

    def set_vpa(self, address: int) -> None:
        """Set the virtual processor area's address; 0 for none. Raises AreaError if KVM would refuse it."""
        if not address and (self.slb_shadow.registered or self.dispatch_trace_log.registered):
            raise AreaError("an SLB shadow or a dispatch trace log is registered: the VPA has to stay")
        _check_alignment(address)
        self.vpa.ask_for(address, VPA_SIZE, goes_on=True)

    def set_slb_shadow(self, address: int, length: int) -> None:
        """Set the SLB shadow; address 0 for none. Raises AreaError if KVM would refuse it."""
        if address and not self.vpa.registered:
            raise AreaError("an SLB shadow needs a VPA: register that first")
        _check_alignment(address)
        self.slb_shadow.ask_for(address, length)

    def set_dispatch_trace_log(self, address: int, length: int) -> None:
        """Set the dispatch trace log; address 0 for none. Raises AreaError if KVM would refuse it."""
        if address and not self.vpa.registered:
            raise AreaError("a dispatch trace log needs a VPA: register that first")
        if address and length < DTL_ENTRY_SIZE:
            raise AreaError(f"a dispatch trace log of {length} bytes: one entry has {DTL_ENTRY_SIZE}")
        _check_alignment(address)
        self.dispatch_trace_log.ask_for(address, _whole_entries(length), goes_on=True)

    # At an entry and at an exit

    def begin_dispatch(self, memory: GuestMemory) -> bool:
        """Use what was registered since the last entry, and count the dispatch; return whether another log
        than before is in use.
        """
        vpa = self.vpa
        asked = vpa.pending or self.slb_shadow.pending or self.dispatch_trace_log.pending
        new_log = self._take_effect(memory) if asked else False
        if vpa.in_use:
            memory.add(vpa.in_use + _YIELD_COUNT_AT, _YIELD_COUNT_SIZE, 1)
        return new_log

    def end_dispatch(self, memory: GuestMemory) -> None:
        """Count that the processor stops running."""
        vpa = self.vpa
        if vpa.in_use:
            memory.add(vpa.in_use + _YIELD_COUNT_AT, _YIELD_COUNT_SIZE, 1)

    def yield_count(self, memory: GuestMemory) -> int:
        """Return the yield count in the virtual processor area; 0 without an area."""
        return _load(memory, self.vpa.in_use, VPA_YIELD_COUNT) if self.vpa.in_use else 0

    def _take_effect(self, memory: GuestMemory) -> bool:
        """Use what was registered since the last entry; return whether a log came into use."""
        if self.vpa.take_effect(memory):
            status = _load(memory, self.vpa.in_use, VPA_STATUS)
            _store(memory, self.vpa.in_use, VPA_STATUS, status | STATUS_SHARED)
            # Odd, because the vCPU does not run yet.
            count = self.yield_count(memory) if self.vpa.goes_on else 0
            _store(memory, self.vpa.in_use, VPA_YIELD_COUNT, count | 1)
        self.slb_shadow.take_effect(memory)
        return self.dispatch_trace_log.take_effect(memory)


def _is_inside(memory: GuestMemory, address: int, length: int) -> bool:
    """Return whether an area lies in the guest's memory; nothing of it is read."""
    return address + length <= memory.size


def _check_alignment(address: int) -> None:
    if address % ALIGNMENT:
        raise AreaError(f"an area at {address:#x}: its address must be a multiple of {ALIGNMENT}")


def _whole_entries(length: int) -> int:
    return length - length % DTL_ENTRY_SIZE


def _load(memory: GuestMemory, address: int, field: AreaField) -> int:
    return memory.load(address + field.offset, field.size, little=False)


def _store(memory: GuestMemory, address: int, field: AreaField, value: int) -> None:
    memory.store(address + field.offset, field.size, value, little=False)
