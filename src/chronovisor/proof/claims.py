"""All claims, and their proofs in as many processes as there are processors."""

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
"""Every claim, in the order in which they are shown."""


def claim(name: str) -> Claim:
    """Return the claim of that name. Raises `KeyError` if no claim has it."""
    return {one.name: one for one in CLAIMS}[name]


def prove_all(timeout: float = TIMEOUT, processes: int | None = None) -> Iterator[Verdict]:
    """Prove each claim within `timeout` seconds, and yield the verdicts in the order of the claims.

    `processes` is one per processor if it is not given. With 0 the claims are proven in this process; there,
    nothing stops a claim that runs over its time.
    """
    processes = processes if processes is not None else multiprocessing.cpu_count()
    if processes < 1:
        return (prove(claim, timeout) for claim in CLAIMS)
    return prove_each(CLAIMS, timeout, processes)
