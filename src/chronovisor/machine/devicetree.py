"""The flattened device tree that a guest finds through r3.

Sources: Devicetree Specification 0.4; LoPAR 1.1 for the nodes and properties of a paravirtual Power machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import fdt

from chronovisor.kvm.interface import HostFacts
from chronovisor.machine.interrupt_sources import CONSOLE, POWER_WARNING
from chronovisor.machine.nvram import SIZE as NVRAM_SIZE
from chronovisor.machine.sizes import Topology
from chronovisor.machine.vio.device import FIRST_UNIT, VioDevice

VTY_UNIT: Final = FIRST_UNIT
"""The console's unit address, the `termno` of H_PUT_TERM_CHAR; 0 means it too."""
_NVRAM_UNIT: Final = 0x7100_0001
_EDGE: Final = 0
"""An interrupt that is sent once for each event."""
ERROR_LOG_MAX: Final = 2048
"""Bytes of an event that event-scan could report."""
_EVENT_SCANS_A_MINUTE: Final = 1
HYPERTAS_FUNCTIONS: Final = (
    *(
        "hcall-term",
        "hcall-splpar",
        "hcall-set-mode",
        "hcall-interrupt",
        "hcall-vio",
        "hcall-tce",
        "hcall-multi-tce",
        "hcall-join",
        "hcall-cpu-char",
    ),
)
VECTOR_5: Final = bytes([25, *[0] * 23, 0x40, 0, 0x40])
"""`ibm,architecture-vec-5`: its length less 1, then option bytes on which guest and platform have agreed.

Byte 24 says radix trees alone, byte 26 that the guest invalidates translations itself
(LoPAR, "Option Vector 5").
"""
_PA_FEATURES: Final = {0: (0, 1, 3, 6), 5: (0,), 40: (0,)}
"""What `ibm,pa-features` says the processor has: bits of its bytes, the most significant first.

Byte 0: a memory management unit, floating point, the run latch, no-execute. Byte 5: little-endian mode. Byte
40: radix trees. Byte 22 would be transactional memory. Without the property Linux goes by its own table, but
believes that radix trees were disabled.
"""
RADIX_PAGE_SIZES: Final = ((0x0, 12), (0x5, 16), (0x1, 21), (0x2, 30))
"""Encodings of page sizes in tlbie's AP field, and log2 of the size in bytes (Book III 5.9.3)."""
_CACHE_LINE: Final = 128
_CACHE_SIZE: Final = 32 << 10
"""That of a POWER9's first level, in bytes. Linux wants to know one; nothing here depends on it."""
_PID_BITS: Final = 20


@dataclass(frozen=True, slots=True)
class TreeOptions:
    """What a guest's device tree tells it."""

    memory_size: int
    topology: Topology
    host: HostFacts
    rtas_tokens: Mapping[str, int]
    bootargs: str = ""
    rtas_entry: int = 0
    """Real address of the code that guests call for RTAS; 0 if they must use the hypercall."""
    rtas_size: int = 0
    """In bytes, from the entry on."""
    interrupts: bool = True
    """Whether the machine has an interrupt controller for its devices."""
    initrd: tuple[int, int] | None = None
    """Real addresses of the initial RAM disk's first byte and of the byte behind its last."""
    devices: Sequence[VioDevice] = ()
    """Its virtual devices besides the console and the NVRAM."""


