"""The same guest between two QEMUs: live migration, asked for by QMP."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from chronovisor.cli.demo.linux.guest import COMMAND_LINE, CPUS, MEMORY, REPORT
from chronovisor.cli.demo.linux.journey import BOOT_SECONDS, SAMPLES, LinuxJourney
from chronovisor.cli.demo.linux.listener import Listener
from chronovisor.cli.demo.watched import SilentGuestError

PROGRAM: Final = "qemu-system-ppc64"
MACHINE: Final = "pseries,x-vof=on,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"
"""QEMU's small firmware, and none of the mitigations that its TCG does not have."""
PATIENCE: Final = 5.0
"""Seconds after which a guest that moved and prints nothing counts as silent."""
TRIES: Final = 3
_START: Final = 20.0
_POLL: Final = 0.02


def installed() -> bool:
    """Whether this machine has QEMU for Power."""
    return shutil.which(PROGRAM) is not None


def version() -> str:
    """Return QEMU's version."""
    told = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=False).stdout
    return told.split("version ")[-1].split()[0] if "version " in told else "of unknown version"


def travel(kernel: Path, initramfs: bytes, moves: int) -> LinuxJourney:
    """Have the guest make a journey of which more than the first host is seen, as far as few tries go.

    With QEMU 7.2 the guest is often silent from the first move on. Before QEMU's commit 578912ad7312 of 2023
    ("target/ppc: Migrate DECR SPR") TCG does not send the decrementer, and guests could hang.
    SilentGuestError if the guest does not boot.
    """
    journey = _travel(kernel, initramfs, moves)
    for _ in range(TRIES - 1):
        if len(journey.errors_ms) > 1:
            break
        journey = _travel(kernel, initramfs, moves)
    return journey


def _travel(kernel: Path, initramfs: bytes, moves: int) -> LinuxJourney:
    """Boot the guest in a QEMU and move it `moves` times, each time to a new one, or until it is silent.

    SilentGuestError if the guest does not boot.
    """
    listener = Listener()
    downtimes: list[float] = []
    silent = False
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as running:
        here = Path(directory)
        (here / "initramfs").write_bytes(initramfs)
        begun = time.monotonic()
        qemu = running.enter_context(_Qemu(here, kernel, listener, 0))
        if not listener.wait(SAMPLES, BOOT_SECONDS, qemu.ended):
            raise SilentGuestError(f"Linux on QEMU printed no clocks: {listener.text[-300:]}")
        booted = time.monotonic() - begun
        for number in range(1, moves + 1):
            there = running.enter_context(_Qemu(here, kernel, listener, number, incoming=True))
            listener.moving()
            downtimes.append(qemu.migrate(there))
            listener.moved()
            qemu.close()
            qemu = there
            if not listener.wait(SAMPLES, PATIENCE, qemu.ended):
                silent = True
                break
        if not silent:
            qemu.type(REPORT)
            listener.wait_for_wakings(PATIENCE)
    return LinuxJourney(
        booted, listener.errors_ms, downtimes, listener.report(), listener.wakings, silent=silent
    )


class _Qemu:
    """A QEMU with the guest in it, or one that waits for it. A context: it ends with it."""

    def __init__(
        self, directory: Path, kernel: Path, listener: Listener, number: int, incoming: bool = False
    ) -> None:
        self._address = directory / f"guest-{number}"
        monitor = directory / f"monitor-{number}"
        command = [
            *(PROGRAM, "-M", MACHINE, "-m", MEMORY, "-smp", str(CPUS), "-nodefaults", "-display", "none"),
            *("-serial", "stdio", "-qmp", f"unix:{monitor},server=on,wait=off"),
            *("-kernel", str(kernel), "-initrd", str(directory / "initramfs"), "-append", COMMAND_LINE),
            *(("-incoming", f"unix:{self._address}") if incoming else ()),
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        self._reader = threading.Thread(target=self._read, args=(listener,), name="QEMU", daemon=True)
        self._reader.start()
        self._monitor = self._connect(monitor).makefile("rw")
        self._monitor.readline()
        self.do("qmp_capabilities")

    def __enter__(self) -> _Qemu:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, guest or not."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        with contextlib.suppress(OSError):
            self._monitor.close()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def ended(self) -> bool:
        """Whether the process is no more."""
        return self._process.poll() is not None

    def type(self, text: str) -> None:
        """Type on the guest's console."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())

    def migrate(self, there: _Qemu) -> float:
        """Move the guest there; return its downtime in milliseconds. SilentGuestError if it does not go."""
        self.do("migrate", uri=f"unix:{there._address}")
        while (told := self.do("query-migrate")).get("status") != "completed":
            if told.get("status") == "failed":
                raise SilentGuestError(f"QEMU could not move the guest: {told.get('error-desc', told)}")
            time.sleep(_POLL)
        return float(told["downtime"])

    def do(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Have QEMU do it and return its answer; SilentGuestError if it refuses or is gone."""
        try:
            self._monitor.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            self._monitor.flush()
            # Events come between the answers.
            while line := self._monitor.readline():
                told: dict[str, Any] = json.loads(line)
                if "return" in told:
                    return dict(told["return"])
                if "error" in told:
                    raise SilentGuestError(f"QEMU: {told['error']['desc']}")
        except OSError as error:
            raise SilentGuestError(f"QEMU: {error}") from None
        raise SilentGuestError(f"QEMU ended before it answered {command}")

    def _connect(self, path: Path) -> socket.socket:
        deadline = time.monotonic() + _START
        while not self.ended() and time.monotonic() < deadline:
            monitor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                monitor.connect(str(path))
            except OSError:
                monitor.close()
                time.sleep(_POLL)
            else:
                return monitor
        self._process.kill()
        raise SilentGuestError("QEMU did not start")

    def _read(self, listener: Listener) -> None:
        assert self._process.stdout is not None
        # A closed console ends it.
        with contextlib.suppress(OSError, ValueError):
            while data := os.read(self._process.stdout.fileno(), 1 << 16):
                listener.take(data)
