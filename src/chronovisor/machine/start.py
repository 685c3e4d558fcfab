"""How a guest begins: at its first start and after each reboot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from chronovisor.kvm.ids import MmuV3Flag
from chronovisor.kvm.registers import read_register, write_register
from chronovisor.machine import rtas, vcpu_state
from chronovisor.machine.boot_file import BootFile, Contents, GivenBytes
from chronovisor.machine.devicetree import TreeOptions, flatten
from chronovisor.machine.elf import Image, parse_image
from chronovisor.machine.entry import entry_msr
from chronovisor.machine.errors import MachineError
from chronovisor.machine.free_memory import FreeMemory
from chronovisor.machine.guest import Guest
from chronovisor.machine.interrupt_sources import CONSOLE
from chronovisor.machine.services import NO_TRANSLATION
from chronovisor.memory import PAGE_SIZE
from chronovisor.timebase.types import Offset, Ticks

LONGEST_COMMAND_LINE: Final = 2048
"""Bytes that Linux keeps of its command line on Power, the zero at its end included."""
_DECREMENTER: Final = Ticks(0x7FFF_FFFF)
"""What the guest's decrementers count down from at the start."""
_NO_PROCESS_TABLE: Final = 1 << 63
"""A partition table entry of radix trees without a process table."""
_AREAS: Final = ("VPA_DTL", "VPA_SLB", "VPA_ADDR")
"""The areas that a vCPU shares with the hypervisor, in an order in which they can be given up."""

_WhatBegins: TypeAlias = tuple[Image, Contents | None]
"""The image, and the initial RAM disk if there is one."""


class Start:
    """What a guest begins with: its image, its command line and its initial RAM disk.

    Files are looked at at once, so that a wrong one is known early, and again at each reboot. They are read
    straight into the guest's memory. MachineError for files that cannot be read and for a command line that
    is too long.
    """

    def __init__(
        self, image: Image | BootFile, append: str = "", initrd: bytes | BootFile | None = None
    ) -> None:
        if len(append.encode(errors="surrogateescape")) >= LONGEST_COMMAND_LINE:
            raise MachineError(
                f"the command line has {len(append)} characters; "
                f"Linux reads {LONGEST_COMMAND_LINE - 1} at most"
            )
        if "\0" in append:
            raise MachineError("the command line has a zero byte in it, at which it would end")
        self.name = image.name
        """The image's, for people."""
        self._image = image
        self._append = append
        self._initrd: Contents | None = GivenBytes(initrd) if isinstance(initrd, bytes) else initrd
        self._seen: _WhatBegins | None = self._look()

    def _look(self) -> _WhatBegins:
        image, initrd = self._image, self._initrd
        if isinstance(image, BootFile):
            image = parse_image(image, image.name)
        if initrd is not None and not initrd.size:
            raise MachineError("the initial RAM disk is empty")
        return image, initrd

    def begin(self, guest: Guest) -> None:
        """Fill the guest's empty memory and have its first vCPU enter the image.

        ImageError or MachineError for what does not fit the memory, or cannot be read any more.
        """
        memory, (image, initrd) = guest.memory, self._seen or self._look()
        # A file may have changed until the next time.
        self._seen = None
        image.load_into(memory)
        free = FreeMemory(image, memory.size)
        ramdisk = None
        if initrd is not None:
            start = free.take(initrd.size, "the initial RAM disk")
            ramdisk = (start, start + initrd.size)
            initrd.read_into(memory.view[slice(*ramdisk)])
            memory.dirty.mark(start, initrd.size)
        services = free.take(len(rtas.ENTRY_CODE), "RTAS")
        memory.write(services, rtas.ENTRY_CODE)
        options = TreeOptions(
            memory.size,
            guest.topology,
            guest.system.host,
            rtas.tokens(),
            self._append,
            rtas_entry=services,
            rtas_size=PAGE_SIZE,
            interrupts=CONSOLE in guest.platform.interrupts,
            initrd=ramdisk,
            devices=guest.platform.vio.devices,
        )
        tree = flatten(options)
        tree_at = free.take(len(tree), "the device tree")
        memory.write(tree_at, tree)
        guest.little_endian = image.little
        first = guest.vcpus[0]
        regs = first.get_regs()
        regs.pc = image.entry
        regs.msr = entry_msr(memory, image.entry, image.little)
        regs.gpr[2] = image.toc
        regs.gpr[3] = tree_at
        # A function's global entry point finds its TOC from its own address in r12 under ABI v2.
        regs.gpr[12] = image.entry if image.abi == 2 else 0
        first.set_regs(regs)

    def can_begin_anew(self, guest: Guest) -> None:
        """Let a reboot start the guest with this; the guest may have begun elsewhere.

        Its vCPUs must not have been set yet: a reboot resets them to the state that they have now.
        """
        fresh = [vcpu_state.save(vcpu) for vcpu in guest.vcpus]

        def restart() -> None:
            try:
                self._begin_anew(guest, fresh)
            except MachineError as error:
                guest.platform.end_at_reboot(f"; it cannot start again: {error}")

        guest.platform.restart = restart

    def _begin_anew(self, guest: Guest, fresh: Sequence[vcpu_state.VcpuState]) -> None:
        """Reset the machine and begin. Its time goes on."""
        self._seen = self._look()
        for vcpu, state in zip(guest.vcpus, fresh, strict=True):
            for area in _AREAS:
                write_register(vcpu, area, 0)
            vcpu_state.load(vcpu, state)
        if guest.platform.translation != NO_TRANSLATION:
            guest.vm.configure_v3_mmu(MmuV3Flag.RADIX | MmuV3Flag.GTSE, _NO_PROCESS_TABLE)
            guest.platform.translation = NO_TRANSLATION
        guest.platform.reset()
        guest.memory.clear()
        self.begin(guest)
        set_decrementers(guest)


def set_decrementers(guest: Guest) -> None:
    """Have every decrementer count down from its largest value of 32 bits, from now in the guest's time."""
    host = guest.system.clock.now()
    for vcpu in guest.vcpus:
        now = host + Offset(read_register(vcpu, "TB_OFFSET"))
        write_register(vcpu, "DEC_EXPIRY", (now + _DECREMENTER).value)
