"""What a user attaches to a guest, and the devices that the guest has for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from chronovisor.machine.disk_file import DiskFile, DiskOption
from chronovisor.machine.errors import MachineError
from chronovisor.machine.vio.device import FIRST_UNIT, Surroundings, VioDevice
from chronovisor.machine.vio.vscsi import DiskAdapter, DiskState

MOST_DISKS: Final = 8
_FIRST_DISK: Final = FIRST_UNIT + 0x10
"""The unit of the first disk's adapter; the others follow."""

DeviceState: TypeAlias = DiskState
"""What is kept of a device."""


@dataclass(frozen=True, slots=True)
class Attachments:
    """Disks in their order. The same attachments give a guest the same devices on every host."""

    disks: tuple[DiskOption, ...] = ()

    @classmethod
    def parse(cls, disks: Sequence[str] = ()) -> Attachments:
        """Read what a user wrote, as `DiskOption.parse` does; MachineError for what makes no sense."""
        if len(disks) > MOST_DISKS:
            raise MachineError(f"{len(disks)} disks: a guest has {MOST_DISKS} at most")
        return cls(tuple(DiskOption.parse(disk) for disk in disks))

    def check(self) -> None:
        """MachineError if a file cannot be a disk now; it is known before a guest comes."""
        for disk in self.disks:
            DiskFile(disk).close()

    def open(self, around: Surroundings) -> list[VioDevice]:
        """Return the devices, with their files open and not locked; MachineError if one cannot be opened."""
        devices: list[VioDevice] = []
        try:
            for number, disk in enumerate(self.disks):
                devices.append(DiskAdapter(_FIRST_DISK + number, around, DiskFile(disk)))
        except BaseException:
            for device in devices:
                device.close()
            raise
        return devices


NOTHING: Final = Attachments()
