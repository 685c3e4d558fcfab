"""What a user attaches to a guest, and the devices that the guest has for it.

The devices' modules are imported when a guest has such a device: most guests start without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from chronovisor.machine.disk import Disk, DiskOption
from chronovisor.machine.errors import MachineError
from chronovisor.machine.vio.device import FIRST_UNIT, Surroundings, VioDevice

if TYPE_CHECKING:
    from chronovisor.machine.network import NetworkOption
    from chronovisor.machine.vio.lan import NetworkState
    from chronovisor.machine.vio.vscsi import DiskState

MOST_DISKS: Final = 8
_NETWORK: Final = FIRST_UNIT + 0x20
_FIRST_DISK: Final = FIRST_UNIT + 0x10
"""The unit of the first disk's adapter; the others follow."""

DeviceState: TypeAlias = "DiskState | NetworkState"
"""What is kept of a device."""


@dataclass(frozen=True, slots=True)
class Attachments:
    """Disks in their order, and a network. The same give a guest the same devices on every host."""

    disks: tuple[DiskOption, ...] = ()
    network: NetworkOption | None = None

    @classmethod
    def parse(cls, disks: Sequence[str] = (), network: str = "none") -> Attachments:
        """Read what a user wrote, as `DiskOption.parse` and `NetworkOption.parse` do."""
        if len(disks) > MOST_DISKS:
            raise MachineError(f"{len(disks)} disks: a guest has {MOST_DISKS} at most")
        return cls(tuple(DiskOption.parse(disk) for disk in disks), _network(network))

    def check(self) -> None:
        """MachineError if a file cannot be a disk now, or there is no such network."""
        for disk in self.disks:
            _open(disk).close()
        if self.network is not None:
            self.network.check()

    def open(self, around: Surroundings) -> list[VioDevice]:
        """Return the devices, with their files open and not locked; MachineError if one cannot be opened."""
        if self.network is not None and around.virtual:
            raise MachineError("a guest in virtual time has no network: its runs could not be repeated")
        devices: list[VioDevice] = []
        try:
            for number, disk in enumerate(self.disks):
                from chronovisor.machine.vio.vscsi import DiskAdapter

                devices.append(DiskAdapter(_FIRST_DISK + number, around, _open(disk)))
            if self.network is not None:
                from chronovisor.machine.vio.lan import NetworkAdapter

                link = self.network.open()
                devices.append(NetworkAdapter(_NETWORK, around, self.network.address(), link))
        except BaseException:
            for device in devices:
                device.close()
            raise
        return devices


def _open(option: DiskOption) -> Disk:
    if option.format == "qcow2":
        from chronovisor.machine.qcow2_image import Qcow2Image

        return Qcow2Image(option)
    from chronovisor.machine.disk_file import DiskFile

    return DiskFile(option)


def _network(text: str) -> NetworkOption | None:
    if text == "none":
        return None
    from chronovisor.machine.network import NetworkOption

    return NetworkOption.parse(text)


NOTHING: Final = Attachments()
