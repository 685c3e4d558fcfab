"""Processes that prove claims, each one claim after another. A process that runs over its time is killed."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Literal, TypeAlias

from chronovisor.proof.prover import MINIMISING, Claim, Finding, Outcome, ProverError, Verdict, prove

StartMethod: TypeAlias = Literal["spawn", "fork"]

GRACE = 30.0
"""Seconds that a process may take beyond its claim's time, to start and to stop."""


def prove_each(
    claims: tuple[Claim, ...],
    timeout: float,
    processes: int,
    method: StartMethod = "spawn",
) -> Iterator[Verdict]:
    """Prove claims in so many processes, each claim and each of its companions within `timeout` seconds.
    Yield the verdicts in the order of the claims.

    Every claim gets a verdict, whatever its code or the solver does. If a process dies, or is not done
    `GRACE` seconds after its time, another process replaces it and the claim is undecided.
    """
    results: list[Future[Verdict]] = [Future() for _ in claims]
    waiting: SimpleQueue[int] = SimpleQueue()
    for number in range(len(claims)):
        waiting.put(number)
    workers = [_Worker(claims, timeout, method) for _ in range(min(processes, len(claims)))]
    for worker in workers:
        threading.Thread(target=worker.work, args=(waiting, results), daemon=True).start()
    try:
        for result in results:
            yield result.result()
    finally:
        # The caller does not wait for the claims that are still being proven.
        for worker in workers:
            worker.stop()


class _Worker:
    """One process, and the thread that waits for its verdicts."""

    def __init__(self, claims: tuple[Claim, ...], timeout: float, method: StartMethod) -> None:
        self._claims = claims
        self._timeout = timeout
        self._context = multiprocessing.get_context(method)
        self._lock = threading.Lock()
        self._stopped = False
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def work(self, waiting: SimpleQueue[int], results: list[Future[Verdict]]) -> None:
        """Prove waiting claims until none is left."""
        while not self._stopped:
            try:
                number = waiting.get_nowait()
            except Empty:
                self.stop()
                return
            try:
                results[number].set_result(self._prove(number))
            except BaseException as error:
                results[number].set_exception(error)

    def stop(self) -> None:
        """Kill the process, whatever it does."""
        with self._lock:
            self._stopped = True
            self._end()

    def _prove(self, number: int) -> Verdict:
        claim = self._claims[number]
        with self._lock:
            if self._stopped:
                return _undecided(claim, "the proof was cancelled")
            if self._process is None:
                self._start()
            connection = self._connection
        assert connection is not None
        try:
            connection.send(number)
            if connection.poll(self._limit(claim)):
                found = connection.recv()
                if isinstance(found, ProverError):
                    raise found
                return Verdict(claim, *found)
            why = f"time-out of {self._timeout:g} s, and it did not stop then"
        except (EOFError, OSError):
            why = "its process died"
        with self._lock:
            self._end()
        return _undecided(claim, why)

    def _limit(self, claim: Claim) -> float:
        """The seconds after which the process is killed."""
        return self._timeout * (1 + len(claim.tight)) + MINIMISING + GRACE

    def _start(self) -> None:
        self._connection, theirs = self._context.Pipe()
        # Every context has Process; the type of all contexts does not.
        self._process = self._context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(theirs, self._timeout, self._claims), daemon=True
        )
        self._process.start()
        theirs.close()

    def _end(self) -> None:
        if self._process is not None and self._connection is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = self._connection = None


def _undecided(claim: Claim, why: str) -> Verdict:
    finding = Finding(Outcome.UNDECIDED, 0.0, limit=why)
    return Verdict(claim, finding, tuple(finding for _ in claim.tight))


def _serve(connection: Connection, timeout: float, claims: tuple[Claim, ...]) -> None:
    # Ctrl-C goes to the waiting process too, which then kills this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            number = connection.recv()
        except EOFError:
            return
        try:
            verdict = prove(claims[number], timeout)
        except ProverError as error:
            connection.send(error)
        else:
            connection.send((verdict.finding, verdict.tight))
