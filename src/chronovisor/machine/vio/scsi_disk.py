"""A SCSI disk over a file: what each command does (T10: SPC-4 for all devices, SBC-3 for disks).

A write is acknowledged when the file has it. It is safe from a crash of the host after SYNCHRONIZE CACHE, or
at once if the command says so (FUA). The disk tells that it has a write cache: this is the host's page cache.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from chronovisor.machine.disk import SECTOR, Disk
from chronovisor.papr import scsi
from chronovisor.papr.scsi import Operation, ScsiError
from chronovisor.papr.srp import LARGEST_TRANSFER

_LONGEST: Final = LARGEST_TRANSFER // SECTOR
"""Sectors that a command may read or write."""
_MOST_UNMAPPED: Final = 255
"""Descriptors of an UNMAP."""
_MOST_AT_ONCE: Final = 64 * 1024 // SECTOR
"""Sectors of a read or a write that a vCPU does itself: moving more takes longer than waking a thread."""
_LARGEST_UNMAP: Final = (1 << 32) - 1
"""Sectors that an UNMAP's descriptor may name."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_LAYOUTS: Final = {
    0: struct.Struct(">xBHB"),
    1: struct.Struct(">xxIxH"),
    4: struct.Struct(">xxQI"),
    5: struct.Struct(">xxII"),
}
"""Where a command has its first sector and their number, by its code's highest three bits."""
_SIX_BYTES: Final = 0
_FORCE_UNIT_ACCESS: Final = 0x08
_CACHING_PAGE: Final = 0x08
_ALL_PAGES: Final = 0x3F
_WRITE_CACHE: Final = 0x04
_READ_ONLY, _KNOWS_FORCE_UNIT_ACCESS = 0x80, 0x10
_READ_CAPACITY_16: Final = 0x10


class Transfer(Protocol):
    """A command's data in the guest's memory; DmaError for memory that cannot be reached."""

    def give(self, data: bytes) -> None:
        """Hand data to the guest, as much as it has room for."""

    def take(self, size: int) -> bytes:
        """Return data of the guest's; ScsiError if it is less."""

    def fill(self, size: int, read: Callable[[Sequence[memoryview]], None]) -> None:
        """Have `read` fill so many bytes of the guest's memory; ScsiError if it has less room."""

    def drain(self, size: int, write: Callable[[Sequence[memoryview]], None]) -> None:
        """Have `write` take so many bytes of the guest's memory; ScsiError if they are less."""


