"""The claim about a failed timebase is refuted of wrong repairs."""

from typing import Any

import pytest

from chronovisor.hypervisor.maintenance import Maintenance
from chronovisor.proof import failure
from chronovisor.proof.prover import Outcome, examine
from chronovisor.timebase.facility import Tfmr


class NotCleared(Maintenance):
    """Does not forget the errors, so that nothing is loaded."""

    def handle(self, core: Any) -> None:
        core.facility.write_tfmr(Tfmr.LOAD_TOD_MOD)
        core.facility.write_tfmr(Tfmr.MOVE_CHIP_TOD_TO_TB)


class NotLoaded(Maintenance):
    """Believes that the timebase is right once its errors are forgotten."""

    def handle(self, core: Any) -> None:
        core.facility.write_tfmr(Tfmr.CLEAR_TB_ERRORS)
        core.facility.tfmr |= Tfmr.TB_VALID


class UpperBitsAlone(Maintenance):
    """Writes the host's upper bits, and leaves the lower ones out of step."""

    def handle(self, core: Any) -> None:
        core.facility.write_tfmr(Tfmr.CLEAR_TB_ERRORS)
        core.facility.tfmr |= Tfmr.TB_VALID
        core.timebase.write_tbu40(core.timebase.tod().value)


@pytest.mark.parametrize("wrong", [NotCleared, NotLoaded, UpperBitsAlone])
def test_a_wrong_repair_is_refuted(wrong: type[Maintenance], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure, "Maintenance", wrong)
    assert examine(failure.repaired).outcome is Outcome.REFUTED
