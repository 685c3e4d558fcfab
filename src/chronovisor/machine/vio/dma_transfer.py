"""The data of an SRP command in guest memory, as a disk's commands move it (`scsi_disk.Transfer`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from chronovisor.machine.vio.dma_window import Access, DmaWindow, Run
from chronovisor.papr import scsi, srp
from chronovisor.papr.scsi import ScsiError

# Plain numbers: an IntFlag's operators are slow.
_READ: Final = int(Access.READ)
_WRITE: Final = int(Access.WRITE)


class DmaTransfer:
    """A command's data, through its adapter's window."""

    __slots__ = ("_command", "_given", "_taken", "_window")

    def __init__(self, window: DmaWindow, command: srp.Command) -> None:
        self._window = window
        self._command = command
        self._given = self._taken = 0

    def left(self) -> tuple[int, int]:
        """Return how many bytes of the buffers were not used: of that for the device, of that from it."""
        command = self._command
        return self._unused(command.out, self._taken), self._unused(command.into, self._given)

    def give(self, data: bytes) -> None:
        """Hand data to the guest, as much as it has room for."""
        runs = self._runs(self._command.into, _WRITE, len(data))
        at = 0
        for run in runs:
            self._window.view(run)[:] = data[at : at + run.size]
            at += run.size
        self._window.wrote(runs)
        self._given = at

    def take(self, size: int) -> bytes:
        """Return data of the guest's; ScsiError if it is less."""
        taken = b"".join(bytes(view) for view in self._views(self._exactly(self._command.out, _READ, size)))
        self._taken = size
        return taken

    def fill(self, size: int, read: Callable[[Sequence[memoryview]], None]) -> None:
        """Have `read` fill so many bytes of guest memory; ScsiError if it has less room."""
        runs = self._exactly(self._command.into, _WRITE, size)
        try:
            read(self._views(runs))
        finally:
            self._window.wrote(runs)
        self._given = size

    def drain(self, size: int, write: Callable[[Sequence[memoryview]], None]) -> None:
        """Have `write` take so many bytes of guest memory; ScsiError if they are less."""
        write(self._views(self._exactly(self._command.out, _READ, size)))
        self._taken = size

    def _views(self, runs: Sequence[Run]) -> list[memoryview]:
        return [self._window.view(run) for run in runs]

    def _exactly(self, data: srp.Data, access: int, size: int) -> list[Run]:
        runs = self._runs(data, access, size)
        if sum([run.size for run in runs]) != size:
            raise ScsiError(scsi.DATA_PHASE_ERROR)
        return runs

    def _unused(self, data: srp.Data, used: int) -> int:
        """How many bytes of a command's data were not used, as the answer's field of 32 bits can hold it."""
        if data is srp.NO_DATA:
            return 0
        size = sum([piece.size for piece in self._pieces(data)])
        return min(max(0, size - used), 0xFFFF_FFFF)

    def _pieces(self, data: srp.Data) -> Sequence[srp.Piece]:
        if data.table is None:
            return data.pieces
        if data.table.size > srp.LARGEST_TABLE:
            raise srp.UnitError(f"a table of descriptors of {data.table.size} bytes")
        return srp.parse_descriptors(self._window.read(*data.table))

    def _runs(self, data: srp.Data, access: int, size: int) -> list[Run]:
        """The guest memory of the data's first `size` bytes, or of all if that is less."""
        runs: list[Run] = []
        for address, length in self._pieces(data):
            piece = min(length, size)
            if piece:
                runs += self._window.runs(address, piece, access)
            size -= piece
        return runs
