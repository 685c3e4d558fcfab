"""The sabotaged parts that the demonstration shows to be caught are refuted by the prover, too."""

from functools import partial

from chronovisor.proof import switch
from chronovisor.proof.prover import Outcome, examine
from chronovisor.proof.sabotage import OffsetReadAgain, shift_without_check


def test_the_wrap_check_taken_out() -> None:
    assert examine(partial(switch.entry, shifter=shift_without_check)).outcome is Outcome.REFUTED
    assert examine(partial(switch.exit_at_any_pace, shifter=shift_without_check)).outcome is Outcome.REFUTED


def test_the_offset_read_again_at_exit() -> None:
    finding = examine(partial(switch.round_trip, world_switch=OffsetReadAgain))
    assert finding.outcome is Outcome.REFUTED
    assert finding.counterexample is not None
    assert finding.counterexample.requirement == "after the exit, T = H"
