"""The report of a campaign, in the directory of its results: the answer as JSON and as a table in Markdown,
its picture, and a file for each failure.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from chronovisor.campaigns.campaign import Answer, Campaign, CampaignError, Replay
from chronovisor.campaigns.case_file import CaseFile, written
from chronovisor.campaigns.code_version import code_version
from chronovisor.campaigns.running import Ended
from chronovisor.campaigns.task_case import part_of

REPORT = "report.json"
TABLE = "report.md"
PICTURE = "report.png"


def write(campaign: Campaign, ended: Ended, directory: Path) -> dict[str, Any]:
    """Write the report, and return what is in it.

    Raises `CampaignError` if it cannot be written.
    """
    progress, answer = ended.progress, ended.answer
    header = ended.header
    try:
        files = written(directory, header, ended.failures)
        told = {
            "campaign": campaign.name,
            "seed": header.seed,
            "parameters": dict(header.parameters),
            "code": header.code,
            "whole": ended.is_whole,
            "done": progress.units,
            "unit": campaign.unit,
            "tasks": progress.tasks,
            "seconds": round(progress.seconds, 2),
            "task_seconds": round(progress.task_seconds, 2),
            "workers": progress.workers,
            "efficiency": round(progress.efficiency, 4),
            "failures": [
                {"words": failure.words, "task": task, "file": str(path)}
                for (task, failure), path in zip(ended.failures, files, strict=True)
            ],
            "answer": answer.data,
        }
        (directory / REPORT).write_text(json.dumps(told, indent=2) + "\n")
        (directory / TABLE).write_text(_markdown(answer))
        if answer.draw is not None:
            answer.draw(directory / PICTURE)
    except OSError as error:
        raise CampaignError(f"the report cannot be written to {directory}: {error.strerror}") from None
    return told


def _markdown(answer: Answer) -> str:
    head, *rows = answer.table
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def replayed(campaign: Campaign, file: CaseFile) -> Replay:
    """Run the case of a failure once more, in this process.

    Raises `CampaignError` if the case is of another campaign, or makes no sense.
    """
    header, case = file.header, file.failure.case
    if header.campaign != campaign.name:
        raise CampaignError(f"the case is of the campaign {header.campaign}, not of {campaign.name}")
    other = () if header.code == code_version() else (f"found by {header.code}; this is {code_version()}",)
    is_task, part = part_of(case)
    if not is_task:
        again = campaign.replay(header.seed, header.parameters, case)
        return Replay(again.fails, other + again.story)
    try:
        found = campaign.perform(header.seed, header.parameters, part).found
    except Exception as error:
        return Replay(True, (*other, f"the task ends in {type(error).__name__}: {error}"))
    return Replay(bool(found), (*other, *(failure.words for failure in found)))
