"""The file of a failure: all that one command needs to run it again on one machine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from chronovisor.campaigns.campaign import CampaignError, Failure
from chronovisor.campaigns.results import Header

FOLDER = "failures"


@dataclass(frozen=True, slots=True)
class CaseFile:
    """A failure, and the campaign that found it."""

    header: Header
    failure: Failure

    @classmethod
    def read(cls, path: Path) -> CaseFile:
        """Read the file of a failure. Raises `CampaignError` for any other file."""
        try:
            told = json.loads(path.read_text())
            return cls(Header(**told["header"]), Failure(**told["failure"]))
        except OSError as error:
            raise CampaignError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, TypeError, KeyError):
            raise CampaignError(f"{path} is not the file of a failure") from None


def written(directory: Path, header: Header, failures: list[tuple[int, Failure]]) -> list[Path]:
    """Write the failures of tasks into a folder of `directory`, a file each, and return the files.

    Raises `OSError` if they cannot be written.
    """
    paths = []
    for number, (task, failure) in enumerate(failures, 1):
        folder = directory / FOLDER
        folder.mkdir(exist_ok=True)
        path = folder / f"{number:04}-task-{task}.json"
        path.write_text(json.dumps(asdict(CaseFile(header, failure)), indent=2) + "\n")
        paths.append(path)
    return paths
