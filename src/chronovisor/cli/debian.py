"""Debian's ppc64el packages, fetched by apt and unpacked without being installed.

`python -m chronovisor.cli.debian DIRECTORY` leaves Debian's kernel for 64-bit Power in DIRECTORY and prints
the path of its `vmlinux` (an ELF file with symbols' addresses but no debug information). What is there is not
fetched again. It needs Debian's apt and dpkg-deb, and no root.
"""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

CACHE: Final = Path("build/debian-ppc64el")
"""Where packages are kept between runs, and what is unpacked from them, if no other place is named."""
_KERNEL: Final = "linux-image-powerpc64le"
"""Debian's name for the newest kernel, which is a package of its own."""


class FetchError(Exception):
    """A package that could not be fetched or unpacked: one line for people."""


class Packages:
    """ppc64el packages in a directory of their own, whatever architecture this machine is of."""

    def __init__(self, directory: Path = CACHE) -> None:
        self.directory = directory.resolve()
        self._updated = self._holds_lock = False
        for part in ("lists/partial", "cache/archives/partial"):
            (self.directory / part).mkdir(parents=True, exist_ok=True)

    def fetch(self, names: Sequence[str]) -> dict[str, Path]:
        """Return each package's file by its name, fetched where it is not there yet."""
        with self._locked():
            found = {name: self._kept(name) for name in names}
            missing = [name for name, path in found.items() if path is None]
            if missing:
                self._update()
                self._run("apt-get", *self._options(), "--quiet=2", "download", *missing)
            return {name: path or self._fetched(name) for name, path in found.items()}

    def unpack(self, names: Sequence[str], into: Path) -> Path:
        """Unpack the packages' files into a directory, which is returned."""
        for path in self.fetch(names).values():
            self._run("dpkg-deb", "--extract", str(path), str(into))
        return into

    def kernel(self) -> Path:
        """Return the directory of the unpacked kernel package: `boot/vmlinux-*` and `lib/modules`."""
        with self._locked():
            package = self._kernel_package()
            into = self.directory / package
            if not into.exists():
                partial = self.directory / f"{package}.partial"
                self.unpack([package], partial)
                partial.rename(into)
            return into

    def vmlinux(self) -> Path:
        """Return the kernel's ELF file."""
        return next((self.kernel() / "boot").glob("vmlinux-*"))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time fetch and unpack here; the lock can be taken again inside."""
        if self._holds_lock:
            yield
            return
        with (self.directory / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._holds_lock = True
            try:
                yield
            finally:
                self._holds_lock = False

    def _kernel_package(self) -> str:
        kept = sorted(self.directory.glob("linux-image-[0-9]*_ppc64el.deb"))
        if kept:
            return kept[-1].name.split("_")[0]
        self._update()
        depends = self._run("apt-cache", *self._options(), "depends", _KERNEL)
        for word in depends.split():
            if word.startswith("linux-image-") and word != _KERNEL:
                return word
        raise FetchError(f"Debian's {_KERNEL} names no kernel; apt-cache said: {depends.strip()}")

    def _kept(self, name: str) -> Path | None:
        return next(iter(sorted(self.directory.glob(f"{name}_*.deb"), reverse=True)), None)

    def _fetched(self, name: str) -> Path:
        path = self._kept(name)
        if path is None:
            raise FetchError(f"apt fetched no package {name}")
        return path

    def _update(self) -> None:
        if not self._updated:
            # A list that is damaged or new this minute is no matter where the one that is asked for is there.
            subprocess.run(
                ["apt-get", *self._options(), "--quiet=2", "update"], capture_output=True, check=False
            )
            self._updated = True

    def _options(self) -> list[str]:
        return [
            "-oAPT::Architecture=ppc64el",
            "-oAPT::Architectures=ppc64el",
            f"-oDir::State::Lists={self.directory / 'lists'}",
            "-oDir::State::status=/dev/null",
            f"-oDir::Cache={self.directory / 'cache'}",
            # The directory need not be readable by the user that apt would change to.
            "-oAPT::Sandbox::User=root",
        ]

    def _run(self, *command: str) -> str:
        try:
            ended = subprocess.run(
                command, cwd=self.directory, capture_output=True, text=True, check=False, timeout=300
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FetchError(f"{command[0]}: {error}") from None
        if ended.returncode:
            said = (ended.stderr.strip() or ended.stdout.strip()).splitlines()
            raise FetchError(f"{command[0]} failed: {said[-1] if said else ended.returncode}")
        return ended.stdout


if __name__ == "__main__":
    try:
        print(Packages(Path(sys.argv[1])).vmlinux())
    except IndexError:
        sys.exit("usage: debian.py DIRECTORY")
    except FetchError as error:
        sys.exit(f"debian.py: {error}")
