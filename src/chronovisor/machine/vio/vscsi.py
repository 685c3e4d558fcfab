"""A disk behind a virtual SCSI adapter, `IBM,v-scsi` (LoPAR 1.1, "Virtual SCSI"; T10's SRP).

The guest sends requests through H_SEND_CRQ. Each names an information unit in guest memory. The answer goes
back into the same place, then a message into the guest's queue, then an interrupt. The disk's own thread does
the commands in their order, so the guest goes on meanwhile. Data goes straight between the file and guest
memory.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from chronovisor.machine.disk import SECTOR, Disk
from chronovisor.machine.errors import MachineError
from chronovisor.machine.vio.crq import MESSAGE, CommandQueue, Queue
from chronovisor.machine.vio.device import QueueDevice, Surroundings
from chronovisor.machine.vio.dma_transfer import DmaTransfer
from chronovisor.machine.vio.dma_window import DmaError, Mapped
from chronovisor.machine.vio.scsi_disk import ScsiDisk, Transfer
from chronovisor.machine.vio.worker import Worker
from chronovisor.memory.gate import Place
from chronovisor.papr import scsi, srp
from chronovisor.papr.hcalls import Status
from chronovisor.papr.scsi import ScsiError

REQUESTS: Final = 128
"""How many the guest may have under way."""
_MANAGEMENT_REQUESTS: Final = 4
"""Beyond these, for those that a login does not count."""
_FLAT: Final = 0x3FFF
"""The target, bus and unit in the first two bytes of a LUN. The disk is number 0 of each."""
_COMMAND: Final = bytes((srp.Opcode.COMMAND,))
_NO_INQUIRY: Final = bytes((0x7F, 0, 0x06, 0x02, 31)).ljust(36, b"\0")
"""What INQUIRY says of a unit that is not there."""


@dataclass(frozen=True, slots=True)
class DiskState:
    """A disk adapter as moves and snapshots carry it. It has no request under way."""

    unit: int
    size: int
    """The disk's, in bytes."""
    read_only: bool
    signals: bool
    window: tuple[Mapped, ...]
    queue: Queue
    changed_ns: int
    """When the file was last written to, by the clock of its file system: ns since 1970."""


