"""A campaign's results on the disk.

`results.jsonl` begins with a header that names the campaign. A line for each finished task follows, written
only at the end of the file and on the disk before the task counts as done. A line is whole when it ends with
a newline: after a crash the rest of a line is cut off, and its task is done again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from chronovisor.campaigns.campaign import CampaignError, Json, Result
from chronovisor.campaigns.code_version import code_version

FILE = "results.jsonl"
FORMAT = 1
"""The version of the file's format."""


@dataclass(frozen=True, slots=True)
class Header:
    """What results belong to: the same header means the same tasks."""

    campaign: str
    seed: int
    parameters: Mapping[str, int]
    endless: bool
    code: str
    format: int = FORMAT

    @classmethod
    def here(cls, campaign: str, seed: int, parameters: Mapping[str, int], endless: bool) -> Header:
        """Return the header of results of this code."""
        return cls(campaign, seed, dict(parameters), endless, code_version())


class Results:
    """The results of one campaign: those that were there, and those that are added. See `opened`."""

    def __init__(self, file: IO[bytes], directory: Path, header: Header) -> None:
        self._file = file
        self.directory = directory
        self.header = header
        self._done: dict[int, Result] = {}

    def get(self, task: int) -> Result | None:
        """Return a task's result, or None if the task is not done."""
        return self._done.get(task)

    def __len__(self) -> int:
        """The number of tasks done."""
        return len(self._done)

    def add(self, task: int, result: Result) -> None:
        """Write a task's result, and return when it is on the disk. The first result of a task counts.

        Raises `CampaignError` if it cannot be written; the file is then as before.
        """
        if task in self._done:
            return
        self._write({"task": task, **asdict(result)})
        self._done[task] = result

    def _write(self, line: Json) -> None:
        text = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        end = self._file.tell()
        try:
            # Unbuffered: a short write is an error that `write` reports by its count.
            written = self._file.write(text)
            if written != len(text):
                raise OSError(28, "No space left on device")
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(end)
            self._file.seek(end)
            raise CampaignError(
                f"the results cannot be written to {self.directory}: {error.strerror}. What was written is "
                f"kept: make room, then continue with --resume {self.directory}"
            ) from error

    def read(self) -> None:
        """Read the tasks that are done, and cut off a line that was not written to its end."""
        self._file.seek(0)
        lines = self._file.read().split(b"\n")
        rest = lines.pop()
        for number, line in enumerate(lines[1:], 2):
            try:
                told = json.loads(line)
                self._done.setdefault(told["task"], Result.from_json(told))
            except (ValueError, TypeError, KeyError):
                raise CampaignError(f"{self.directory / FILE}:{number}: this is no result") from None
        end = self._file.seek(0, os.SEEK_END) - len(rest)
        self._file.truncate(end)
        self._file.seek(end)


@contextmanager
def created(directory: Path, header: Header) -> Iterator[Results]:
    """Make the directory of a new campaign, and open its results.

    Raises `CampaignError` if it cannot be made, or holds results already.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = open(directory / FILE, "xb", buffering=0)  # noqa: SIM115 (closed below)
    except FileExistsError:
        raise CampaignError(
            f"{directory} holds results already: continue with --resume {directory}, or choose another "
            "directory with --results"
        ) from None
    except OSError as error:
        raise CampaignError(f"{directory} cannot be made: {error.strerror}") from None
    with file:
        _lock(file, directory)
        results = Results(file, directory, header)
        results._write(asdict(header))
        yield results


@contextmanager
def resumed(directory: Path, campaign: str) -> Iterator[Results]:
    """Open the results in a directory to go on with their `campaign`.

    Raises `CampaignError` if the directory has no results, or those of another campaign or of other code.
    """
    try:
        file = open(directory / FILE, "r+b", buffering=0)  # noqa: SIM115 (closed below)
    except OSError as error:
        raise CampaignError(f"{directory / FILE} cannot be opened: {error.strerror}") from None
    with file:
        _lock(file, directory)
        header = _header(file, directory)
        if header.campaign != campaign:
            raise CampaignError(
                f"{directory} has results of the campaign {header.campaign}, not of {campaign}"
            )
        if header.code != code_version():
            raise CampaignError(
                f"{directory} has results of {header.code}; this is {code_version()}: results of different "
                "code are not mixed, so begin anew"
            )
        results = Results(file, directory, header)
        results.read()
        yield results


def _lock(file: IO[bytes], directory: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise CampaignError(f"another process writes to {directory}") from None


def _header(file: IO[bytes], directory: Path) -> Header:
    try:
        line = file.readline()
        told = json.loads(line)
        if not line.endswith(b"\n") or told.get("format") != FORMAT:
            raise ValueError
        return Header(**told)
    except (ValueError, TypeError, AttributeError):
        raise CampaignError(f"{directory / FILE} does not begin with the header of a campaign") from None
