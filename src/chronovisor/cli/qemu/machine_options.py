"""QEMU's options about the machine: its type, processors, memory and clocks."""

from __future__ import annotations

import re
from typing import Final

from chronovisor.cli.qemu.option import QemuOptionError, Settings, key_values, only

MACHINE_HELP: Final = """Supported machines are:
pseries              a PAPR guest, without firmware (default)
"""
CPU_HELP: Final = """Available CPUs:
power8               POWER8
power9               POWER9 (default)
970                  PowerPC 970
"""
_MACHINE: Final = re.compile(r"pseries(-\d+\.\d+(-sxxm)?)?")
_PROPERTIES: Final = {
    "cap-cfpc": ("broken",),
    "cap-sbbc": ("broken",),
    "cap-ibs": ("broken",),
    "cap-ccf-assist": ("off",),
    "cap-htm": ("off",),
    "cap-nested-hv": ("off",),
    "ic-mode": ("xics",),
    "usb": ("off",),
    "graphics": ("off",),
    "x-vof": ("on", "off"),
    "dump-guest-core": ("on", "off"),
}
"""What can be said of the machine, and how: what is so here."""
_ACCELERATORS: Final = {"tcg": "embedded", "kvm": "linux", "kvm:tcg": "auto"}
ACCELERATOR_HELP: Final = "Accelerators supported in QEMU binary:\n" + "".join(
    f"{name}\n" for name in _ACCELERATORS if ":" not in name
)
_CPUS: Final = (
    (re.compile(r"power9(_v2\.[0-2])?"), "power9"),
    (re.compile(r"power8(_v2\.0)?"), "power8"),
    (re.compile(r"970(_v2\.2)?"), "ppc970"),
    (re.compile(r"host"), "auto"),
)
_MEMORY: Final = re.compile(r"(\d+)([bkmgt]?)", re.IGNORECASE)
_LARGEST_SHIFT: Final = 10
_TICKS_PER_NS: Final = 0.512


def take_machine(settings: Settings, text: str) -> None:
    """`-machine TYPE,PROPERTY=VALUE,…`."""
    for key, value in key_values(text, "type").items():
        if key == "type":
            if not _MACHINE.fullmatch(value):
                raise QemuOptionError("unsupported machine type; there is pseries")
        elif key == "accel":
            take_accelerator(settings, value)
        elif value not in _PROPERTIES.get(key, ()):
            so = (
                f" can be {' or '.join(_PROPERTIES[key])} alone"
                if key in _PROPERTIES
                else " is not available"
            )
            raise QemuOptionError(f"{key}={value}: {key}{so}")


def take_accelerator(settings: Settings, text: str) -> None:
    """`-accel NAME,…`."""
    values = key_values(text, "accel")
    only(values, "accel", "thread", "tb-size")
    name = values.get("accel", "")
    if name not in _ACCELERATORS:
        raise QemuOptionError(f"invalid accelerator {name}")
    settings.set("--provider", _ACCELERATORS[name])


def take_cpu(settings: Settings, text: str) -> None:
    """`-cpu MODEL`."""
    for pattern, ours in _CPUS:
        if pattern.fullmatch(text.lower()):
            settings.set("--cpu", ours)
            return
    raise QemuOptionError(
        f"unable to find CPU model {text!r}; there are power9, power8 and 970, without options"
    )


def take_memory(settings: Settings, text: str) -> None:
    """`-m [size=]MEGABYTES|SIZE`."""
    values = key_values(text, "size")
    only(values, "size")
    match = _MEMORY.fullmatch(values.get("size", ""))
    if match is None:
        raise QemuOptionError(
            "Parameter 'size' expects a number, with k, M, G or T for others than megabytes"
        )
    settings.set("--memory", match[1] + (match[2] or "M").upper().replace("B", ""))


def take_smp(settings: Settings, text: str) -> None:
    """`-smp [cpus=]N,maxcpus=N,sockets=N,cores=N,threads=N`."""
    values = key_values(text, "cpus")
    only(values, "cpus", "maxcpus", "sockets", "cores", "threads")
    numbers: dict[str, int] = {}
    for key, value in values.items():
        if not value.isdecimal() or not int(value):
            raise QemuOptionError(f"{key}: expects a number above 0")
        numbers[key] = int(value)
    threads = numbers.get("threads", 1)
    product = numbers.get("sockets", 1) * numbers.get("cores", 1) * threads
    cpus = numbers.get("cpus", numbers.get("maxcpus", product))
    if numbers.get("maxcpus", cpus) != cpus:
        raise QemuOptionError("maxcpus: no vCPU can be added later")
    if cpus % threads or ("cores" in numbers and "sockets" in numbers and product != cpus):
        raise QemuOptionError(f"Invalid CPU topology: {product} threads in all, and {cpus} vCPUs")
    settings.set("--smp", f"{cpus},threads={threads}" if threads > 1 else str(cpus))


def take_rtc(settings: Settings, text: str) -> None:
    """`-rtc base=BASE`."""
    values = key_values(text, "base")
    only(values, "base", "clock", "driftfix")
    if values.get("clock", "host") != "host" or values.get("driftfix", "none") != "none":
        raise QemuOptionError("clock can be host, and driftfix none")
    if "base" in values:
        settings.set("--rtc", f"base={values['base']}")


def take_icount(settings: Settings, text: str) -> None:
    """`-icount shift=N`: time counts instructions."""
    values = key_values(text, "shift")
    only(values, "shift", "align", "sleep")
    if values.get("align", "off") != "off":
        raise QemuOptionError("align can be off")
    shift = values.get("shift", "")
    if not shift.isdecimal() or int(shift) > _LARGEST_SHIFT:
        raise QemuOptionError(f"shift: expects a number from 0 to {_LARGEST_SHIFT}")
    settings.set("--clock", "virtual")
    settings.set("--ticks-per-instruction", str(max(1, round((1 << int(shift)) * _TICKS_PER_NS))))


def take_name(settings: Settings, text: str) -> None:
    """`-name [guest=]NAME`."""
    values = key_values(text, "guest")
    only(values, "guest", "process", "debug-threads")
    if "guest" in values:
        settings.set("--name", values["guest"])
