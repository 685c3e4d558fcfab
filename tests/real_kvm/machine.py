"""QEMU with a real kernel in it, and Python in that: booted, asked, and gone afterwards."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from chronovisor.cli.debian import Packages
from real_kvm.initramfs import initramfs
from real_kvm.inside import MARK

QEMU: Final = "qemu-system-ppc64"
_NESTED: Final = (
    # QEMU's own minimal firmware starts the kernel ten seconds earlier than the whole one does.
    "pseries,x-vof=on,cap-nested-hv=on"
    # Mitigations that its emulation has not.
    ",cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"
)
MACHINES: Final = {"nested": (_NESTED, "1G"), "bare": ("powernv9", "2G")}
"""What the kernel runs on: as a guest that may have guests, or on the bare (emulated) processor."""
_LAST_LINES: Final = 20
_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None)


class MachineError(Exception):
    """QEMU did not start, ended, or did not answer in time: one line, then the console's last ones."""


class Machine:
    """A machine that was booted; `call` has something done inside it.

    Whatever happens, leaving the context ends QEMU and removes what it was given.
    """

    def __init__(
        self,
        kernel: Path,
        initrd: Path,
        kind: str = "nested",
        forwarded: Sequence[int] = (),
        qemu: Sequence[str] = (QEMU,),
    ) -> None:
        board, memory = MACHINES[kind]
        self.ports = {inner: _free_port() for inner in forwarded}
        """Where ports of the machine inside are found at this machine's loopback."""
        forward = "".join(f",hostfwd=tcp:127.0.0.1:{outer}-:{inner}" for inner, outer in self.ports.items())
        self._command = [
            *qemu,
            *("-M", board, "-cpu", "power9", "-m", memory, "-smp", "1"),
            *("-nodefaults", "-display", "none", "-serial", "stdio"),
            *("-kernel", str(kernel), "-initrd", str(initrd)),
            *("-append", "console=hvc0 rdinit=/init quiet"),
        ]
        if kind == "nested":
            self._command += [
                "-netdev",
                f"user,id=net{forward}",
                "-device",
                "spapr-vlan,netdev=net",
            ]
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.console: list[str] = []
        """All that was printed, line by line."""

    def start(self, limit: float = 90.0) -> dict[str, Any]:
        """Boot; return what the first process says when it is ready. MachineError after `limit` seconds."""
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        except OSError as error:
            raise MachineError(f"{self._command[0]} cannot be started: {error.strerror}") from None
        threading.Thread(target=self._read, daemon=True).start()
        return self._answer(limit, "the machine's first process")

    def call(self, function: str, *arguments: Any, limit: float = 60.0) -> Any:
        """Call `module:function` inside and return its answer; MachineError where none comes in `limit` s."""
        self.begin(function, *arguments)
        return self.finish(function, limit)

    def begin(self, function: str, *arguments: Any) -> None:
        """Have `module:function` called inside; `finish` waits for its answer."""
        self._send({"call": function, "arguments": arguments})

    def finish(self, function: str, limit: float = 60.0) -> Any:
        """Wait for the answer to what was begun."""
        return self._answer(limit, function)["answer"]

    def close(self, patience: float = 5.0) -> None:
        """Power the machine off; QEMU is killed where it does not end by itself. Harmless when repeated."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            assert process.stdin is not None
            process.stdin.write(json.dumps({"call": "power_off"}).encode() + b"\n")
            process.stdin.flush()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(patience=5.0 if error is None else 0.0)

    def _send(self, request: dict[str, Any]) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise MachineError("the machine is not running")
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            raise self._failure(f"QEMU ended with status {process.wait()}") from None

    def _read(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.put(line.decode(errors="replace").rstrip("\r\n"))
        self._lines.put(None)

    def _answer(self, limit: float, what: str) -> dict[str, Any]:
        deadline = time.monotonic() + limit
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise self._failure(f"{what} did not answer in {limit:g} s") from None
            if line is None:
                status = self._process.wait() if self._process is not None else None
                raise self._failure(f"QEMU ended (status {status}) before {what} answered")
            self.console.append(line)
            if line.startswith(MARK):
                answer: dict[str, Any] = json.loads(line.removeprefix(MARK))
                if "failed" in answer:
                    raise MachineError(f"{what} failed inside the machine:\n{answer['failed']}")
                return answer

    def _failure(self, what: str) -> MachineError:
        last = [line for line in self.console if line.strip()][-_LAST_LINES:]
        shown = "".join(f"\n    {line}" for line in last) or "\n    (nothing)"
        return MachineError(f"{what}. Its console's last lines:{shown}")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _end_with_parent() -> None:
    """Have the kernel kill this process when the tests' own is killed, and could not do it."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def booted(kind: str = "nested", forwarded: Sequence[int] = ()) -> Iterator[Machine]:
    """A machine with this project in it, ready to be called."""
    packages = Packages()
    with tempfile.TemporaryDirectory(prefix="chronovisor-kvm-") as scratch:
        archive = initramfs(packages, Path(scratch) / "initramfs.cpio")
        with Machine(packages.vmlinux(), archive, kind, forwarded) as machine:
            machine.start()
            yield machine
