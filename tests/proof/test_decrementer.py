"""The claims about decrementers and cores are refuted of wrong ones."""

from collections.abc import Callable

import pytest

from chronovisor.proof import decrementer, switch, unknown_time
from chronovisor.proof.paths import Case
from chronovisor.proof.prover import Outcome, examine
from chronovisor.proof.terms import Integers
from chronovisor.timebase.decrementer import Decrementer, DecWidth
from chronovisor.timebase.tbu40 import CoreTimebase
from chronovisor.timebase.types import MASK64, HostTime, Offset, Ticks, signed64


class ReadTwice(Decrementer):
    """Makes an expiry of DEC and of T a moment later."""

    def expiry(self, timebase: CoreTimebase, width: DecWidth) -> HostTime:
        left = self.read(width)
        half = 1 << (width - 1)
        return HostTime(timebase.read()) + Ticks(((left + half) & (2 * half - 1)) - half)


class NotSignExtended(Decrementer):
    """Takes a 32-bit DEC for the unsigned number that mfspr reads."""

    def expiry(self, timebase: CoreTimebase, width: DecWidth) -> HostTime:
        return super().expiry(timebase, width) + Ticks((1 << 32) if self.expired else 0)


class NotLatched(Decrementer):
    """Knows of an expiry only what the register shows."""

    def load(self, expiry: HostTime) -> None:
        super().load(expiry)
        self.latched = False


class OneEarly(Decrementer):
    """Takes 0 for expired."""

    def load(self, expiry: HostTime) -> None:
        super().load(expiry - Ticks(1))


@pytest.mark.parametrize(
    ("wrong", "body"),
    [
        (ReadTwice, decrementer.through_an_exit),
        (ReadTwice, decrementer.through_a_move),
        (NotSignExtended, decrementer.timer),
        (NotLatched, decrementer.timer),
        (OneEarly, decrementer.timer),
        (OneEarly, decrementer.through_a_move),
    ],
    ids=lambda x: x.__name__,
)
def test_a_wrong_decrementer_is_refuted(
    wrong: type[Decrementer], body: Callable[[Case], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decrementer, "Decrementer", wrong)
    terms = Integers() if body is decrementer.timer else None
    assert examine(body, terms=terms).outcome is Outcome.REFUTED


def test_an_expiry_left_as_it_is_when_an_offset_is_set_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    def left_alone(expiry: HostTime, old: Offset, new: Offset) -> HostTime:
        return expiry

    monkeypatch.setattr(decrementer, "rebased", left_alone)
    assert examine(decrementer.through_an_offset).outcome is Outcome.REFUTED


class WritesAllBits(unknown_time.ToldTimebase):
    """Has a TBU40 that replaces the low bits, too."""

    def write_tbu40(self, value: int, when: bool = True) -> None:
        if when:
            self.adjust = signed64((value - self.clock.source.ticks()) & MASK64)


@pytest.mark.parametrize("body", [switch.low_bits, switch.entry])
def test_a_core_whose_low_bits_can_be_written_is_refuted(
    body: Callable[[Case], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unknown_time, "ToldTimebase", WritesAllBits)
    assert examine(body).outcome is Outcome.REFUTED
