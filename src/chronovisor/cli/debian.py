"""Debian's ppc64el packages, fetched by apt and unpacked without being installed.

`python -m chronovisor.cli.debian DIRECTORY` leaves Debian's kernel for 64-bit Power in DIRECTORY and prints
the path of its `vmlinux` (an ELF file with symbols' addresses but no debug information). What is there is not
fetched again. It needs Debian's apt and dpkg-deb, and no root.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

CACHE: Final = Path("build/debian-ppc64el")
"""Where packages are kept between runs, and what is unpacked from them, if no other place is named."""
FLAVOUR: Final = "powerpc64le"
"""Debian's usual kernel: its pages are of 64 KiB in Debian 12, of 4 KiB in Debian 13."""


class FetchError(Exception):
    """A package that could not be fetched or unpacked: one line for people."""


class Packages:
    """ppc64el packages in a directory of their own, whatever architecture this machine is of.

    They are of the suite that this machine's apt uses, or of another suite on the same mirror ("trixie").
    """

    def __init__(self, directory: Path = CACHE, suite: str | None = None) -> None:
        self._own = None if suite is None else Packages(directory)
        self._suite = suite
        self.directory = directory.resolve() / (suite or "")
        self._updated = self._holds_lock = False
        for part in ("lists/partial", "cache/archives/partial"):
            (self.directory / part).mkdir(parents=True, exist_ok=True)

    def fetch(self, names: Sequence[str]) -> dict[str, Path]:
        """Return each package's file by its name, fetched if it is not there yet."""
        with self.locked():
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

    def kernel(self, flavour: str = FLAVOUR) -> Path:
        """Return the directory of the unpacked kernel package: `boot/vmlinux-*` and `lib/modules`."""
        with self.locked():
            package = self._kernel_package(flavour)
            into = self.directory / package
            if not into.exists():
                partial = self.directory / f"{package}.partial"
                self.unpack([package], partial)
                partial.rename(into)
            return into

    def vmlinux(self, flavour: str = FLAVOUR) -> Path:
        """Return the kernel's ELF file."""
        return next((self.kernel(flavour) / "boot").glob("vmlinux-*"))

    def mirror(self) -> tuple[str, str]:
        """Return the URI of the mirror that this machine's apt uses, and the suite there."""
        if self._own is not None and self._suite is not None:
            return self._own.mirror()[0], self._suite
        with self.locked():
            self._update()
            known = self._run(
                *("apt-get", *self._options(), "indextargets"),
                *("--format", "$(LABEL) $(REPO_URI) $(RELEASE)"),
            )
        for target in known.splitlines():
            label, uri, suite = target.rsplit(" ", 2)
            if label == "Debian":
                return uri, suite
        raise FetchError("this machine's apt knows no mirror of Debian that has ppc64el packages")

    def source(self, name: str) -> Path:
        """Return the upstream archive of a source package, fetched by apt if it is not there yet."""
        with self.locked():
            if (kept := self._upstream(name)) is not None:
                return kept
            uri, suite = self.mirror()
            sources, lists = self.directory / "source.list", self.directory / "source-lists"
            sources.write_text(f"deb-src {uri} {suite} main\n")
            (lists / "partial").mkdir(parents=True, exist_ok=True)
            options = (
                *(*self._options(), f"-oDir::State::Lists={lists}"),
                *(f"-oDir::Etc::SourceList={sources}", "-oDir::Etc::SourceParts=/dev/null", "--quiet=2"),
            )
            self._run("apt-get", *options, "update")
            self._run("apt-get", *options, "--download-only", "source", name)
            if (fetched := self._upstream(name)) is None:
                raise FetchError(f"apt fetched no source of {name}")
            return fetched

    def _upstream(self, name: str) -> Path | None:
        return next(iter(sorted(self.directory.glob(f"{name}_*.orig.tar.*[!c]"), reverse=True)), None)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
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

    def _kernel_package(self, flavour: str) -> str:
        """The newest kernel that is here, or else the newest that can be fetched."""
        kept = [path.name.split("_")[0] for path in self.directory.glob("linux-image-[0-9]*_ppc64el.deb")]
        if here := _kernels(kept, flavour):
            return here[0]
        self._update()
        listed = self._run("apt-cache", *self._options(), "pkgnames", "linux-image-").split()
        failure = FetchError(f"apt knows no ppc64el kernel of flavour {flavour}")
        for package in _kernels(listed, flavour):
            try:
                self.fetch([package])
            except FetchError as error:
                # A mirror may list a kernel before it has the file; the one before it is there.
                failure = error
            else:
                return package
        raise failure

    def _kept(self, name: str) -> Path | None:
        return next(iter(sorted(self.directory.glob(f"{name}_*.deb"), reverse=True)), None)

    def _fetched(self, name: str) -> Path:
        path = self._kept(name)
        if path is None:
            raise FetchError(f"apt fetched no package {name}")
        return path

    def _update(self) -> None:
        if not self._updated:
            if self._suite is not None:
                uri, suite = self.mirror()
                self._sources.write_text(f"deb {uri} {suite} main\n")
            # A list that is damaged or new this minute does not matter if the needed one is there.
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
            *self._other_suite(),
        ]

    @property
    def _sources(self) -> Path:
        """The list of this suite alone."""
        return self.directory / "sources.list"

    def _other_suite(self) -> list[str]:
        if self._suite is None:
            return []
        return [f"-oDir::Etc::SourceList={self._sources}", "-oDir::Etc::SourceParts=/dev/null"]

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


def _kernels(names: Sequence[str], flavour: str) -> list[str]:
    """Those of the packages that are a kernel of this flavour, the newest first."""
    kernel = re.compile(rf"linux-image-(\d[^-]*(?:-\d+)?)-{re.escape(flavour)}")
    found = [match for name in names if (match := kernel.fullmatch(name))]
    found.sort(key=lambda match: [int(number) for number in re.findall(r"\d+", match[1])], reverse=True)
    return [match[0] for match in found]


if __name__ == "__main__":
    try:
        print(Packages(Path(sys.argv[1])).vmlinux())
    except IndexError:
        sys.exit("usage: debian.py DIRECTORY")
    except OSError as error:
        sys.exit(f"debian.py: {error.filename}: {error.strerror}")
    except FetchError as error:
        sys.exit(f"debian.py: {error}")
