"""How fast guests run: the `bench` guest here and, in the same run, in QEMU's emulation of the same machine.

The guest times its own loops by its timebase, which follows real time in both.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import chronovisor.machine
from chronovisor.isa.assembly import assemble
from chronovisor.machine.elf import Image, read_image
from chronovisor.machine.host import Host
from chronovisor.memory import PAGE_SIZE, GuestMemory
from chronovisor.timebase.types import FREQUENCY

IMAGE = Path(chronovisor.machine.__path__[0]) / "images" / "bench-le.elf"
FIXED_POINT = ("integer", "multiply", "copy", "core mix")
FLOATING_POINT = ("matrix product", "bodies")
"""The programs of two geometric means."""
TRANSLATED = ", translated"
"""The end of a program's name if its addresses are translated; else they are real."""
ONE, TWO = "one vCPU", "two vCPUs"
"""The integer loop on one vCPU, and on two at once: of the rounds of both together."""
WAKE_UP = "wake-up"
"""Not a loop: how late a vCPU in H_CEDE takes the decrementer interrupt that ends it."""
RUNS = 3
"""How often each side runs the guest. The medians are reported."""

_LINE = re.compile(r"^(.+): (\d+) rounds in (\d+) ticks\r?$", re.MULTILINE)
_RESULT = re.compile(r"^(.+): result ([0-9a-f]+)\r?$", re.MULTILINE)
_TIMEOUT = 300

_RESET = 0x100
_STUB_AT = 0x40
_STUB = """
    li32 r4, {entry}
    mtsrr0 r4
    mfmsr r4
    ori r4, r4, {little}
    li r5, 1
    sldi r5, r5, 63
    or r4, r4, r5
    mtsrr1 r4
    rfid
"""


def firmware(image: Image) -> bytes:
    """The image laid out from address 0, as firmware that QEMU starts at the system reset vector.

    A few instructions below the vectors bring the processor into 64-bit mode and the image's byte order, and
    go to its entry.
    """
    end = max(segment.end for segment in image.segments)
    memory = GuestMemory(-(-end // PAGE_SIZE) * PAGE_SIZE)
    image.load_into(memory)
    stub = assemble(_STUB.format(entry=image.entry, little=int(image.little)), origin=_STUB_AT)
    memory.write(_STUB_AT, stub)
    memory.write(_RESET, assemble(f"b {_STUB_AT}", origin=_RESET))
    return memory.read(0, end)


@dataclass(frozen=True)
class Speed:
    """Nanoseconds per round, here and in QEMU. The ratio is above 1 if we are faster."""

    name: str
    ours_ns: float
    qemu_ns: float | None

    @property
    def ratio(self) -> float | None:
        """QEMU's time over ours."""
        return None if self.qemu_ns is None else self.qemu_ns / self.ours_ns


@dataclass(frozen=True)
class Run:
    """A run of the guest: each loop's nanoseconds a round, and what some rounds of each found."""

    rounds: dict[str, float]
    results: dict[str, str]

    @classmethod
    def read(cls, text: str) -> Run:
        """From what the guest printed."""
        ns = {name: int(ticks) * 1e9 / FREQUENCY / int(rounds) for name, rounds, ticks in _LINE.findall(text)}
        return cls(ns, dict(_RESULT.findall(text)))


def here() -> Run:
    """The guest on an embedded host with the real clock."""
    with Host(cores=2) as host:
        guest = host.boot(IMAGE, "16M", smp=2)
        guest.run(_TIMEOUT)
        return Run.read(guest.console_text)


def in_qemu() -> Run | None:
    """The same guest in QEMU (TCG), on one vCPU; None if QEMU is not installed."""
    qemu = shutil.which("qemu-system-ppc64")
    if qemu is None:
        return None
    with tempfile.TemporaryDirectory() as directory:
        laid_out = Path(directory) / "guest.bin"
        laid_out.write_bytes(firmware(read_image(str(IMAGE))))
        machine = "-M pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"
        command = f"{qemu} {machine} -cpu power9 -m 256M -display none -vga none -nic none"
        command += f" -serial stdio -bios {laid_out}"
        done = subprocess.run(
            command.split(),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    run = Run.read(done.stdout)
    if not run.results:
        raise RuntimeError(f"QEMU did not run the guest: {done.stderr.strip()}")
    return run


def measure() -> list[Speed]:
    """Every loop of the guest, here and in QEMU, in turns.

    RuntimeError if a program finds something else in one of the runs.
    """
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    results: dict[str, str] = {}
    for _ in range(RUNS):
        for run, runs in ((here(), ours), (in_qemu(), theirs)):
            if run is None:
                continue
            runs.append(run.rounds)
            results = results or run.results
            if wrong := sorted(name for name in results if run.results.get(name) != results[name]):
                raise RuntimeError(f"not every run has the same results: {', '.join(wrong)}")
    return [Speed(name, _median(name, ours) or 0.0, _median(name, theirs)) for name in ours[0]]


def _median(name: str, runs: list[dict[str, float]]) -> float | None:
    found = [run[name] for run in runs if name in run]
    return statistics.median(found) if found else None


def mean_ratio(speeds: list[Speed], programs: Sequence[str]) -> float | None:
    """The geometric mean of some programs' ratios; None if one is not known."""
    known = [s.ratio for s in speeds if s.name in programs and s.ratio is not None]
    return prod(known) ** (1 / len(known)) if len(known) == len(programs) else None


def scaling(speeds: list[Speed]) -> float | None:
    """The speed-up of two vCPUs over one, in elapsed time."""
    ns = {s.name: s.ours_ns for s in speeds}
    return ns[ONE] / ns[TWO] if ns.get(TWO) else None
