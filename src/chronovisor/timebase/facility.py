"""The timer facility of a core: how its timebase fails, and how it is loaded afresh from the clock.

Every timebase is loaded from the chip's time-of-day clock (TOD) and then counts by itself; checks in hardware
see when it no longer can be right. The management register TFMR (SPR 317) says what they saw and is written
to repair it; what they saw raises the hypervisor maintenance interrupt, for the causes in HMER (SPR 336).
Bit names and numbers: skiboot's `include/processor.h`.
"""

from __future__ import annotations

from enum import IntFlag

from chronovisor.timebase.tbu40 import CoreTimebase
from chronovisor.timebase.types import Ticks, signed64


def _bit(number: int) -> int:
    """A bit of a 64-bit register by its number, which counts from the most significant."""
    return 1 << 63 - number


class Tfmr(IntFlag):
    """Bits of TFMR, 64 bits: first what software writes, then what hardware says."""

    LOAD_TOD_MOD = _bit(16)
    """Make ready for the clock's value."""
    MOVE_CHIP_TOD_TO_TB = _bit(18)
    """Load the timebase from the clock."""
    CLEAR_TB_ERRORS = _bit(24)
    """Forget the errors: without that nothing is loaded."""
    TB_VALID = _bit(41)
    SYNC_OCCURRED = _bit(42)
    MISSING_SYNC = _bit(43)
    """A synchronising pulse came not when it was due."""
    MISSING_STEP = _bit(44)
    """The clock's steps stayed away, so that the timebase fell behind."""
    RESIDUE_ERROR = _bit(45)
    """The timebase's parity is wrong: some of its bits changed."""
    CORRUPT = _bit(60)
    """TFMR's own parity is wrong: the timebase may be anything."""


TB_ERRORS = Tfmr.MISSING_SYNC | Tfmr.MISSING_STEP | Tfmr.RESIDUE_ERROR | Tfmr.CORRUPT
"""What makes a timebase invalid."""


class Hmer(IntFlag):
    """Causes of a hypervisor maintenance interrupt: bits of HMER, 64 bits."""

    TFAC_ERROR = _bit(4)
    """TFMR has an error."""
    DEBUG_TRIGGER = _bit(17)
    """Something to look at, with the timebase as it was."""


def require_tb_errors(errors: Tfmr) -> None:
    """Raise ValueError for what is no error of a timebase."""
    if not errors or errors & ~TB_ERRORS:
        raise ValueError(f"{errors!r} is no error of a timebase: give {TB_ERRORS!r}, or some of them")


class TimerFacility:
    """The timer facility of one core, with the core's `timebase`.

    `tfmr` is what software reads; where it lacks TB_VALID nobody may use T.
    """

    def __init__(self, timebase: CoreTimebase) -> None:
        self.timebase = timebase
        self.tfmr: int = Tfmr.TB_VALID | Tfmr.SYNC_OCCURRED
        self._ready = False

    @property
    def errors(self) -> Tfmr:
        """What hardware has seen to be wrong and software has not cleared."""
        return TB_ERRORS & self.tfmr

    def fail(self, errors: Tfmr, damage: Ticks) -> None:
        """Have T be wrong by `damage` from now on, and TFMR show `errors` (`require_tb_errors`)."""
        self._ready = False
        # Said before it is so: whoever reads T and then finds it valid has read a right one.
        self.tfmr = (self.tfmr | errors) & ~(Tfmr.TB_VALID | Tfmr.SYNC_OCCURRED)
        self.timebase.adjust = signed64(self.timebase.adjust + damage.value)

    def write_tfmr(self, value: int) -> None:
        """Write TFMR, 64 bits: do what its control bits ask for.

        As in hardware each step needs the one before: errors are cleared, the load is made ready, T is loaded
        (T = H, with no offset in it).
        """
        if value & Tfmr.CLEAR_TB_ERRORS:
            self.tfmr &= ~TB_ERRORS
        if value & Tfmr.LOAD_TOD_MOD:
            self._ready = not self.errors
        if value & Tfmr.MOVE_CHIP_TOD_TO_TB and self._ready:
            self.timebase.load_from_tod()
            self.tfmr |= Tfmr.TB_VALID | Tfmr.SYNC_OCCURRED
            self._ready = False
