"""All that is claimed, and the proving of it on as many processors as there are."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from chronovisor.proof import decrementer, machine_code, rounding, switch, virtual_core
from chronovisor.proof.prover import TIMEOUT, Claim, Finding, Verdict, prove

CLAIMS: tuple[Claim, ...] = (
    *switch.CLAIMS,
    *virtual_core.CLAIMS,
    *machine_code.CLAIMS,
    *rounding.CLAIMS,
    *decrementer.CLAIMS,
)
"""Every claim, in the order in which they are told."""


def claim(name: str) -> Claim:
    """Return the claim of that name; KeyError where there is none."""
    return {one.name: one for one in CLAIMS}[name]


def prove_all(timeout: float = TIMEOUT, processes: int | None = None) -> Iterator[Verdict]:
    """Prove every claim within `timeout` seconds each, and give the verdicts in the order of the claims."""
    processes = processes if processes is not None else multiprocessing.cpu_count()
    if processes < 2:
        yield from (prove(claim, timeout) for claim in CLAIMS)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _leave_interrupts) as pool:
        proving = [pool.submit(_prove, number, timeout) for number in range(len(CLAIMS))]
        try:
            for claim, findings in zip(CLAIMS, proving, strict=True):
                yield Verdict(claim, *findings.result())
        except BaseException:
            # Nobody waits for what is still being proven.
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _leave_interrupts() -> None:
    # They are for the process that waits; it ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _prove(number: int, timeout: float) -> tuple[Finding, tuple[Finding, ...]]:
    verdict = prove(CLAIMS[number], timeout)
    return verdict.finding, verdict.tight