class DiskAdapter(QueueDevice):
    """The adapter and its one disk."""

    kind = "v-scsi"
    device_type = "vscsi"
    compatible = "IBM,v-scsi"

    def __init__(self, unit: int, around: Surroundings, file: Disk) -> None:
        super().__init__(unit, around)
        self.file = file
        self._queue = CommandQueue(self.window, self.gate)
        self._disk = ScsiDisk(file, f"{unit:x}", around.tell)
        self._worker = Worker(f"disk {unit:x}", threaded=not around.virtual)
        self._calling = threading.Lock()
        """Held during the calls that use the queue: while none is under way the gate may be open."""

    # Hypercalls

    def register_queue(self, address: int, size: int) -> Status:
        """H_REG_CRQ."""
        with self._calling:
            if self._queue.registered:
                return Status.RESOURCE
            return Status.SUCCESS if self._queue.register(address, size) else Status.PARAMETER

    def free_queue(self) -> Status:
        """H_FREE_CRQ: BUSY as long as requests are under way."""
        with self._calling:
            self.gate.close()
            if self._worker.unfinished:
                return Status.BUSY
            self._queue.free()
            return Status.SUCCESS

    def send(self, message: bytes) -> Status:
        """H_SEND_CRQ: a message of the guest's. One that makes no sense has no answer."""
        with self._calling:
            self.gate.close()
            status = self._take(message)
            self._open_gate()
            return status

    def _open_gate(self) -> None:
        """Have hypercalls serve small requests, as long as no request has to wait for others."""
        descriptor = self.file.at_once
        if descriptor is None or self._worker.unfinished or not self._queue.registered or self.around.virtual:
            return
        words = self.gate.words
        words[Place.DESCRIPTOR], words[Place.SECTORS] = descriptor, self.file.size // SECTOR
        words[Place.WRITES] = not (self.file.read_only or self.file.delays)
        self.gate.open()

    def _take(self, message: bytes) -> Status:
        if not self._queue.registered:
            return Status.CLOSED
        if message[0] == srp.Message.INITIALIZATION:
            if message[1] == srp.Initialization.BEGIN:
                self._send(srp.initialization(srp.Initialization.COMPLETE))
        elif message[0] == srp.Message.REQUEST:
            if self._worker.unfinished >= REQUESTS + _MANAGEMENT_REQUESTS:
                return Status.DROPPED
            request = srp.parse_message(message)
            if self._worker.unfinished or not self._serve_at_once(request):
                self._worker.give(lambda: self._serve(request))
        return Status.SUCCESS

    # Requests

    def _serve_at_once(self, request: srp.Request) -> bool:
        """Answer, on the vCPU's thread, a read or a write for which nobody has to wait; False for any other
        request.
        """
        if request.format != srp.Format.SRP:
            return False
        window = self.window
        try:
            unit = window.read(request.address, request.size)
            if unit[:1] != _COMMAND:
                return False
            command = srp.parse_command(unit)
            transfer = DmaTransfer(window, command)
            if command.lun & _FLAT or not self._disk.execute_at_once(command.cdb, transfer):
                return False
            tag = srp.tag_of(unit)
            answer = srp.response(tag, scsi.Status.GOOD, b"", *transfer.left())
            window.write(request.address, answer)
        except (DmaError, srp.UnitError, ScsiError):
            # The disk's thread finds the same, and says it.
            return False
        self._send(srp.answer_message(request.format, len(answer), tag))
        return True

    def _serve(self, request: srp.Request) -> None:
        """Answer a request, on the disk's thread."""
        try:
            unit = self.window.read(request.address, request.size)
            tag = srp.tag_of(unit)
            if request.format == srp.Format.MANAGEMENT:
                answer = self._manage(unit)
            elif request.format == srp.Format.SRP:
                answer = self._answer(unit, tag)
            else:
                return
            self.window.write(request.address, answer)
        except (DmaError, srp.UnitError):
            # There is nobody who could be told.
            return
        self._send(srp.answer_message(request.format, len(answer), tag))

    def _manage(self, unit: bytes) -> bytes:
        kind, buffer = srp.parse_management(unit)
        if kind != srp.Management.ADAPTER_INFO:
            return srp.management_answer(unit, srp.MANAGEMENT_NOT_SUPPORTED)
        self.window.write(buffer.address, srp.adapter_info()[: buffer.size])
        return srp.management_answer(unit, 0)

    def _answer(self, unit: bytes, tag: int) -> bytes:
        if unit[0] == srp.Opcode.LOGIN_REQUEST:
            return srp.login_response(tag, REQUESTS)
        if unit[0] == srp.Opcode.TASK_MANAGEMENT:
            # Requests are done in their order, so all that came before it are done.
            return srp.task_response(tag)
        if unit[0] != srp.Opcode.COMMAND:
            raise srp.UnitError(f"an information unit of type {unit[0]:#x}")
        command = srp.parse_command(unit)
        transfer = DmaTransfer(self.window, command)
        try:
            if command.lun & _FLAT:
                _no_such_unit(command.cdb, transfer)
            else:
                self._disk.execute(command.cdb, transfer)
        except ScsiError as error:
            return srp.response(tag, scsi.Status.CHECK_CONDITION, error.sense.pack(), 0, 0)
        except (DmaError, srp.UnitError):
            return srp.response(tag, scsi.Status.CHECK_CONDITION, scsi.DATA_PHASE_ERROR.pack(), 0, 0)
        return srp.response(tag, scsi.Status.GOOD, b"", *transfer.left())

    def _send(self, message: bytes) -> None:
        # A queue that is full loses messages. Linux's has room for all that may be under way.
        if self._queue.send(message.ljust(MESSAGE, b"\0")):
            self.interrupt()

    # Its life

    def reset(self) -> None:
        """Be as when the machine is switched on."""
        super().reset()
        self._queue.free()

    def pause(self) -> None:
        """Finish all requests."""
        self.gate.close()
        self._worker.wait()

    def resume(self) -> None:
        """Go on."""

    def take(self) -> None:
        """Lock the file."""
        self.file.lock()

    def flush(self) -> None:
        """Have all that was acknowledged on the disk."""
        self.file.save()

    def give_up(self) -> None:
        """Have the file on the disk, and unlock it."""
        self.file.unlock()

    def describe(self) -> str:
        """Return what it is, for people."""
        return "a disk"

    def close(self) -> None:
        """End the disk's thread and close the file."""
        self.gate.close()
        self._worker.close()
        self.file.close()

    def save(self) -> DiskState:
        """Return its state, while it is paused."""
        return DiskState(
            self.unit,
            self.file.size,
            self.file.read_only,
            self.signals,
            self.window.save(),
            self._queue.queue,
            self.file.changed_ns,
        )

    def load(self, state: DiskState) -> None:
        """Go on from a saved state. MachineError if the disk here is another, ValueError if it is of none."""
        if not isinstance(state, DiskState):
            raise MachineError(f"disk {self.file.path}: the guest has another device in its place")
        if (state.size, state.read_only) != (self.file.size, self.file.read_only):
            raise MachineError(
                f"disk {self.file.path}: it has {_size(self.file.size, self.file.read_only)}, "
                f"and the guest's has {_size(state.size, state.read_only)}"
            )
        self.signals = state.signals
        self.window.load(state.window)
        self._queue.load(state.queue)

    def check_unchanged(self, state: DiskState) -> None:
        """MachineError if the file was written to since then."""
        if self.file.changed_ns != state.changed_ns:
            raise MachineError(
                f"disk {self.file.path}: it was written to after the guest was saved: name the disk as it "
                "was (a copy made by cp --preserve=timestamps), or allow it with --changed-disks"
            )


def _size(size: int, read_only: bool) -> str:
    return f"{size} bytes{' and is read-only' if read_only else ''}"


def _no_such_unit(cdb: bytes, transfer: Transfer) -> None:
    if cdb[0] == scsi.Operation.INQUIRY and not cdb[1] & 1:
        transfer.give(_NO_INQUIRY[: int.from_bytes(cdb[3:5], "big")])
    else:
        raise ScsiError(scsi.NO_SUCH_UNIT)