class ScsiDisk:
    """One disk. `tell` is told in a line of what fails on the host, each kind of failure once."""

    def __init__(self, file: Disk, serial: str, tell: Callable[[str], None]) -> None:
        self.file = file
        self._serial = serial.encode()
        self._tell = tell
        self._told: set[tuple[str, int | None]] = set()
        self._sectors = file.size // SECTOR

    def execute(self, cdb: bytes, transfer: Transfer) -> None:
        """Do a command of 16 bytes; ScsiError if it fails, DmaError if its data cannot be moved."""
        command = _COMMANDS.get(cdb[0])
        if command is None:
            raise ScsiError(scsi.INVALID_OPERATION)
        command(self, cdb, transfer)

    def execute_at_once(self, cdb: bytes, transfer: Transfer) -> bool:
        """Do a read or a write that has to wait for nothing; False if the command is another or would wait.

        Some of it may be done then. ScsiError and DmaError as for `execute`.
        """
        command = _COMMANDS.get(cdb[0])
        done = False
        if command is ScsiDisk._read:
            first, count = self._place(cdb)

            def read(views: Sequence[memoryview]) -> None:
                nonlocal done
                done = self.file.read_at_once(first * SECTOR, views)

            if count <= _MOST_AT_ONCE:
                transfer.fill(count * SECTOR, read)
        elif command is ScsiDisk._write and not _is_forced(cdb) and not self.file.read_only:
            first, count = self._place(cdb)

            def write(views: Sequence[memoryview]) -> None:
                nonlocal done
                done = self.file.write_at_once(first * SECTOR, views)

            if count <= _MOST_AT_ONCE:
                transfer.drain(count * SECTOR, write)
        return done

    # What it is

    def _do_nothing(self, cdb: bytes, transfer: Transfer) -> None:
        """The disk is always ready, and its medium cannot be taken out."""

    def _request_sense(self, cdb: bytes, transfer: Transfer) -> None:
        transfer.give(scsi.NO_SENSE.pack()[: cdb[4]])

    def _report_luns(self, cdb: bytes, transfer: Transfer) -> None:
        only = bytes(8)
        transfer.give((struct.pack(">I4x", len(only)) + only)[: int.from_bytes(cdb[6:10], "big")])

    def _inquiry(self, cdb: bytes, transfer: Transfer) -> None:
        vital, page, length = cdb[1] & 1, cdb[2], int.from_bytes(cdb[3:5], "big")
        if not vital:
            if page:
                raise ScsiError(scsi.INVALID_FIELD)
            transfer.give(_INQUIRY[:length])
            return
        contents = self._vital_page(page)
        transfer.give((struct.pack(">BBH", 0, page, len(contents)) + contents)[:length])

    def _vital_page(self, page: int) -> bytes:
        if page == 0x00:
            return bytes(_VITAL_PAGES)
        if page == 0x80:
            return self._serial
        if page == 0x83:
            # A designator in ASCII that begins with the vendor.
            name = _VENDOR + self._serial
            return struct.pack(">BBxB", 2, 1, len(name)) + name
        if page == 0xB0:
            unmap = (0, 0) if self.file.read_only else (_LARGEST_UNMAP, _MOST_UNMAPPED)
            return struct.pack(">4xII4xII36x", _LONGEST, _LONGEST, *unmap)
        if page == 0xB1:
            not_rotating = 1
            return struct.pack(">H58x", not_rotating)
        if page == 0xB2:
            unmaps, thin = 0x80, 2
            return struct.pack(">xBBx", *((0, 0) if self.file.read_only else (unmaps, thin)))
        raise ScsiError(scsi.INVALID_FIELD)

    def _mode_sense(self, cdb: bytes, transfer: Transfer) -> None:
        short = cdb[0] == Operation.MODE_SENSE_6
        control, page, subpage = cdb[2] >> 6, cdb[2] & 0x3F, cdb[3]
        if page not in (_CACHING_PAGE, _ALL_PAGES) or subpage not in (0, 0xFF):
            raise ScsiError(scsi.INVALID_FIELD)
        changeable = 1
        cache = 0 if control == changeable else _WRITE_CACHE
        contents = struct.pack(">BBB17x", _CACHING_PAGE, 18, cache)
        device = _KNOWS_FORCE_UNIT_ACCESS | (_READ_ONLY if self.file.read_only else 0)
        if short:
            answer = struct.pack(">BxBx", 3 + len(contents), device) + contents
            transfer.give(answer[: cdb[4]])
        else:
            answer = struct.pack(">HxB4x", 6 + len(contents), device) + contents
            transfer.give(answer[: int.from_bytes(cdb[7:9], "big")])

    def _read_capacity_10(self, cdb: bytes, transfer: Transfer) -> None:
        transfer.give(struct.pack(">II", min(self._sectors - 1, 0xFFFF_FFFF), SECTOR))

    def _service_action_in(self, cdb: bytes, transfer: Transfer) -> None:
        if cdb[1] & 0x1F != _READ_CAPACITY_16:
            raise ScsiError(scsi.INVALID_FIELD)
        thin = 0 if self.file.read_only else 0x80
        answer = struct.pack(">QIxxB17x", self._sectors - 1, SECTOR, thin)
        transfer.give(answer[: int.from_bytes(cdb[10:14], "big")])

    # What it does

    def _read(self, cdb: bytes, transfer: Transfer) -> None:
        first, count = self._place(cdb)

        def read(views: Sequence[memoryview]) -> None:
            try:
                self.file.read(first * SECTOR, views)
            except OSError as error:
                raise self._failed("reading", error, scsi.READ_ERROR) from error

        transfer.fill(count * SECTOR, read)

    def _write(self, cdb: bytes, transfer: Transfer) -> None:
        first, count = self._place(cdb)
        self._check_writable()

        def write(views: Sequence[memoryview]) -> None:
            try:
                self.file.write(first * SECTOR, views)
            except OSError as error:
                raise self._failed("writing", error, scsi.WRITE_ERROR) from error

        transfer.drain(count * SECTOR, write)
        if _is_forced(cdb):
            self._flush()

    def _verify(self, cdb: bytes, transfer: Transfer) -> None:
        if cdb[1] & 0x06:
            # It is asked to compare with data.
            raise ScsiError(scsi.INVALID_FIELD)
        self._check_range(*_place(cdb))

    def _synchronize(self, cdb: bytes, transfer: Transfer) -> None:
        self._flush()

    def _unmap(self, cdb: bytes, transfer: Transfer) -> None:
        self._check_writable()
        length = int.from_bytes(cdb[7:9], "big")
        if length < _UNMAP_HEAD.size:
            if length:
                raise ScsiError(scsi.INVALID_PARAMETER)
            return
        if length > _UNMAP_HEAD.size + _MOST_UNMAPPED * _UNMAP_DESCRIPTOR.size:
            raise ScsiError(scsi.INVALID_FIELD)
        parameters = transfer.take(length)
        size = _UNMAP_HEAD.unpack_from(parameters)[0]
        descriptors = parameters[_UNMAP_HEAD.size :][:size]
        if len(descriptors) != size or size % _UNMAP_DESCRIPTOR.size:
            raise ScsiError(scsi.INVALID_PARAMETER)
        areas = list(_UNMAP_DESCRIPTOR.iter_unpack(descriptors))
        for first, count in areas:
            self._check_range(first, count)
        for first, count in areas:
            try:
                if count:
                    self.file.discard(first * SECTOR, count * SECTOR)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise self._failed("discarding", error, scsi.WRITE_ERROR) from error
                # The file system cannot; the guest loses nothing by it.

    def _flush(self) -> None:
        try:
            self.file.flush()
        except OSError as error:
            raise self._failed("flushing", error, scsi.WRITE_ERROR) from error

    def _place(self, cdb: bytes) -> tuple[int, int]:
        """Return the first sector of a read or write, and how many they are."""
        first, count = _place(cdb)
        self._check_range(first, count)
        if count > _LONGEST or (cdb[0] >> 5 != _SIX_BYTES and cdb[1] >> 5):
            # Too long, or with protection information.
            raise ScsiError(scsi.INVALID_FIELD)
        return first, count

    def _check_range(self, first: int, count: int) -> None:
        if first + count > self._sectors:
            raise ScsiError(scsi.OUT_OF_RANGE)

    def _check_writable(self) -> None:
        if self.file.read_only:
            raise ScsiError(scsi.WRITE_PROTECTED)

    def _failed(self, doing: str, error: OSError, sense: scsi.Sense) -> ScsiError:
        if (doing, error.errno) not in self._told:
            self._told.add((doing, error.errno))
            self._tell(f"disk {self.file.path}: {doing} failed: {error.strerror}; the guest was told")
        return ScsiError(scsi.NO_SPACE if error.errno in _FULL else sense)


