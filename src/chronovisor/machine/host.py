"""A host on which guests run: the start of everything that is done from Python."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import BinaryIO, Final

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.ids import Cap, DeviceType
from chronovisor.kvm.interface import TICKS_PER_INSTRUCTION, Device, HostOptions, System, Vcpu, Vm
from chronovisor.kvm.provider import open_system
from chronovisor.machine.boot_file import BootFile
from chronovisor.machine.console import Console, Sink
from chronovisor.machine.elf import Image, parse_image
from chronovisor.machine.errors import MachineError
from chronovisor.machine.files import find_image
from chronovisor.machine.guest import MEMORY_SLOT, Guest
from chronovisor.machine.sizes import Topology, check_topology, parse_size, parse_u64
from chronovisor.machine.start import Start, set_decrementers
from chronovisor.machine.vio.attachments import NOTHING
from chronovisor.memory import GuestMemory
from chronovisor.papr.hcalls import Hcall
from chronovisor.timebase.clock import HostClock, RealTime, TickSource, VirtualTime
from chronovisor.timebase.history import History
from chronovisor.timebase.trace import Observer
from chronovisor.timebase.types import HostTime

CLOCKS: Final = ("real", "virtual")


class Host:
    """A host: cores, a timebase that started at `tb_origin` when the clock stood at 0, and its guests.

    `clock` is "real", "virtual", or a clock that several hosts share (then one moment is one moment on all of
    them). Raises MachineError for what makes no sense, KvmError for what the provider refuses.
    """

    def __init__(
        self,
        tb_origin: int | str = 0,
        clock: TickSource | str = "real",
        cores: int = 1,
        threads: int = 1,
        cpu: str = "auto",
        observer: Observer | None = None,
        provider: str = "embedded",
        ticks_per_instruction: int = TICKS_PER_INSTRUCTION,
        engine: str = "auto",
    ) -> None:
        options = HostOptions(
            source=_clock(clock),
            tb_origin=parse_u64(tb_origin, "timebase origin"),
            cores=cores,
            threads_per_core=threads,
            cpu_model=cpu,
            ticks_per_instruction=ticks_per_instruction,
            engine=engine,
            observer=observer,
        )
        self._open(open_system(options, provider))

    @classmethod
    def over(cls, system: System) -> Host:
        """Return a host over a system that is open already."""
        host = cls.__new__(cls)
        host._open(system)
        return host

    def _open(self, system: System) -> None:
        self.system = system
        self.guests: list[Guest] = []
        self.attachments = NOTHING
        """The disks of guests that are prepared from now on. One guest at a time can run with a disk."""
        self.after_reboot: Start | None = None
        """What a guest that began elsewhere begins with if it reboots here; None if a reboot ends its run."""

    @property
    def clock(self) -> HostClock:
        """The host's timebase and the monotonic clock that it counts with."""
        return self.system.clock

    @property
    def timebase(self) -> HostTime:
        """What the host's own timebase reads now."""
        return self.system.clock.now()

    def boot(
        self,
        image: str | Path | bytes | Image,
        memory: str | int = "64M",
        smp: int = 1,
        threads: int = 1,
        append: str = "",
        console: Console | Sink | BinaryIO | None = None,
        tb_offset: int | str = 0,
        initrd: str | Path | bytes | None = None,
        reboots: bool = True,
    ) -> Guest:
        """Load an ELF image (a path, its bytes, or the name of one that Chronovisor ships) into a new guest
        and leave it at its entry point, paused.

        `smp` vCPUs, `threads` of which share a virtual core; `append` is the guest's command line,
        `initrd` its initial RAM disk (a path, or its bytes); `console` takes the bytes that the guest prints;
        `tb_offset` is KVM_REG_PPC_TB_OFFSET, which KVM rounds up to 2^24 ticks. A guest that `reboots` starts
        again if it asks for that, from the same files, which must not be written to meanwhile; for another
        one a reboot is its end.
        """
        start = start_with(image, append, initrd)
        offset = parse_u64(tb_offset, "timebase offset")
        guest = self.prepare(memory, smp, threads, console, start.name)
        try:
            if reboots:
                start.can_begin_anew(guest)
            else:
                guest.platform.restart, guest.platform.why_no_restart = None, ""
            start.begin(guest)
            guest.platform.vio.take()
            for vcpu in range(guest.topology.vcpus):
                guest.set("TB_OFFSET", offset, vcpu)
            # After the offset: they expire at a moment of the guest's time.
            set_decrementers(guest)
            guest.history = History(guest.timebase().value)
        except BaseException:
            self.discard(guest)
            raise
        return guest

    def prepare(
        self,
        memory: str | int,
        smp: int = 1,
        threads: int = 1,
        console: Console | Sink | BinaryIO | None = None,
        name: str = "guest",
    ) -> Guest:
        """A guest with empty memory whose vCPUs were never set: what `boot` fills, or a move."""
        topology = check_topology(smp, threads)
        size = parse_size(memory)
        try:
            guest_memory = GuestMemory(size)
        except MemoryError as error:
            raise MachineError(f"{error}; choose a smaller --memory") from None
        vm = self.system.create_vm()
        try:
            vm.set_user_memory_region(MEMORY_SLOT, 0, 0, guest_memory)
            vcpus, controller = _create_vcpus(vm, topology)
            console = console if isinstance(console, Console) else Console(console)
            guest = Guest(
                self.system, vm, vcpus, guest_memory, topology, console, name, controller, self.attachments
            )
        except BaseException:
            vm.close()
            raise
        # Guests that moved elsewhere were closed by their move.
        self.guests = [*(other for other in self.guests if not other.closed), guest]
        if self.after_reboot is not None:
            self.after_reboot.can_begin_anew(guest)
        return guest

    def discard(self, guest: Guest) -> None:
        """Close a guest and forget it."""
        guest.close()
        if guest in self.guests:
            self.guests.remove(guest)

    def close(self) -> None:
        """Close every guest and the host itself."""
        for guest in list(self.guests):
            self.discard(guest)
        self.system.close()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _clock(clock: TickSource | str) -> TickSource:
    if clock == "real":
        return RealTime()
    if clock == "virtual":
        return VirtualTime()
    if isinstance(clock, str):
        raise MachineError(f"clock {clock!r}: choose one of {', '.join(CLOCKS)}")
    return clock


