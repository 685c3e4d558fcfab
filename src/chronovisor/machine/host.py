"""A host on which guests run: the start of everything that is done from Python."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Final

from chronovisor.kvm.ids import Cap, DeviceType
from chronovisor.kvm.interface import HostOptions, System, Vcpu, Vm
from chronovisor.kvm.provider import open_system
from chronovisor.machine import rtas
from chronovisor.machine.console import Console, Sink
from chronovisor.machine.devicetree import TreeOptions, flatten
from chronovisor.machine.elf import Image, parse_image, read_image
from chronovisor.machine.entry import entry_msr
from chronovisor.machine.errors import MachineError
from chronovisor.machine.free_memory import FreeMemory
from chronovisor.machine.guest import MEMORY_SLOT, Guest
from chronovisor.machine.sizes import Topology, check_topology, parse_size, parse_u64
from chronovisor.memory import PAGE_SIZE, GuestMemory
from chronovisor.timebase.clock import HostClock, RealTime, TickSource, VirtualTime
from chronovisor.timebase.history import History
from chronovisor.timebase.trace import Observer
from chronovisor.timebase.types import HostTime

LONGEST_COMMAND_LINE: Final = 2048
"""Bytes that Linux keeps of its command line on Power, the zero at its end included."""
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
        ticks_per_instruction: int = 256,
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
        initrd: bytes | None = None,
    ) -> Guest:
        """Load an ELF image (a path, its bytes, or the name of one that Chronovisor ships) into a new guest
        and leave it at its entry point, paused.

        `smp` vCPUs, `threads` of which share a virtual core; `append` is the guest's command line,
        `initrd` the contents of its initial RAM disk; `console` takes the bytes that the guest prints;
        `tb_offset` is KVM_REG_PPC_TB_OFFSET, which KVM rounds up to 2^24 ticks.
        """
        loaded = _image(image)
        if len(append.encode(errors="surrogateescape")) >= LONGEST_COMMAND_LINE:
            raise MachineError(
                f"the command line has {len(append)} characters; "
                f"Linux reads {LONGEST_COMMAND_LINE - 1} at most"
            )
        offset = parse_u64(tb_offset, "timebase offset")
        guest = self.prepare(memory, smp, threads, console, loaded.name)
        try:
            loaded.load_into(guest.memory)
            self._enter(guest, loaded, append, initrd)
            for vcpu in range(guest.topology.vcpus):
                # The expiry after the offset: at the start a decrementer counts from now in the guest's time.
                guest.set("TB_OFFSET", offset, vcpu)
                guest.set("DEC_EXPIRY", (guest.timebase(vcpu).value + 0x7FFF_FFFF) & ((1 << 64) - 1), vcpu)
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
            vcpus = _create_vcpus(vm, topology)
        except BaseException:
            vm.close()
            raise
        console = console if isinstance(console, Console) else Console(console)
        guest = Guest(self.system, vm, vcpus, guest_memory, topology, console, name)
        # Guests that moved elsewhere were closed by their move.
        self.guests = [*(other for other in self.guests if not other.closed), guest]
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

    def _enter(self, guest: Guest, image: Image, append: str, initrd: bytes | None) -> None:
        free = FreeMemory(image, guest.memory.size)
        ramdisk = None
        if initrd is not None:
            start = free.take(len(initrd), "the initial RAM disk")
            guest.memory.write(start, initrd)
            ramdisk = (start, start + len(initrd))
        services = free.take(len(rtas.ENTRY_CODE), "RTAS")
        guest.memory.write(services, rtas.ENTRY_CODE)
        options = TreeOptions(
            guest.memory.size,
            guest.topology,
            self.system.host,
            rtas.tokens(),
            append,
            rtas_entry=services,
            rtas_size=PAGE_SIZE,
            initrd=ramdisk,
        )
        tree = flatten(options)
        tree_at = free.take(len(tree), "the device tree")
        guest.memory.write(tree_at, tree)
        regs = guest.vcpus[0].get_regs()
        regs.pc = image.entry
        regs.msr = entry_msr(guest.memory, image.entry, image.little)
        regs.gpr[2] = image.toc
        regs.gpr[3] = tree_at
        # A function's global entry point finds its TOC from its own address in r12 under ABI v2.
        regs.gpr[12] = image.entry if image.abi == 2 else 0
        guest.vcpus[0].set_regs(regs)


def _clock(clock: TickSource | str) -> TickSource:
    if clock == "real":
        return RealTime()
    if clock == "virtual":
        return VirtualTime()
    if isinstance(clock, str):
        raise MachineError(f"clock {clock!r}: choose one of {', '.join(CLOCKS)}")
    return clock


def _image(image: str | Path | bytes | Image) -> Image:
    if isinstance(image, Image):
        return image
    return parse_image(image, "image") if isinstance(image, bytes) else read_image(image)


def _create_vcpus(vm: Vm, topology: Topology) -> list[Vcpu]:
    if topology.threads > 1:
        vm.enable_cap(Cap.PPC_SMT, topology.threads, 0)
    vcpus = [vm.create_vcpu(number) for number in range(topology.vcpus)]
    for vcpu in vcpus:
        vcpu.enable_cap(Cap.PPC_PAPR)
    if vm.check_extension(Cap.IRQ_XICS):
        controller = vm.create_device(DeviceType.XICS)
        for vcpu in vcpus:
            vcpu.enable_cap(Cap.IRQ_XICS, controller.descriptor, vcpu.id)
    return vcpus
