"""Live moves against QEMU's: the same guest, the same loopback, in turns.

The `load` guest fills a quarter of its memory and writes to it at a steady rate, or not at all. Its console
says two hundred times a second what its timebase is; how that goes on over a move, by this machine's clock,
is what the guest's clock lost or gained. Our hosts are of random phase, so that roundings are needed. The
downtime is what each side says itself, ours until the guest was let go; the gap on the console is what can be
seen from outside.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from bench.guest_speed import firmware
from chronovisor.machine import Host
from chronovisor.machine.elf import read_image
from chronovisor.machine.files import SHIPPED
from chronovisor.migration.precopy import MoveLimits
from chronovisor.timebase.types import FREQUENCY

IMAGE = SHIPPED / "load-le.elf"
MEMORY = 1 << 30
FILLED_MIB = (MEMORY >> 20) // 4
RATES = (0, 100)
"""Million bytes of pages that the guest writes to in a second."""
RUNS = 3
SETTLED = 1.5
"""Seconds that the guest runs before it is moved, and afterwards."""
PATIENCE = 120.0
WINDOWS = 6
"""Times that the guest runs with its pages logged, and as often without, each for a second."""
TAKEN_EVERY = 0.02
"""Seconds between two readings of the log, which is more often than in rounds."""


@dataclass(frozen=True)
class Moved:
    """The measurements of one move."""

    downtime_ms: float
    """Without the wait for the rounding."""
    wait_ms: float
    total_ms: float
    gap_ms: float
    """The time between the guest's last line at the source and its first at the destination."""
    clock_ms: float
    """How much the guest's clock gained on this machine's over the move; negative if it lost."""

    @property
    def throughput(self) -> float:
        """Bytes of the guest's memory a second, zeros counted."""
        return MEMORY / self.total_ms * 1000


class Sides(Protocol):
    """Two processes, one of which runs the guest."""

    source: subprocess.Popen[bytes]
    destination: subprocess.Popen[bytes]

    def migrate(self) -> tuple[float, float, float]:
        """Move the guest: downtime without the wait, wait, and time in all, in milliseconds."""


