"""The hypercalls of virtual devices: TCEs, interrupts, command queues, networks (LoPAR 1.1, 14.5 and 17)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from chronovisor.machine.devicetree import VTY_UNIT
from chronovisor.machine.hypercall import DONE, Answer, HypercallFunction
from chronovisor.machine.services import Machine
from chronovisor.machine.vcpu_thread import VcpuThread
from chronovisor.machine.vio.device import QueueDevice
from chronovisor.memory import PAGE_SIZE, AddressError
from chronovisor.papr.hcalls import MOST_STUFFED, Hcall, Status

if TYPE_CHECKING:
    from chronovisor.machine.vio.lan import NetworkAdapter

_LIST: Final = PAGE_SIZE // 8
"""Entries that one H_PUT_TCE_INDIRECT sets at most."""


def _put_tce(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_PUT_TCE: set the entry of one I/O page."""
    return _put(machine, args[0], args[1], args[2:3])


def _put_tce_indirect(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_PUT_TCE_INDIRECT: set the entries of I/O pages in a row, from a list in a page of guest memory."""
    window, address, where, count = args[:4]
    if where % PAGE_SIZE or not 0 < count <= _LIST:
        return Answer(Status.PARAMETER)
    try:
        entries = struct.unpack(f">{count}Q", machine.memory.read(where, 8 * count))
    except AddressError:
        return Answer(Status.PARAMETER)
    return _put(machine, window, address, entries)


def _stuff_tce(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_STUFF_TCE: set the entries of I/O pages in a row to one value."""
    window, address, entry, count = args[:4]
    if count > MOST_STUFFED:
        return Answer(Status.PARAMETER)
    return _put(machine, window, address, (entry,) * count)


def _put(machine: Machine, number: int, address: int, entries: tuple[int, ...]) -> Answer:
    window = machine.vio.window(number)
    if window is None or address % PAGE_SIZE or not window.put(address, entries):
        return Answer(Status.PARAMETER)
    return DONE


def _get_tce(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_GET_TCE: the entry of one I/O page."""
    window = machine.vio.window(args[0])
    entry = None if window is None else window.get(args[1])
    return Answer(Status.PARAMETER) if entry is None else Answer(Status.SUCCESS, (entry,))


def _vio_signal(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_VIO_SIGNAL: whether a device may interrupt the guest. The console may from the start."""
    unit, mode = args[:2]
    if mode > 1:
        return Answer(Status.PARAMETER)
    if unit == VTY_UNIT:
        machine.console_signals = bool(mode)
        return DONE
    device = machine.vio.device(unit)
    if device is None:
        return Answer(Status.PARAMETER)
    device.signals = bool(mode)
    return DONE


def _register_queue(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_REG_CRQ: have a device send its messages into a queue."""
    device = _queue_device(machine, args[0])
    return Answer(Status.PARAMETER if device is None else device.register_queue(args[1], args[2]))


def _free_queue(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_FREE_CRQ: the guest's queue is gone."""
    device = _queue_device(machine, args[0])
    return Answer(Status.PARAMETER if device is None else device.free_queue())


def _enable_queue(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_ENABLE_CRQ: queues stay enabled here, over moves too."""
    return Answer(Status.PARAMETER) if _queue_device(machine, args[0]) is None else DONE


def _send(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_SEND_CRQ: a message of 16 bytes for a device."""
    device = _queue_device(machine, args[0])
    if device is None:
        return Answer(Status.PARAMETER)
    return Answer(device.send(struct.pack(">QQ", args[1], args[2])))


def _register_lan(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_REGISTER_LOGICAL_LAN: have a card use a list of buffers and a receive queue."""
    card = _card(machine, args[0])
    return Answer(Status.PARAMETER if card is None else card.register(*args[1:5]))


def _free_lan(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_FREE_LOGICAL_LAN: the buffers and the queue are gone."""
    card = _card(machine, args[0])
    return Answer(Status.PARAMETER if card is None else card.free())


def _add_lan_buffer(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_ADD_LOGICAL_LAN_BUFFER: another buffer for a frame."""
    card = _card(machine, args[0])
    return Answer(Status.PARAMETER if card is None else card.add_buffer(args[1]))


def _free_lan_buffer(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_FREE_LOGICAL_LAN_BUFFER: a buffer of some size is gone."""
    card = _card(machine, args[0])
    return Answer(Status.PARAMETER if card is None else card.free_buffer(args[1]))


def _send_lan(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_SEND_LOGICAL_LAN: a frame in up to six pieces; the token for going on with it is always 0."""
    card = _card(machine, args[0])
    if card is None:
        return Answer(Status.PARAMETER)
    return Answer(card.send(args[1:7], args[7]), (0,))


def _multicast(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_MULTICAST_CTRL: which frames for many the card takes."""
    card = _card(machine, args[0])
    return Answer(Status.PARAMETER if card is None else card.multicast(args[1]))


def _change_address(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_CHANGE_LOGICAL_LAN_MAC: another address of the card."""
    card = _card(machine, args[0])
    return Answer(Status.PARAMETER if card is None else card.change_address(args[1]))


def _lan_attributes(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_ILLAN_ATTRIBUTES: who computes checksums, and whether frames may be large."""
    card = _card(machine, args[0])
    if card is None:
        return Answer(Status.PARAMETER)
    return Answer(Status.SUCCESS, (card.change_attributes(args[1], args[2]),))


def _card(machine: Machine, unit: int) -> NetworkAdapter | None:
    # Most guests have no network.
    from chronovisor.machine.vio.lan import NetworkAdapter

    device = machine.vio.device(unit)
    return device if isinstance(device, NetworkAdapter) else None


def _queue_device(machine: Machine, unit: int) -> QueueDevice | None:
    device = machine.vio.device(unit)
    return device if isinstance(device, QueueDevice) else None


HANDLERS: Final[dict[int, HypercallFunction]] = {
    Hcall.PUT_TCE: _put_tce,
    Hcall.PUT_TCE_INDIRECT: _put_tce_indirect,
    Hcall.STUFF_TCE: _stuff_tce,
    Hcall.GET_TCE: _get_tce,
    Hcall.VIO_SIGNAL: _vio_signal,
    Hcall.REG_CRQ: _register_queue,
    Hcall.FREE_CRQ: _free_queue,
    Hcall.ENABLE_CRQ: _enable_queue,
    Hcall.SEND_CRQ: _send,
    Hcall.REGISTER_LOGICAL_LAN: _register_lan,
    Hcall.FREE_LOGICAL_LAN: _free_lan,
    Hcall.ADD_LOGICAL_LAN_BUFFER: _add_lan_buffer,
    Hcall.FREE_LOGICAL_LAN_BUFFER: _free_lan_buffer,
    Hcall.SEND_LOGICAL_LAN: _send_lan,
    Hcall.MULTICAST_CTRL: _multicast,
    Hcall.CHANGE_LOGICAL_LAN_MAC: _change_address,
    Hcall.ILLAN_ATTRIBUTES: _lan_attributes,
}
