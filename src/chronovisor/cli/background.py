"""`--detach`: the rest of a command in a process of its own, which outlives the terminal."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from typing import Annotated, Any, Final, TypeAlias

import typer

from chronovisor.cli.guest_end import EndReport
from chronovisor.cli.output import say
from chronovisor.cli.status import ExitStatus
from chronovisor.cli.terminal import write_stdout
from chronovisor.machine.bounded_log import BoundedLog
from chronovisor.machine.console import Sink
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest_records import GuestRecord
from chronovisor.machine.sizes import parse_bytes

Detach: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--detach", help="Go on in the background, with a log of the console, and return when that has begun."
    ),
]
LOG_SIZE_DEFAULT: Final = "16M"
LogSize: TypeAlias = Annotated[
    str,
    typer.Option(help="With --detach: how much the log of the console holds, the newest.", metavar="SIZE"),
]
_LEAST_LOG: Final = 1 << 10
_SIGNALLED: Final = 128


def parse_log_size(text: str) -> int:
    """Return the bytes that `--log-size` says. MachineError if that makes no sense, or would hold nothing."""
    size = parse_bytes(text, "log size")
    if size < _LEAST_LOG:
        raise MachineError(f"log size {text}: a log holds at least {_LEAST_LOG} bytes")
    return size


class Foreground:
    """The process that the user started. Its guest's console is its standard input and output."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def __enter__(self) -> Foreground:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin_output(self, name: str, size: int) -> Sink:
        """Return what writes the output of the guest, whose name is this process's by now.

        How a former guest of that name ended is no longer known.
        """
        GuestRecord(name).forget()
        return write_stdout

    def begun(self, **more: Any) -> None:
        """Do what is to be done once the guest runs."""

    def ended(self, end: dict[str, Any], report: EndReport | None) -> None:
        """Do what is to be done before others hear that the guest has ended: see `end_as_json`.

        A signal or an error of ours that ended the run (`report` is None) is said elsewhere.
        """

    def tell(self, report: EndReport) -> ExitStatus:
        """Say how the guest ended, on a terminal that is the user's again; return the command's status."""
        return report.say(self._as_json)


class Background(Foreground):
    """A process that was made by `--detach`: it has no terminal, and the one that made it waits to hear that
    the guest has begun. Until then errors are said on that one's standard error.

    As a context it keeps the record of its guest, unless the guest does not begin in it.
    """

    def __init__(self, as_json: bool, tell: int) -> None:
        super().__init__(as_json)
        self._tell = tell
        self._name = ""
        self._log: BoundedLog | None = None
        self._begun = False

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *_: object) -> None:
        if self._log is not None and not self._begun:
            GuestRecord(self._name).forget()

    def begin_output(self, name: str, size: int) -> Sink:
        """Begin the record of the guest, and the log of its console."""
        record = GuestRecord(name)
        record.begin()
        self._name, self._log = name, BoundedLog(record.log, size)
        return self._log.write

    def begun(self, **more: Any) -> None:
        """Tell the waiting process that the guest runs, and `more` about it; it ends then."""
        assert self._log is not None
        self._begun = True
        sys.stderr.flush()
        self._log.take_stderr()
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(_Stream(self._log)), errors="backslashreplace", line_buffering=True
        )
        told = {"name": self._name, "pid": os.getpid(), "log": str(self._log.path), **more}
        os.write(self._tell, json.dumps(told).encode())
        os.close(self._tell)

    def ended(self, end: dict[str, Any], report: EndReport | None) -> None:
        """Keep how the guest ended, for `chronovisor wait`, and complete the log, which may be read then."""
        GuestRecord(self._name).keep_end(end)
        if report is not None:
            report.say(self._as_json)

    def tell(self, report: EndReport) -> ExitStatus:
        """Return the command's status: the log has the rest."""
        return report.status


class _Stream(io.RawIOBase):
    """What this process says goes to its log, whose size stays bounded."""

    def __init__(self, log: BoundedLog) -> None:
        self._log = log

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._log.write(bytes(data))
        return len(data)


def choose_ground(detach: bool, as_json: bool) -> Foreground:
    """Have the rest of this command run here, or with `detach` in a child process. No thread may run yet.

    The parent waits until the child says that the guest has begun, tells the user, and ends with status 0. If
    the child ends before that, the parent ends with the child's status.
    """
    if not detach:
        return Foreground(as_json)
    sys.stdout.flush()
    hear, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(tell)
        raise typer.Exit(_await(child, hear, as_json))
    os.close(hear)
    # Without a terminal that could send it signals.
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return Background(as_json, tell)


def _await(child: int, hear: int, as_json: bool) -> int:
    try:
        with os.fdopen(hear, "rb") as pipe:
            told = pipe.read()
    except KeyboardInterrupt:
        os.kill(child, signal.SIGTERM)
        raise
    if told:
        found = json.loads(told)
        if as_json:
            print(json.dumps(found))
        else:
            waits = f" waits at {found['address']}" if "address" in found else " runs"
            print(f"{found['name']}{waits} in the background, process {found['pid']}; log: {found['log']}")
        return 0
    _, waited = os.waitpid(child, 0)
    status = os.waitstatus_to_exitcode(waited)
    if status < 0:
        say(f"its process was ended by signal {-status} before the guest began")
        return _SIGNALLED - status
    return status