class Lines:
    """The guest's lines as they come out of a process: (this machine's clock, the guest's), in seconds."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        # Its own: the process's is closed when the process ends, whether all was read or not.
        self._descriptor = os.dup(process.stdout.fileno())
        self.ready = threading.Event()
        self.found: list[tuple[float, float]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        rest = b""
        with open(self._descriptor, "rb", buffering=0) as pipe:
            while data := pipe.read(1 << 16):
                now = time.monotonic()
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    words = line.split()
                    if len(words) == 4:
                        self.found.append((now, int(words[0], 16) / FREQUENCY))
                    elif b"ready" in line:
                        self.ready.set()

    def lag(self) -> float:
        """How far the guest's clock is behind this machine's, by the line that came with the least delay."""
        return min(here - there for here, there in self.found)


def measure_once(sides: Sides, rate: int) -> Moved:
    """Let the guest fill its memory and write at this rate, then move it."""
    before, after = Lines(sides.source), Lines(sides.destination)
    assert sides.source.stdin is not None
    sides.source.stdin.write(f"{FILLED_MIB} {rate}\n".encode())
    if not before.ready.wait(PATIENCE):
        raise RuntimeError("the guest does not answer")
    time.sleep(SETTLED)
    downtime, wait, total = sides.migrate()
    time.sleep(SETTLED)
    # A line may have waited in its pipe for the reader: its place is the one that the guest's clock says.
    lag_before, lag_after = before.lag(), after.lag()
    gap = (after.found[0][1] + lag_after) - (before.found[-1][1] + lag_before)
    return Moved(downtime, wait, total, gap * 1000, (lag_before - lag_after) * 1000)


@contextmanager
def _processes(*commands: list[str], **options: Any) -> Iterator[list[subprocess.Popen[bytes]]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
    started = [subprocess.Popen(command, **(pipes | options)) for command in commands]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


# Ours

COMMAND = [sys.executable, "-c", "import sys; from chronovisor.cli import main; sys.exit(main())"]


class Ours:
    """`run` and `receive`, and `migrate` between them."""

    def __init__(self, source: subprocess.Popen[bytes], destination: subprocess.Popen[bytes]) -> None:
        self.source = source
        self.destination = destination

    def migrate(self) -> tuple[float, float, float]:
        """Move the guest."""
        assert self.destination.stderr is not None
        line = self.destination.stderr.readline().decode()
        found = re.search(r"waits at (\S+)", line)
        if found is None:
            raise RuntimeError(line)
        command = [*COMMAND, "migrate", "source", found[1], "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
        report = json.loads(done.stdout)
        wait = report["wait_ns"] / 1e6
        return (
            report["downtime_ns"] / 1e6 - wait + (report["resume_ns"] or 0) / 1e6,
            wait,
            report["duration_ns"] / 1e6,
        )


@contextmanager
def ours() -> Iterator[Sides]:
    """Our two processes."""
    with tempfile.TemporaryDirectory() as directory:
        before = os.environ.get("CHRONOVISOR_RUN_DIR")
        os.environ["CHRONOVISOR_RUN_DIR"] = f"{directory}/run"
        source = [*COMMAND, "run", str(IMAGE), "--memory", str(MEMORY), "--name", "source"]
        origin = str(random.getrandbits(63))
        destination = [*COMMAND, "receive", "tcp:127.0.0.1:0", "--name", "destination", "--tb-origin", origin]
        try:
            with _processes(source, destination) as started:
                yield Ours(*started)
        finally:
            del os.environ["CHRONOVISOR_RUN_DIR"]
            if before is not None:
                os.environ["CHRONOVISOR_RUN_DIR"] = before


# QEMU's


class Qemu:
    """Two QEMUs (TCG), asked over QMP."""

    def __init__(self, started: list[subprocess.Popen[bytes]], directory: Path) -> None:
        self.source, self.destination = started
        self._source = _Qmp(directory / "source")
        self._destination = _Qmp(directory / "destination")

    def migrate(self) -> tuple[float, float, float]:
        """Move the guest, without a limit of bandwidth and with our limit of downtime."""
        address = self._destination.ask("query-migrate")["socket-address"][0]
        limits = {"max-bandwidth": 1 << 40, "downtime-limit": round(MoveLimits().downtime * 1000)}
        self._source.ask("migrate-set-parameters", **limits)
        self._source.ask("migrate", uri=f"tcp:{address['host']}:{address['port']}")
        deadline = time.monotonic() + PATIENCE
        while (found := self._source.ask("query-migrate"))["status"] != "completed":
            if found["status"] in {"failed", "cancelled"} or time.monotonic() > deadline:
                raise RuntimeError(f"QEMU's migration: {found}")
            time.sleep(0.01)
        return found["downtime"], 0.0, found["total-time"]


class _Qmp:
    """QEMU's control socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self._lines = self._socket.makefile("rb")
        self._lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send QEMU a command. Return its answer; events before it are skipped."""
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            answer = json.loads(self._lines.readline())
            if "return" in answer:
                found: dict[str, Any] = answer["return"]
                return found
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")


@contextmanager
def qemus() -> Iterator[Sides]:
    """QEMU's two processes."""
    machine = "pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        laid_out = directory / "guest.bin"
        laid_out.write_bytes(firmware(read_image(IMAGE)))

        def command(side: str) -> list[str]:
            words = f"-M {machine} -cpu power9 -m {MEMORY >> 20}M -display none -vga none -serial stdio"
            return [
                "qemu-system-ppc64",
                *words.split(),
                "-bios",
                str(laid_out),
                "-qmp",
                f"unix:{directory / side},server=on,wait=off",
            ]

        incoming = [*command("destination"), "-incoming", "tcp:127.0.0.1:0"]
        with _processes(command("source"), incoming, stderr=subprocess.DEVNULL) as started:
            yield Qemu(started, directory)


# What comes of it


