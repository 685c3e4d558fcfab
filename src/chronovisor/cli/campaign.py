"""`chronovisor campaign`: run a campaign on this machine's processors or on a cluster."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chronovisor.cli.status import ExitStatus

if TYPE_CHECKING:
    from chronovisor.campaigns.campaign import Answer, Campaign
    from chronovisor.campaigns.running import Ended, Hear, Progress

WEEK = 168.0
"""Hours."""
ALL = "all"
"""Names all campaigns, one after the other."""


@dataclass(frozen=True)
class Wanted:
    """What was asked for on the command line."""

    scheduler: str | None
    workers: int | None
    hours: float | None
    seed: int | None
    resume: Path | None
    results: Path | None
    chosen: dict[str, int]
    percent: int
    as_json: bool


def command(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The campaign, or `all`; all are listed without.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="tcp://HOST:PORT", help="Run on the cluster of this Dask scheduler.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Run in so many processes here; one a processor if not given.")
    ] = None,
    hours: Annotated[
        float | None, typer.Option(min=0, max=WEEK, help="Go on for so long, and stop then.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same tasks.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Go on with the results in DIR.")] = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where results go; NAME-SEED (for `all`: in DIR) if not given."),
    ] = None,
    share: Annotated[
        int | None, typer.Option(metavar="PERCENT", min=1, help="Do so much of what can be cut.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=NUMBER", help="Set a parameter of the campaign."),
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Run the case of a failure once more, here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> int:
    """Run a campaign: a question that is cut into tasks, on this machine's processors or on a Dask cluster.

    Every result is on the disk before it counts, so a campaign that was ended in any way goes on with
    --resume. Status 1 says that failures were found.
    """
    from chronovisor.campaigns.campaign import CampaignError
    from chronovisor.campaigns.catalogue import CAMPAIGNS, campaign_named

    if name is None:
        for known, (_, question) in CAMPAIGNS.items():
            print(f"{known:14} {question}")
        return ExitStatus.OK
    if resume is not None and (seed is not None or set_ or share is not None or results is not None):
        raise typer.BadParameter("--resume takes seed, parameters and directory from the results: give none")
    if scheduler is not None and workers is not None:
        raise typer.BadParameter("--scheduler names a cluster, and --workers processes here: give one")
    wanted = Wanted(
        scheduler, workers, hours, seed, resume, results, _parameters(set_ or []), share or 100, as_json
    )
    try:
        if name == ALL:
            if resume is not None or replay is not None or set_:
                raise typer.BadParameter("--resume, --replay and --set are for one campaign: name it")
            return _run_all(wanted)
        try:
            campaign = campaign_named(name)
        except CampaignError as error:
            raise typer.BadParameter(str(error)) from None
        if replay is not None:
            return _replay(campaign, replay)
        return _run(campaign, wanted)
    except ModuleNotFoundError as error:
        if error.name not in ("distributed", "dask", "numpy", "z3"):
            raise
        raise CampaignError(
            f"campaigns need {error.name}, which is not installed: pip install 'chronovisor[campaigns]'"
        ) from None


def _parameters(given: list[str]) -> dict[str, int]:
    chosen = {}
    for text in given:
        name, _, value = text.partition("=")
        if not value.isdecimal():
            raise typer.BadParameter(f"{text!r}: write NAME=NUMBER", param_hint="--set")
        chosen[name] = int(value)
    return chosen


def _run_all(wanted: Wanted) -> int:
    """Run all campaigns. One that cannot run, or that finds something, is no reason to skip the others."""
    from chronovisor.campaigns.campaign import CampaignError
    from chronovisor.campaigns.catalogue import CAMPAIGNS, campaign_named
    from chronovisor.cli.output import say, show

    status = ExitStatus.OK
    seed = secrets.randbits(32) if wanted.seed is None else wanted.seed
    for name in CAMPAIGNS:
        if not wanted.as_json:
            show(f"{name}:")
        results = (wanted.results or Path()) / f"{name}-{seed}"
        try:
            ended = _run(campaign_named(name), replace(wanted, seed=seed, results=results))
        except CampaignError as error:
            say(f"{name}: {error}")
            ended = ExitStatus.FAILED
        status = max(status, ended)
    return status


def _run(campaign: Campaign, wanted: Wanted) -> ExitStatus:
    ended, directory = _ended(campaign, wanted)
    return _report(campaign, ended, directory, wanted.as_json)


def _ended(campaign: Campaign, wanted: Wanted) -> tuple[Ended, Path]:
    from chronovisor.campaigns.campaign import CampaignError, with_defaults
    from chronovisor.campaigns.results import Header, created, resumed

    hours, resume = wanted.hours, wanted.resume
    header = None
    if resume is None:
        seed = secrets.randbits(32) if wanted.seed is None else wanted.seed
        parameters = with_defaults(campaign, wanted.chosen, wanted.percent)
        header = Header.here(campaign.name, seed, parameters, hours is not None)
        # Before anything is made: the parameters make sense.
        campaign.course(header.seed, header.parameters, header.endless)
    from chronovisor.campaigns import cluster
    from chronovisor.campaigns.running import Run

    with ExitStack() as stack:
        if resume is not None:
            results = stack.enter_context(resumed(resume, campaign.name))
            if results.header.endless and hours is None:
                raise CampaignError(f"the campaign in {resume} ends by the clock: give --hours")
        made = stack.enter_context(
            cluster.at(wanted.scheduler)
            if wanted.scheduler
            else cluster.local(wanted.workers or os.cpu_count() or 1)
        )
        made.prepare()
        if header is not None:
            # Last, so that a campaign that cannot begin leaves no directory.
            where = wanted.results or Path(f"{campaign.name}-{header.seed}")
            results = stack.enter_context(created(where, header))
        hear = stack.enter_context(_progress(campaign, not wanted.as_json))
        seconds = None if hours is None else hours * 3600
        return Run(campaign, results, made, seconds, hear).to_end(), results.directory


@contextmanager
def _progress(campaign: Campaign, wanted: bool) -> Iterator[Hear]:
    """Show the progress on stderr, if it is a terminal."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn(campaign.name),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(campaign.name, total=None, words="")

        def hear(progress: Progress) -> None:
            rate = progress.units_now / progress.seconds
            words = (
                f"{progress.units} {campaign.unit}, {rate:.0f} a second, {progress.found} found, "
                f"{progress.workers} workers"
            )
            bar.update(task, completed=progress.tasks, total=progress.of, words=words)

        yield hear