def _is_forced(cdb: bytes) -> bool:
    """Whether what a write writes is to be safe when it is acknowledged."""
    return cdb[0] >> 5 != _SIX_BYTES and bool(cdb[1] & _FORCE_UNIT_ACCESS)


def _place(cdb: bytes) -> tuple[int, int]:
    group = cdb[0] >> 5
    if group == _SIX_BYTES:
        high, low, count = _LAYOUTS[group].unpack_from(cdb)
        return (high & 0x1F) << 16 | low, count or 256
    first, count = _LAYOUTS[group].unpack_from(cdb)
    return first, count


_UNMAP_HEAD: Final = struct.Struct(">xxH4x")
_UNMAP_DESCRIPTOR: Final = struct.Struct(">QI4x")
_VENDOR: Final = b"CHRONVSR"
_VITAL_PAGES: Final = (0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2)
_INQUIRY: Final = struct.pack(
    # Version (SPC-4), response format, length of the rest, command queuing.
    ">BBBBBxxB8s16s4s",
    0,
    0,
    0x06,
    0x02,
    31,
    0x02,
    _VENDOR,
    b"VIRTUAL DISK    ",
    b"1   ",
)
_COMMANDS: Final[dict[int, Callable[[ScsiDisk, bytes, Transfer], None]]] = {
    Operation.TEST_UNIT_READY: ScsiDisk._do_nothing,
    Operation.START_STOP_UNIT: ScsiDisk._do_nothing,
    Operation.PREVENT_ALLOW_MEDIUM_REMOVAL: ScsiDisk._do_nothing,
    Operation.REQUEST_SENSE: ScsiDisk._request_sense,
    Operation.INQUIRY: ScsiDisk._inquiry,
    Operation.MODE_SENSE_6: ScsiDisk._mode_sense,
    Operation.MODE_SENSE_10: ScsiDisk._mode_sense,
    Operation.READ_CAPACITY_10: ScsiDisk._read_capacity_10,
    Operation.SERVICE_ACTION_IN_16: ScsiDisk._service_action_in,
    Operation.REPORT_LUNS: ScsiDisk._report_luns,
    **dict.fromkeys(
        (Operation.READ_6, Operation.READ_10, Operation.READ_12, Operation.READ_16), ScsiDisk._read
    ),
    **dict.fromkeys(
        (Operation.WRITE_6, Operation.WRITE_10, Operation.WRITE_12, Operation.WRITE_16), ScsiDisk._write
    ),
    **dict.fromkeys((Operation.VERIFY_10, Operation.VERIFY_16), ScsiDisk._verify),
    **dict.fromkeys((Operation.SYNCHRONIZE_CACHE_10, Operation.SYNCHRONIZE_CACHE_16), ScsiDisk._synchronize),
    Operation.UNMAP: ScsiDisk._unmap,
}
