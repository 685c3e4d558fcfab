"""User space's half: the pseries machine, image loading, device tree, RTAS, console.

with Host(tb_origin=1 << 40) as host:
    guest = host.boot("hello-le.elf", console=print)
    end = guest.run()
"""

from chronovisor.machine.console import Console
from chronovisor.machine.elf import Image, read_image
from chronovisor.machine.ending import EndReason, GuestEnd
from chronovisor.machine.errors import ImageError, MachineError
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.machine.machine_state import MachineState

__all__ = [
    "Console",
    "EndReason",
    "Guest",
    "GuestEnd",
    "Host",
    "Image",
    "ImageError",
    "MachineError",
    "MachineState",
    "read_image",
]