def flatten(options: TreeOptions) -> bytes:
    """The device tree as the blob that the guest reads; big-endian by its specification."""
    reserved = {"address": options.rtas_entry, "size": options.rtas_size}
    tree = fdt.FDT(entries=[reserved] if options.rtas_entry else [])
    root = tree.root
    _strings(root, "device_type", "chrp")
    _strings(root, "model", "Chronovisor pSeries")
    # Guests that know QEMU's machine of this kind find what they look for: the same calls, tokens and start.
    _strings(root, "compatible", "chronovisor,pseries", "qemu,pseries")
    _words(root, "#address-cells", 2)
    _words(root, "#size-cells", 2)

    chosen = _node(root, "chosen")
    _strings(chosen, "bootargs", options.bootargs)
    _strings(chosen, "linux,stdout-path", f"/vdevice/vty@{VTY_UNIT:x}")
    _strings(chosen, "stdout-path", f"/vdevice/vty@{VTY_UNIT:x}")

    _bytes(chosen, "ibm,architecture-vec-5", VECTOR_5)
    if options.initrd is not None:
        _words(chosen, "linux,initrd-start", *_two(options.initrd[0]))
        _words(chosen, "linux,initrd-end", *_two(options.initrd[1]))

    memory = _node(root, "memory@0")
    _strings(memory, "device_type", "memory")
    _words(memory, "reg", 0, 0, *_two(options.memory_size))

    _cpus(root, options)

    rtas = _node(root, "rtas")
    for service, token in options.rtas_tokens.items():
        _words(rtas, service, token)
    _strings(rtas, "ibm,hypertas-functions", *HYPERTAS_FUNCTIONS)
    # Linux calls ibm,os-term if it finds this property.
    _words(rtas, "ibm,extended-os-term", 0)
    _words(rtas, "rtas-error-log-max", ERROR_LOG_MAX)
    _words(rtas, "rtas-event-scan-rate", _EVENT_SCANS_A_MINUTE)
    if options.rtas_entry:
        _words(rtas, "linux,rtas-base", options.rtas_entry)
        _words(rtas, "linux,rtas-entry", options.rtas_entry)
        _words(rtas, "rtas-size", options.rtas_size)

    hypervisor = _node(root, "hypervisor")
    _strings(hypervisor, "compatible", "linux,kvm")

    if options.interrupts:
        # LoPAR, "Event Sources Node".
        sources = _node(root, "event-sources")
        sources.append(fdt.Property("interrupt-controller"))
        _words(sources, "#address-cells", 0)
        _words(sources, "#interrupt-cells", 2)
        _words(sources, "interrupt-ranges", POWER_WARNING, 1)
        _words(_node(sources, "epow-events"), "interrupts", POWER_WARNING, _EDGE)

    vdevice = _node(root, "vdevice")
    _strings(vdevice, "device_type", "vdevice")
    _strings(vdevice, "compatible", "IBM,vdevice")
    _words(vdevice, "#address-cells", 1)
    _words(vdevice, "#size-cells", 0)
    vdevice.append(fdt.Property("interrupt-controller"))
    _words(vdevice, "#interrupt-cells", 2)
    vty = _node(vdevice, f"vty@{VTY_UNIT:x}")
    _strings(vty, "name", "vty")
    _strings(vty, "device_type", "serial")
    _strings(vty, "compatible", "hvterm1")
    _words(vty, "reg", VTY_UNIT)
    if options.interrupts:
        _words(vty, "interrupts", CONSOLE, _EDGE)
    nvram = _node(vdevice, f"nvram@{_NVRAM_UNIT:x}")
    _strings(nvram, "device_type", "nvram")
    _strings(nvram, "compatible", "qemu,spapr-nvram")
    _words(nvram, "reg", _NVRAM_UNIT)
    _words(nvram, "#bytes", NVRAM_SIZE)
    for device in options.devices:
        _virtual_device(vdevice, device)

    _interrupt_controller(root, options.topology)

    blob: bytes = tree.to_dtb(version=17, boot_cpuid_phys=0)
    return blob


def _virtual_device(bus: Any, device: VioDevice) -> None:
    """A device with a window into guest memory (LoPAR, "Virtual I/O Device Node Properties")."""
    node = _node(bus, f"{device.kind}@{device.unit:x}")
    _strings(node, "name", device.kind)
    _strings(node, "device_type", device.device_type)
    _strings(node, "compatible", device.compatible)
    _words(node, "reg", device.unit)
    _words(node, "interrupts", device.source, _EDGE)
    _words(node, "ibm,#dma-address-cells", 2)
    _words(node, "ibm,#dma-size-cells", 2)
    _words(node, "ibm,my-dma-window", *device.dma_window)
    for name, value in device.properties().items():
        _bytes(node, name, value)