@dataclass(frozen=True)
class Compared:
    """The medians of both at one rate. QEMU's are None if it is not installed."""

    rate: int
    ours: list[Moved]
    qemus: list[Moved]

    def lines(self) -> Iterator[tuple[str, str, str, str]]:
        """Rows of name, ours, QEMU's, and the ratio, which is above 1 if ours is better."""
        for what, of, unit, less_is_better in (
            ("downtime", lambda m: m.downtime_ms, "ms", True),
            ("gap on the console", lambda m: m.gap_ms, "ms", True),
            ("time in all", lambda m: m.total_ms, "ms", True),
            ("guest memory a second", lambda m: m.throughput / 1e9, "GB", False),
            ("clock error", lambda m: abs(m.clock_ms), "ms", True),
            ("wait for the rounding", lambda m: m.wait_ms, "ms", None),
        ):
            here, there = _spread(self.ours, of, unit), _spread(self.qemus, of, unit)
            ratio = ""
            if self.qemus and less_is_better is not None:
                ours, theirs = _median(self.ours, of), _median(self.qemus, of)
                ratio = f"{theirs / ours if less_is_better else ours / theirs:.2f}"
            yield what, here, there, ratio


def _median(moves: list[Moved], of: Callable[[Moved], float]) -> float:
    return statistics.median(map(of, moves))


def _spread(moves: list[Moved], of: Callable[[Moved], float], unit: str) -> str:
    if not moves:
        return "–"
    found = sorted(map(of, moves))
    return f"{statistics.median(found):.2f} {unit} ({found[0]:.2f} to {found[-1]:.2f})"


def compare(rate: int, runs: int = RUNS) -> Compared:
    """Move the guest `runs` times with either, in turns."""
    here: list[Moved] = []
    there: list[Moved] = []
    for _ in range(runs):
        with ours() as sides:
            here.append(measure_once(sides, rate))
        if shutil.which("qemu-system-ppc64") is not None:
            with qemus() as sides:
                there.append(measure_once(sides, rate))
    return Compared(rate, here, there)


def _last_line(printed: bytearray) -> list[bytes] | None:
    """The words of the guest's last whole line, or None if there is no line yet."""
    lines = [line.split() for line in bytes(printed[-400:]).split(b"\n")[1:-1]]
    return next((words for words in reversed(lines) if len(words) == 4), None)


def slowdown(rate: int = RATES[-1]) -> float:
    """How much longer, in processor time of its vCPU, the guest takes for its loops while its pages are
    logged and the log is taken all the time: 0.1 is a tenth longer.
    """
    printed = bytearray()
    with Host() as host:
        guest = host.boot(IMAGE, MEMORY, console=printed.extend)
        guest.resume()
        guest.console.type(f"{FILLED_MIB} {rate}\n")
        while _last_line(printed) is None:
            time.sleep(0.05)
        vcpu = next(t for t in threading.enumerate() if t.name == "vCPU 0")
        assert vcpu.ident is not None
        clock = time.pthread_getcpuclockid(vcpu.ident)

        def loops() -> int:
            found = _last_line(printed)
            assert found is not None
            return int(found[2], 16)

        def window(logged: bool) -> float:
            began, used = loops(), time.clock_gettime(clock)
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                if logged:
                    guest.dirty_pages()
                time.sleep(TAKEN_EVERY)
            return (time.clock_gettime(clock) - used) / (loops() - began)

        costs: dict[bool, list[float]] = {False: [], True: []}
        for number in range(2 * WINDOWS):
            logged = bool(number % 2)
            guest.log_dirty_pages(logged)
            costs[logged].append(window(logged))
    return statistics.median(costs[True]) / statistics.median(costs[False]) - 1


def show(console: Console) -> None:
    """Measure and print."""
    for rate in RATES:
        found = compare(rate)
        writes = f"{FILLED_MIB} MiB written at {rate} MB/s" if rate else f"quiet, {FILLED_MIB} MiB not zero"
        title = f"Live moves of a guest of {MEMORY >> 30} GiB, {writes}: medians of {RUNS} (least to most)"
        table = Table(title=title, title_justify="left")
        for column in ("", "chronovisor", "QEMU TCG", "ratio"):
            table.add_column(column, justify="right" if column else "left")
        for line in found.lines():
            table.add_row(*line)
        console.print(table)
    console.print(f"the guest's loops take {slowdown() * 100:+.1f} % of time more while its pages are logged")
