"""All that is claimed, and the proving of it on as many processors as there are."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

from chronovisor.proof import decrementer, failure, machine_code, rounding, switch, virtual_core
from chronovisor.proof.prover import TIMEOUT, Claim, Verdict, prove
from chronovisor.proof.workers import prove_each

CLAIMS: tuple[Claim, ...] = (
    *switch.CLAIMS,
    *virtual_core.CLAIMS,
    *failure.CLAIMS,
    *machine_code.CLAIMS,
    *rounding.CLAIMS,
    *decrementer.CLAIMS,
)
"""Every claim, in the order in which they are told."""


def claim(name: str) -> Claim:
    """Return the claim of that name; KeyError where there is none."""
    return {one.name: one for one in CLAIMS}[name]


def prove_all(timeout: float = TIMEOUT, processes: int | None = None) -> Iterator[Verdict]:
    """Prove every claim within `timeout` seconds each, and give the verdicts in the order of the claims.

    Without any `processes` it is done in this one, where nothing ends a claim that does not keep its time.
    """
    processes = processes if processes is not None else multiprocessing.cpu_count()
    if processes < 1:
        return (prove(claim, timeout) for claim in CLAIMS)
    return prove_each(CLAIMS, timeout, processes)