def _cpus(root: Any, options: TreeOptions) -> None:
    cpus = _node(root, "cpus")
    _words(cpus, "#address-cells", 1)
    _words(cpus, "#size-cells", 0)
    topology, host = options.topology, options.host
    for first in range(0, topology.vcpus, topology.threads):
        cpu = _node(cpus, f"PowerPC,POWER@{first:x}")
        _strings(cpu, "device_type", "cpu")
        _words(cpu, "reg", first)
        _strings(cpu, "status", "okay")
        _words(cpu, "cpu-version", host.pvr)
        _words(cpu, "timebase-frequency", host.frequency)
        _words(cpu, "clock-frequency", host.frequency)
        # No ibm,dec-bits: LPCR[LD] is 0 at the start, so the guest's decrementer has 32 bits on every host.
        for cache in ("i-cache", "d-cache"):
            _words(cpu, f"{cache}-line-size", _CACHE_LINE)
            _words(cpu, f"{cache}-block-size", _CACHE_LINE)
            _words(cpu, f"{cache}-size", _CACHE_SIZE)
        servers = range(first, min(first + topology.threads, topology.vcpus))
        _words(cpu, "ibm,ppc-interrupt-server#s", *servers)
        _words(cpu, "ibm,ppc-interrupt-gserver#s", *(word for s in servers for word in (s, 0)))
        for feature in ("64-bit", "ibm,purr", "ibm,spurr"):
            cpu.append(fdt.Property(feature))
        _bytes(cpu, "ibm,pa-features", _pa_features())
        _words(cpu, "ibm,vmx", 2)
        _words(cpu, "ibm,dfp", 1)
        encodings = ((encoding << 29) | shift for encoding, shift in RADIX_PAGE_SIZES)
        _words(cpu, "ibm,processor-radix-AP-encodings", *encodings)
        _words(cpu, "ibm,mmu-pid-bits", _PID_BITS)


def _pa_features() -> bytes:
    """The attribute's length, its type 0, and its bytes (LoPAR, "ibm,pa-features")."""
    length = max(_PA_FEATURES) + 1
    bits = (sum(0x80 >> bit for bit in _PA_FEATURES.get(byte, ())) for byte in range(length))
    return bytes((length, 0, *bits))


def _interrupt_controller(root: Any, topology: Topology) -> None:
    """The presentation of interrupts by hypercalls (LoPAR, "PowerPC External Interrupt Architecture")."""
    controller = _node(root, "interrupt-controller")
    _strings(controller, "device_type", "PowerPC-External-Interrupt-Presentation")
    _strings(controller, "compatible", "IBM,ppc-xicp")
    controller.append(fdt.Property("interrupt-controller"))
    _words(controller, "ibm,interrupt-server-ranges", 0, topology.vcpus)
    _words(controller, "#address-cells", 0)
    _words(controller, "#interrupt-cells", 2)


def _node(parent: Any, name: str) -> Any:
    node = fdt.Node(name)
    parent.append(node)
    return node


def _words(node: Any, name: str, *words: int) -> None:
    node.append(fdt.PropWords(name, *words))


def _strings(node: Any, name: str, *strings: str) -> None:
    # As bytes: the library's own strings can neither be empty nor hold what is not ASCII.
    data = b"".join(string.encode(errors="surrogateescape") + b"\0" for string in strings)
    node.append(fdt.PropBytes(name, data=data))


def _bytes(node: Any, name: str, data: bytes) -> None:
    node.append(fdt.PropBytes(name, data=data))


def _two(value: int) -> tuple[int, int]:
    return value >> 32, value & 0xFFFF_FFFF
