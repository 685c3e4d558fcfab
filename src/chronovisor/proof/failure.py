"""What is proven of a core whose timebase fails while a guest runs. The claim runs the production repair."""

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
    """At the exit the timebase is wrong by any number of ticks, or it is right and the interrupt has another
    cause. After the exit and the repair, T = H.
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
    case.require("T is valid, and no error is left to repair", bool(facility.tfmr & Tfmr.TB_VALID))


CLAIMS = (
    Claim(
        "failure-repaired",
        "P2",
        "after the exit and the repair T = H, however wrong the timebase became while the guest ran",
        repaired,
        (Tight("the offset is subtracted after the repair", partial(repaired, first_repaired=True)),),
    ),
)
