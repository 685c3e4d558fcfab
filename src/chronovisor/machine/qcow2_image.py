"""A disk whose file is of format qcow2, through a process of QEMU's: qemu-nbd.

The process opens the file, with QEMU's locks, while a guest has it, and ends when the connection does: also
if this process is killed. So nothing here reads the format. `qemu-img info` tells what the file names besides
itself: backing files and a data file have to lie in the image's directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from chronovisor.machine.disk import Disk, DiskOption
from chronovisor.machine.files import FileError, open_descriptor
from chronovisor.machine.nbd import NbdClient

_PROGRAMS: Final = ("qemu-img", "qemu-nbd")
_LONGEST_CHAIN: Final = 16
"""Backing files behind each other."""
_PATIENCE: Final = 20.0
"""Seconds for each thing that a program of QEMU's is asked."""
_PROTOCOL: Final = re.compile(r"[a-z0-9+.-]+:")
"""The beginning of a name that is not a file's."""


class Qcow2Image(Disk):
    """A disk of format qcow2."""

    def __init__(self, option: DiskOption) -> None:
        super().__init__(option)
        if missing := [program for program in _PROGRAMS if shutil.which(program) is None]:
            raise self.refused(f"format qcow2 needs {' and '.join(missing)}: install Debian's qemu-utils")
        try:
            os.close(open_descriptor(self.path, os.O_RDONLY if self.read_only else os.O_RDWR))
        except FileError as error:
            raise self.refused(str(error)) from None
        self.size = int(self._examined()["virtual-size"])
        self._process: subprocess.Popen[bytes] | None = None
        self._client: NbdClient | None = None

    def _examined(self) -> Mapping[str, Any]:
        """Look at the image and at all that it is made of; MachineError if it may not be used."""
        directory = Path(self.path).resolve().parent
        first = described = self._info(Path(self.path), "qcow2")
        for _ in range(_LONGEST_CHAIN):
            data = described.get("format-specific", {}).get("data", {})
            if "data-file" in data:
                self._check_place(str(data["data-file"]), directory)
            if "backing-filename" not in described:
                return first
            name = str(described["backing-filename"])
            where = self._check_place(name, directory)
            described = self._info(where, str(described.get("backing-filename-format", "raw")))
        raise self.refused(f"it has more than {_LONGEST_CHAIN} backing files")

    def _check_place(self, name: str, directory: Path) -> Path:
        where = (directory / name).resolve()
        if _PROTOCOL.match(name) or not where.is_relative_to(directory):
            raise self.refused(f"its contents are also in {name!r}, which is not in the image's directory")
        return where

    def _info(self, path: Path, form: str) -> Mapping[str, Any]:
        command = ["qemu-img", "info", "--output=json", "--force-share", "-f", form, str(path.absolute())]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=False)
            if done.returncode:
                raise self.refused(_reason(done.stderr))
            found = json.loads(done.stdout)
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            raise self.refused(f"qemu-img does not say what it is: {error}") from None
        assert isinstance(found, dict)
        return found

    @property
    def changed_ns(self) -> int:
        """When the image's file was last written to, by the clock of its file system: ns since 1970."""
        return max(0, os.stat(self.path).st_mtime_ns)

    def lock(self) -> None:
        """Have qemu-nbd open it; MachineError if it cannot, as when another process has the image."""
        if self._client is not None:
            return
        # It may have been changed since it was looked at.
        self._examined()
        with tempfile.TemporaryDirectory(prefix="chronovisor-") as directory:
            way = Path(directory) / "nbd"
            command = ["qemu-nbd", "--format=qcow2", f"--socket={way}", "--discard=unmap"]
            self._process = subprocess.Popen(
                [*command, *(["--read-only"] if self.read_only else []), os.path.abspath(self.path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                # Keys that end this process must not end it first.
                start_new_session=True,
            )
            try:
                self._client = NbdClient(self._connection(self._process, way))
            except OSError:
                # It listens before it has opened the image.
                reason = self._why_it_ended(self._process)
                self._end()
                raise self.refused(reason) from None

    def _connection(self, process: subprocess.Popen[bytes], way: Path) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_PATIENCE)
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                connection.connect(str(way))
            except (FileNotFoundError, ConnectionRefusedError):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
                continue
            connection.settimeout(None)
            return connection

    def _why_it_ended(self, process: subprocess.Popen[bytes]) -> str:
        try:
            _, said = process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            return "qemu-nbd does not answer"
        return "it is in use by another guest" if b" lock" in said else _reason(said)

    def unlock(self) -> None:
        """Have all that was written on the disk, and let others open it; MachineError if that fails."""
        if self._client is not None:
            self.save()
            self._end()

    def _end(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
            self._process.kill()
            self._process.wait()
            assert self._process.stderr is not None
            self._process.stderr.close()
            self._process = None

    @property
    def _nbd(self) -> NbdClient:
        assert self._client is not None, "the disk is not locked"
        return self._client

    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        """Fill memory from an offset on."""
        self._nbd.read(offset, into)

    def write(self, offset: int, data: Sequence[memoryview]) -> None:
        """Write memory from an offset on."""
        self._nbd.write(offset, data)

    def flush(self) -> None:
        """Return when all that was written is on the disk."""
        if not self.read_only and self._client is not None:
            self._client.flush()

    def discard(self, offset: int, size: int) -> None:
        """Say that some contents are not needed."""
        self._nbd.discard(offset, size)

    def close(self) -> None:
        """Close the image, and end the process."""
        self._end()


def _reason(said: bytes) -> str:
    """The last of a program's lines, without its own name."""
    lines = said.decode(errors="replace").strip().splitlines()
    return re.sub(r"^qemu-\w+: ", "", lines[-1]) if lines else "QEMU's program said nothing"