def start_with(
    image: str | Path | bytes | Image, append: str = "", initrd: str | Path | bytes | None = None
) -> Start:
    """What a guest begins with, as `Host.boot` takes it; MachineError for what no guest can begin with."""
    if isinstance(image, bytes):
        image = parse_image(image, "image")
    return Start(
        image if isinstance(image, Image) else BootFile(find_image(image)),
        append,
        initrd if initrd is None or isinstance(initrd, bytes) else BootFile(initrd),
    )


_ANSWERED_BELOW: Final = (
    *(Hcall.SET_SPRG0, Hcall.PAGE_INIT),
    *(Hcall.PUT_TCE, Hcall.PUT_TCE_INDIRECT, Hcall.STUFF_TCE, Hcall.VIO_SIGNAL),
    *(Hcall.ADD_LOGICAL_LAN_BUFFER, Hcall.SEND_LOGICAL_LAN, Hcall.SEND_CRQ),
)
"""Hypercalls that the kernel's half is to answer, if it can."""


def _create_vcpus(vm: Vm, topology: Topology) -> tuple[list[Vcpu], Device | None]:
    """The vCPUs, and the interrupt controller if the host has one."""
    if topology.threads > 1:
        vm.enable_cap(Cap.PPC_SMT, topology.threads, 0)
    vcpus = [vm.create_vcpu(number) for number in range(topology.vcpus)]
    for vcpu in vcpus:
        vcpu.enable_cap(Cap.PPC_PAPR)
    for number in _ANSWERED_BELOW:
        # A hypervisor that cannot answer them leaves them to user space.
        with contextlib.suppress(KvmError):
            vm.enable_cap(Cap.PPC_ENABLE_HCALL, number, 1)
    if not vm.check_extension(Cap.IRQ_XICS):
        return vcpus, None
    controller = vm.create_device(DeviceType.XICS)
    for vcpu in vcpus:
        vcpu.enable_cap(Cap.IRQ_XICS, controller.descriptor, vcpu.id)
    return vcpus, controller
