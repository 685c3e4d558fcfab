"""The workers: Dask's, on this machine or on a cluster.

Dask sends tasks to workers, and sends a task of a worker that died to another one, a bounded number of times.
This module adds what is ours: workers must run the same code, and a worker that hangs in a task must die.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import NamedTuple, TypeAlias

import dask
import distributed
from distributed.scheduler import KilledWorker

from chronovisor.campaigns.campaign import CampaignError, Json, Parameters, Result
from chronovisor.campaigns.catalogue import campaign_named
from chronovisor.campaigns.code_version import code_version
from chronovisor.campaigns.task_case import lost

DEATHS = 2
"""A task that kills more workers on this machine is given up (after as many tries alone)."""
AHEAD = 2
"""Tasks for each worker that are with the scheduler at once, so that no worker waits for the next one."""
_FRESH = 1.0
"""Seconds for which the number of workers is not asked for again."""
_NOTHING = logging.CRITICAL + 1
_PATIENCE = "10s"
"""How long an address is tried."""
_ANSWER = "60s"
"""How long all workers have for telling their code."""

Numbered: TypeAlias = tuple[int, Json]
"""A task: its number and its part."""


class OtherCodeError(Exception):
    """A worker runs other code than the client."""


class Done(NamedTuple):
    """A task that is done."""

    number: int
    result: Result
    seconds: float
    """What it took the worker; 0 if the task was given up."""


def perform(
    name: str, seed: int, given: Parameters, part: Json, code: str, limit: float
) -> tuple[Result, float]:
    """Do a task of the campaign `name` on a worker; return its result, and how many seconds it took.

    A worker that is not done after `limit` seconds dies.

    Raises `OtherCodeError` if this worker's code is not `code`.
    """
    if code_version() != code:
        raise OtherCodeError(f"the worker {distributed.get_worker().address} has version {code_version()}")
    begun = time.monotonic()
    # Works even if the task never gives Python's lock back.
    stderr = sys.__stderr__
    if stderr is not None:
        faulthandler.dump_traceback_later(limit, exit=True, file=stderr)
    try:
        return campaign_named(name).perform(seed, given, part), time.monotonic() - begun
    finally:
        faulthandler.cancel_dump_traceback_later()


def _code_here() -> str:
    return code_version()


class _NoProfiles(distributed.WorkerPlugin):  # type: ignore[misc]  # Dask has no types
    """Has a worker take no profiles of its tasks.

    Dask looks at all threads' frames a hundred times a second (`sys._current_frames`). If a task has many
    threads, CPython 3.11 can wait for itself in that call for ever, with its lock held.
    """

    name = "chronovisor-no-profiles"

    def setup(self, worker: distributed.Worker) -> None:
        """Called on each worker, those that come later included."""
        for callback in ("profile", "profile-cycle"):
            if callback in worker.periodic_callbacks:
                worker.periodic_callbacks.pop(callback).stop()


class Cluster:
    """A scheduler and its workers. `local` or `at` makes one."""

    def __init__(self, client: distributed.Client, where: str) -> None:
        self._client = client
        self._where = where
        self._count, self._counted = 0, -_FRESH

    @property
    def workers(self) -> int:
        """The number of workers, as it was a second ago or later."""
        now = time.monotonic()
        if now >= self._counted + _FRESH:
            self._count, self._counted = len(self._workers), now
        return self._count

    @property
    def _workers(self) -> Mapping[str, Json]:
        # Without a scheduler there is nothing in it.
        told: Mapping[str, Json] = self._client.scheduler_info(n_workers=-1).get("workers", {})
        return told

    def prepare(self) -> None:
        """Have the workers take no profiles.

        Raises `CampaignError` if a worker does not answer, if its code is not ours, or if it runs several
        tasks at once.
        """
        here = code_version()
        threads = {worker: told["nthreads"] for worker, told in self._workers.items()}
        try:
            told = self._client.run(_code_here, on_error="return", callback_timeout=_ANSWER)
        except TimeoutError:
            workers = self._workers
            silent = min(workers, key=lambda worker: float(workers[worker]["last_seen"]), default="")
            raise CampaignError(
                f"a worker does not answer; the one last heard of longest ago is {silent}: end it"
            ) from None
        for worker, answer in sorted(told.items()):
            if isinstance(answer, ModuleNotFoundError):
                raise CampaignError(f"the worker {worker} has no {answer.name}: install Chronovisor there")
            if isinstance(answer, BaseException):
                raise CampaignError(f"the worker {worker} does not work: {answer}")
            if answer != here:
                raise CampaignError(f"the worker {worker} has version {answer}; this is {here}")
            if threads.get(worker, 1) != 1:
                raise CampaignError(
                    f"the worker {worker} has {threads[worker]} threads: start it with --nthreads 1"
                )
        # Only now, because a worker that does not answer would have this wait for ever.
        self._client.register_plugin(_NoProfiles())

    def run(
        self,
        name: str,
        seed: int,
        given: Parameters,
        tasks: Iterable[Numbered],
        limit: float,
        go_on: Callable[[], bool],
    ) -> Generator[Done, None, None]:
        """Do tasks and yield their results as they come. No new task is begun once `go_on()` is false.

        Raises `CampaignError` if a worker has other code, or if the scheduler goes away.
        """
        code, waiting = code_version(), iter(tasks)
        parts: dict[distributed.Future, Numbered] = {}
        suspects: list[Numbered] = []

        def begin(task: Numbered) -> distributed.Future:
            future = self._client.submit(perform, name, seed, given, task[1], code, limit, pure=False)
            parts[future] = task
            return future

        def more() -> list[distributed.Future]:
            # If the last worker has just died, its successor takes the next task.
            free = max(0, max(1, AHEAD * self.workers) - len(parts))
            return [begin(task) for task in islice(waiting, free)] if go_on() else []

        try:
            finished = distributed.as_completed(more())
            for future in finished:
                number, part = parts.pop(future)
                result = self._result(future)
                if result is None:
                    suspects.append((number, part))
                else:
                    yield self._done(number, result, part)
                finished.update(more())
            # A task that waited at a worker which another task killed is suspected too: each has a try alone.
            for number, part in suspects:
                future = begin((number, part))
                result = self._result(future) or "its worker died or hung, each time that it was tried"
                parts.pop(future)
                yield self._done(number, result, part)
        finally:
            self._client.cancel(list(parts))

    @staticmethod
    def _done(number: int, ended: tuple[Result, float] | str, part: Json) -> Done:
        return Done(number, lost(ended, part), 0.0) if isinstance(ended, str) else Done(number, *ended)

    def _result(self, future: distributed.Future) -> tuple[Result, float] | str | None:
        """Return a task's result and its seconds; what is wrong if it has none; None if its workers died.

        Raises `CampaignError` if the campaign cannot run at a worker, or if the scheduler goes away.
        """
        try:
            result, seconds = future.result()
        except OtherCodeError as error:
            raise CampaignError(f"{error}; this is {code_version()}") from None
        except CampaignError:
            # The campaign cannot run there: no other task can.
            raise
        except KilledWorker:
            return None
        except distributed.CancelledError:
            raise CampaignError(f"the scheduler at {self._where} is gone") from None
        except Exception as error:
            if self._client.status != "running":
                raise CampaignError(f"the scheduler at {self._where} is gone") from None
            return f"the task ends in {type(error).__name__}: {error}"
        assert isinstance(result, Result)
        return result, seconds


@contextmanager
def local(workers: int, deaths: int = DEATHS) -> Iterator[Cluster]:
    """Start so many workers on this machine, a process each, which nobody else can talk to."""
    settings = {
        "distributed.scheduler.allowed-failures": deaths,
        "distributed.scheduler.worker-ttl": "60s",
        "distributed.comm.timeouts.connect": _PATIENCE,
    }
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        scratch = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        stack.enter_context(dask.config.set(settings))
        cluster = stack.enter_context(
            distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                # Any free port, where Dask insists on one.
                dashboard_address="127.0.0.1:0",
                silence_logs=_NOTHING,
                local_directory=scratch,
                security=True,
            )
        )
        yield Cluster(stack.enter_context(distributed.Client(cluster)), "this machine")


@contextmanager
def at(address: str) -> Iterator[Cluster]:
    """Use the scheduler at an address (`tcp://HOST:PORT`, or `tls://HOST:PORT` with Dask's certificates).

    Raises `CampaignError` if no scheduler can be reached, or if it has no workers.
    """
    _require_certificates(address)
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        try:
            client = stack.enter_context(distributed.Client(address, timeout=_PATIENCE))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CampaignError(f"no scheduler can be reached at {address}: {reason}") from None
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError:
            raise CampaignError(f"the scheduler at {address} has no workers") from None
        yield Cluster(client, address)


def _require_certificates(address: str) -> None:
    """Raise `CampaignError` if Dask's configuration has no certificates that an address with TLS needs."""
    if not address.startswith("tls://"):
        return
    try:
        context = distributed.Security().get_connection_args("client").get("ssl_context")
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CampaignError(
            f"the certificates that Dask's configuration names cannot be used: {reason}"
        ) from None
    if context is None:
        raise CampaignError(
            f"{address} needs certificates, and Dask's configuration names none: set "
            "distributed.comm.tls.ca-file, .client.cert and .client.key"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's logs from the user: what matters is told by our errors."""
    # Dask has given each of its loggers a level of its own.
    logs = [
        logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("distributed")
    ]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(_NOTHING)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
