"""A guest's disk on the host's side, whatever format its file has, and how a user names it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chronovisor.machine.errors import MachineError

SECTOR: Final = 512
"""Bytes."""
FORMATS: Final = ("raw", "qcow2")


@dataclass(frozen=True, slots=True)
class DiskOption:
    """A disk as a user names it."""

    path: str
    read_only: bool = False
    format: str = ""
    """"raw", "qcow2", or nothing: raw too, unless the file looks like qcow2."""

    @classmethod
    def parse(cls, text: str) -> DiskOption:
        """Read `FILE[,ro][,format=raw|qcow2]`; MachineError if it is something else.

        A comma in the file's name is written twice.
        """
        path, *options = text.replace(",,", "\0").split(",")
        path = path.replace("\0", ",")
        read_only, form = False, ""
        for option in options:
            key, _, value = option.partition("=")
            if option == "ro":
                read_only = True
            elif key == "format" and value in FORMATS:
                form = value
            else:
                raise MachineError(
                    f"disk {text!r}: {option!r} is no option: write FILE[,ro][,format=raw|qcow2]"
                )
        if not path:
            raise MachineError(f"disk {text!r}: it names no file")
        return cls(path, read_only, form)


class Disk(ABC):
    """An open disk. It may be read and written once it is locked.

    MachineError for a file that cannot be a disk. OSError for what fails while the guest uses it.
    """

    size: int
    """In bytes."""

    def __init__(self, option: DiskOption) -> None:
        self.path = option.path
        self.read_only = option.read_only

    @property
    @abstractmethod
    def changed_ns(self) -> int:
        """When its file was last written to, by the clock of the file system: ns since 1970."""

    @abstractmethod
    def lock(self) -> None:
        """Lock it, once or again; MachineError if another process has it."""

    @abstractmethod
    def unlock(self) -> None:
        """Have all that was written on the disk, and let others lock it; MachineError if that fails."""

    def save(self) -> None:
        """Have all that was written on the disk, as `flush`; MachineError if that fails."""
        try:
            self.flush()
        except OSError as error:
            raise self.refused(f"what the guest wrote could not be saved: {error.strerror}") from None

    @abstractmethod
    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        """Fill memory from an offset on."""

    @property
    def at_once(self) -> int | None:
        """The descriptor of a file by which the machine reads and writes what it can at once; None: there is
        none. The file's bytes are the disk's.
        """
        return None

    @property
    def delays(self) -> bool:
        """Whether writing took long a moment ago: hypercalls leave writes to `write_at_once` then."""
        return False

    def read_at_once(self, offset: int, into: Sequence[memoryview]) -> bool:
        """Fill memory as `read` does, and wait for nothing; False if that cannot be: some may be filled."""
        return False

    def write_at_once(self, offset: int, data: Sequence[memoryview]) -> bool:
        """Write memory as `write` does, in no long time; False if that cannot be: some may be written."""
        return False

    @abstractmethod
    def write(self, offset: int, data: Sequence[memoryview]) -> None:
        """Write memory from an offset on."""

    @abstractmethod
    def flush(self) -> None:
        """Return when all that was written is on the disk."""

    @abstractmethod
    def discard(self, offset: int, size: int) -> None:
        """Give back the space of some contents, which are zeros then if the host can do that."""

    @abstractmethod
    def close(self) -> None:
        """Close it, and with it its lock. Repeatable."""

    def refused(self, reason: str) -> MachineError:
        """Return the error that names this disk."""
        return MachineError(f"disk {self.path}: {reason}")
