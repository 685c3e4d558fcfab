"""`--pidfile`: a file that holds the process's id while the process lives."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import Annotated, TypeAlias

import typer

from chronovisor.machine.errors import MachineError

PidFile: TypeAlias = Annotated[
    str, typer.Option(help="Write this process's id there; the file goes when it ends.", metavar="FILE")
]


@contextlib.contextmanager
def pid_file(path: str) -> Iterator[None]:
    """Keep this process's id in a file inside the context, and the file locked; nothing without a path.

    MachineError if it cannot be written, or another process has it locked.
    """
    if not path:
        yield
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise MachineError(f"--pidfile {path}: {error.strerror or error}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        except BlockingIOError:
            raise MachineError(f"--pidfile {path}: another process that runs has it") from None
        except OSError as error:
            raise MachineError(f"--pidfile {path}: {error.strerror or error}") from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
    finally:
        os.close(descriptor)
