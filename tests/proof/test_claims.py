"""Every claim is proven and tight, and what is not does not pass."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from chronovisor.proof import rounding
from chronovisor.proof.claims import CLAIMS, prove_all
from chronovisor.proof.prover import Outcome, Verdict, examine
from chronovisor.proof.terms import Integers
from chronovisor.timebase.handover import Exchange, Plan, Sample, plan
from chronovisor.timebase.policy import TimePolicy
from chronovisor.timebase.types import GRANULE, MASK64, HostTime, Offset, Ticks


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    """Every verdict by its claim's name, from two processes as the command has them."""
    return {verdict.claim.name: verdict for verdict in prove_all(timeout=240, processes=2)}


@pytest.mark.parametrize("name", [claim.name for claim in CLAIMS])
def test_the_claim_holds(name: str, verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts[name]
    assert verdict.holds, (verdict.finding, verdict.tight)


def test_the_names_of_claims_are_their_own() -> None:
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)


def shifted_by(granules: int, sample: Sample, exchange: Exchange, limit: Ticks, policy: TimePolicy) -> Plan:
    """The plan with its offset a few granules off, the ideal told rightly."""
    made = plan(sample, exchange, limit, policy)
    more = granules * GRANULE
    ideal = replace(made.ideal, least=made.ideal.least + more, most=made.ideal.most + more)
    return replace(made, offset=made.offset + Offset(more & MASK64), ideal=ideal)


def impatient(sample: Sample, exchange: Exchange, limit: Ticks, policy: TimePolicy) -> Plan:
    made = plan(sample, exchange, limit, policy)
    return replace(made, wait=Ticks(0), resume_at=exchange.committed)


def always_up(sample: Sample, exchange: Exchange, limit: Ticks, policy: TimePolicy) -> Plan:
    """What the kernel makes of the exact offset: rounded up."""
    made = plan(sample, exchange, limit, policy)
    right = sample.guest_time.value + exchange.most_elapsed - exchange.committed.value
    offset = Offset.rounded_up(right & MASK64)
    more = (offset - made.offset).signed
    ideal = replace(made.ideal, least=made.ideal.least + more, most=made.ideal.most + more)
    return replace(
        made, offset=offset, ideal=ideal, wait=Ticks(0), resume_at=HostTime(exchange.committed.value)
    )


def forgetful(sample: Sample, exchange: Exchange, limit: Ticks, policy: TimePolicy) -> Plan:
    """Forgets the ideal: each move begins at nothing."""
    made = plan(sample, exchange, limit, policy)
    lost = sample.ideal.least
    return replace(
        made, ideal=replace(made.ideal, least=made.ideal.least - lost, most=made.ideal.most - lost)
    )


@pytest.mark.parametrize(
    ("body", "planner"),
    [
        (rounding.never_back, partial(shifted_by, -1)),
        (rounding.never_back, impatient),
        (rounding.limit_kept, partial(shifted_by, 1)),
        (rounding.limit_kept, partial(shifted_by, -1)),
        (rounding.limit_kept, always_up),
        (rounding.brought_nearer, always_up),
        (rounding.ideal_contained, forgetful),
    ],
    ids=lambda x: getattr(x, "__name__", None) or f"{x.func.__name__} {x.args}",
)
def test_another_plan_is_refuted(body, planner) -> None:  # type: ignore[no-untyped-def]
    finding = examine(partial(body, planner=planner), terms=Integers())
    assert finding.outcome is Outcome.REFUTED


def test_the_page_tells_every_claim_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "proofs.md").read_text()
    told = [line for line in page.splitlines() if line.startswith("| `")]
    assert told == [
        f"| `{claim.name}` | {claim.promise} | {claim.words} | "
        f"{'; '.join(tight.words for tight in claim.tight)} |"
        for claim in CLAIMS
    ]
