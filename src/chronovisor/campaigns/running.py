"""How a campaign runs: batch by batch, with every result on the disk before it counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeAlias

from chronovisor.campaigns.campaign import Answer, Batch, Campaign, Failure, Json, Result
from chronovisor.campaigns.cluster import Cluster
from chronovisor.campaigns.results import Header, Results


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a campaign is."""

    tasks: int
    """Tasks done, those of an earlier run included."""
    of: int | None
    """The tasks of this batch and those before it; None if they are endless."""
    units: int
    """Units done, those of an earlier run included."""
    units_now: int
    """Units done by this run."""
    found: int
    """Failures found."""
    seconds: float
    """Since this run began."""
    task_seconds: float
    """What this run's tasks took the workers."""
    workers: int

    @property
    def efficiency(self) -> float:
        """How much of the workers' time was spent in tasks, if there were as many workers all the time."""
        return self.task_seconds / (self.seconds * max(1, self.workers))


Hear: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Ended:
    """A campaign that has ended."""

    answer: Answer
    failures: list[tuple[int, Failure]]
    """What was found, each with its task's number, in their order."""
    progress: Progress
    is_whole: bool
    """Whether every task was done; otherwise the time was over."""
    header: Header


class Run:
    """One run of a campaign, from where its results end."""

    def __init__(
        self,
        campaign: Campaign,
        results: Results,
        cluster: Cluster,
        seconds: float | None,
        hear: Hear,
    ) -> None:
        """`seconds` limits the time; None does not."""
        self._campaign = campaign
        self._results = results
        self._cluster = cluster
        self._begun = time.monotonic()
        self._until = None if seconds is None else self._begun + seconds
        self._hear = hear
        self._tasks = self._units = self._units_now = self._first = 0
        self._task_seconds = 0.0
        self._of: int | None = 0
        self._found: dict[int, tuple[Failure, ...]] = {}

    def to_end(self) -> Ended:
        """Run the campaign until it has its answer or the time is over."""
        header = self._results.header
        course = self._campaign.course(header.seed, header.parameters, header.endless)
        batch, whole = next(course), True
        while True:
            done, whole = self._batch(batch) if whole else ([], False)
            try:
                batch = course.send(done)
            except StopIteration as stop:
                found = [(task, one) for task in sorted(self._found) for one in self._found[task]]
                return Ended(stop.value, found, self._progress(), whole, header)

    @property
    def _is_late(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def _batch(self, batch: Batch) -> tuple[list[Result], bool]:
        """Do a batch. Return its results in the order of its parts, and whether it was done to its end.

        A task that was given up has no result, only a failure.
        """
        results, header, first = self._results, self._results.header, self._first
        if self._of is not None:
            self._of = None if batch.count is None else self._of + batch.count
        done: dict[int, Result] = {}

        def missing() -> Iterator[tuple[int, Json]]:
            for number, part in enumerate(batch.parts, first):
                self._first = number + 1
                known = results.get(number)
                if known is None:
                    yield number, part
                else:
                    done[number] = known
                    self._count(number, known)

        doing = self._cluster.run(
            header.campaign,
            header.seed,
            header.parameters,
            missing(),
            self._campaign.time_limit,
            lambda: not self._is_late,
        )
        # Closed at once if a result cannot be written: it needs the cluster to cancel what is under way.
        with closing(doing):
            for number, result, seconds in doing:
                results.add(number, result)
                self._task_seconds += seconds
                done[number] = result
                self._units_now += result.done
                self._count(number, result)
                self._hear(self._progress())
        in_order = [done[number] for number in sorted(done)]
        return [result for result in in_order if result.data is not None], len(done) == batch.count

    def _count(self, task: int, result: Result) -> None:
        self._tasks += 1
        self._units += result.done
        if result.found:
            self._found[task] = result.found

    def _progress(self) -> Progress:
        return Progress(
            tasks=self._tasks,
            of=self._of,
            units=self._units,
            units_now=self._units_now,
            found=sum(map(len, self._found.values())),
            seconds=time.monotonic() - self._begun,
            task_seconds=self._task_seconds,
            workers=self._cluster.workers,
        )