def _report(campaign: Campaign, ended: Ended, directory: Path, as_json: bool) -> ExitStatus:
    from chronovisor.campaigns.report import write

    told = write(campaign, ended, directory)
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        _print(campaign, ended.answer, told, directory)
    return ExitStatus.FAILED if ended.failures else ExitStatus.OK


def _print(campaign: Campaign, answer: Answer, told: dict[str, Any], directory: Path) -> None:
    from chronovisor.cli.output import show, terminal_width
    from chronovisor.report.columns import fitting

    for line in fitting(answer.table, terminal_width()):
        show(line)
    for line in answer.remarks:
        show(line)
    for failure in told["failures"]:
        show(f"found: {failure['words']}")
        show(f"  chronovisor campaign {campaign.name} --replay {shlex.quote(failure['file'])}")
    if not told["whole"]:
        again = f"chronovisor campaign {campaign.name} --resume {shlex.quote(str(directory))}"
        show(f"The time was over. To go on: {again}")
    show(
        f"{told['done']} {campaign.unit} in {told['tasks']} tasks, {len(told['failures'])} found, "
        f"{told['seconds']:.1f} s on {told['workers']} workers, {told['efficiency']:.1%} of it in tasks; "
        f"the report is in {directory}"
    )


def _replay(campaign: Campaign, path: Path) -> int:
    from chronovisor.campaigns.case_file import CaseFile
    from chronovisor.campaigns.report import replayed
    from chronovisor.cli.output import show

    file = CaseFile.read(path)
    again = replayed(campaign, file)
    for line in again.story:
        show(line)
    show(f"{'it fails again' if again.fails else 'it does not fail now'}: {file.failure.words}")
    return ExitStatus.FAILED if again.fails else ExitStatus.OK
