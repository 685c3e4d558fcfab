"""The run directory, in which the guests of this user on this machine are found by their names.

Each running guest has a unix socket `NAME.sock` there. It belongs to the process that runs the guest. A
socket on which nobody answers was left by a killed process, and is removed.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from chronovisor.machine.errors import MachineError

ENVIRONMENT: Final = "CHRONOVISOR_RUN_DIR"
"""The environment variable that chooses the directory."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SUFFIX: Final = ".sock"
_LONGEST_PATH: Final = 107
"""Bytes of a unix socket's path."""


def run_directory() -> Path:
    """Return the run directory, made if need be, which its owner alone can enter.

    $CHRONOVISOR_RUN_DIR; without it $XDG_RUNTIME_DIR/chronovisor; without that, or if it is not ours, a
    directory for this user among the temporary files. MachineError if it cannot be made, or others can
    enter it.
    """
    return _own(_place())


def state_directory() -> Path:
    """Return the directory for what has to outlive a crash of the machine, which its owner alone can enter.

    The run directory, if $CHRONOVISOR_RUN_DIR chooses it; else chronovisor in $XDG_STATE_HOME, or in
    ~/.local/state: without it the run directory is mostly in memory. MachineError as `run_directory`.
    """
    if os.environ.get(ENVIRONMENT):
        return run_directory()
    state = os.environ.get("XDG_STATE_HOME")
    return _own((Path(state) if state else Path.home() / ".local" / "state") / "chronovisor")


def _own(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise MachineError(
            f"run directory {path}: {error.strerror or error}; set {ENVIRONMENT} to one of your own"
        ) from None
    if not stat.S_ISDIR(found.st_mode):
        raise MachineError(
            f"run directory {path}: this is no directory but a link, whose owner could lead it elsewhere; "
            f"set {ENVIRONMENT} to a directory of your own"
        )
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise MachineError(
            f"run directory {path}: others can enter it; make it yours alone (chmod 700), "
            f"or set {ENVIRONMENT}"
        )
    return path


def _place() -> Path:
    if chosen := os.environ.get(ENVIRONMENT):
        return Path(chosen)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime) / "chronovisor"
    return Path(tempfile.gettempdir()) / f"chronovisor-{os.getuid()}"


def check_name(name: str) -> str:
    """Return the name if a guest can have it; else MachineError."""
    if not _NAME.fullmatch(name):
        raise MachineError(
            f"name {name!r}: take letters, digits, '.', '_' and '-', 64 at most, a letter or digit first"
        )
    return name


def socket_path(name: str) -> Path:
    """Return the path of the guest's socket; MachineError for a name that cannot be one."""
    path = run_directory() / f"{check_name(name)}{_SUFFIX}"
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise MachineError(f"{path}: too long for a socket; set {ENVIRONMENT} to a shorter directory")
    return path


def claim(name: str) -> socket.socket:
    """Take the name: return a socket that listens for requests to the guest.

    MachineError if a guest of that name runs.
    """
    path = socket_path(name)
    with _alone(path.parent):
        if is_listened_to(path):
            raise MachineError(f"a guest named {name} runs already; choose another with --name")
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen()
        except OSError as error:
            listener.close()
            raise MachineError(f"{path}: {error.strerror or error}") from None
    return listener


def names() -> list[str]:
    """Return the names of the guests that run; what killed processes left is removed."""
    with only_these_names() as found:
        return found


@contextmanager
def only_these_names() -> Iterator[list[str]]:
    """A context with the names of the guests that run, in which nobody takes another name."""
    directory = run_directory()
    with _alone(directory):
        found = []
        for path in sorted(directory.glob(f"*{_SUFFIX}")):
            if is_listened_to(path):
                found.append(path.name.removesuffix(_SUFFIX))
            else:
                path.unlink(missing_ok=True)
        yield found


def is_listened_to(path: Path) -> bool:
    """Whether a process listens at this socket; if not, a killed process left it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            # It is alive, and only too busy to answer.
            return True
    return True


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep other processes away from the sockets meanwhile: otherwise a new socket might be removed."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
