"""What is proven of a core whose timebase fails under a guest: over the repair that runs."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from chronovisor.hypervisor.maintenance import Maintenance
from chronovisor.proof.paths import Case
from chronovisor.proof.prover import Claim, Tight
from chronovisor.proof.switch import BELOW_EVER, LONGEST_SWITCH, any_offset
from chronovisor.proof.unknown_time import UnknownCore
from chronovisor.timebase.facility import Tfmr, TimerFacility
from chronovisor.timebase.offset import Applied, Switch
from chronovisor.timebase.types import Ticks


def repaired(case: Case, first_repaired: bool = False) -> None:
    """A timebase that is wrong by anything when its guest is left, or right with another cause for the
    interrupt, is the host's after the exit and the repair.
    """
    core = UnknownCore(case)
    offset = any_offset(case, "applied offset")
    core.timebase.adjust = offset.signed
    facility = TimerFacility(core.timebase)
    if case.choose("the timebase fails", lambda: (1, 0)):
        damage = Ticks(case.any("damage", -(1 << 63), (1 << 63) - 1))
        facility.fail(Tfmr.MISSING_SYNC, damage)
        case.tell(lambda: f"T is wrong by {damage.value} ticks from here on")
    failed = cast(Any, SimpleNamespace(hmer=1, facility=facility, timebase=core.timebase))
    maintenance = Maintenance(cast(Any, SimpleNamespace(observer=None)))
    if first_repaired:
        maintenance.handle(failed)
    Switch().leave(core.timebase, Applied(offset))
    if not first_repaired:
        maintenance.handle(failed)
    case.assume(BELOW_EVER, core.time.since_first < LONGEST_SWITCH)
    timebase, host = core.later()
    case.require("T = H", timebase == host.value)
    case.require("T is valid, and nothing is left to be repaired", bool(facility.tfmr & Tfmr.TB_VALID))


CLAIMS = (
    Claim(
        "failure-repaired",
        "P2",
        "a timebase that failed under a guest, by any damage, is the host's after the exit and the repair",
        repaired,
        (Tight("repaired first, and the offset taken away then", partial(repaired, first_repaired=True)),),
    ),
)
