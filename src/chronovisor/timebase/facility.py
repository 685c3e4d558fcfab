"""The timer facility of a core: how its timebase fails, and how it is loaded afresh from the clock.

Every timebase is loaded from the chip's time-of-day clock (TOD) and then counts by itself. Hardware checks
it. The management register TFMR (SPR 317) shows the errors that hardware found, and software writes it to
repair them. An error raises the hypervisor maintenance interrupt, whose causes are in HMER (SPR 336). Bit
names and numbers: skiboot's `include/processor.h`.
"""

from __future__ import annotations

from enum import IntFlag

from chronovisor.timebase.tbu40 import CoreTimebase
from chronovisor.timebase.types import Ticks, signed64


def _bit(number: int) -> int:
    """A bit of a 64-bit register by its number, which counts from the most significant."""
    return 1 << (63 - number)


class Tfmr(IntFlag):
    """Bits of TFMR, 64 bits: first those that software writes, then those that hardware sets."""

    LOAD_TOD_MOD = _bit(16)
    """Prepare to load the clock's value."""
    MOVE_CHIP_TOD_TO_TB = _bit(18)
    """Load the timebase from the clock."""
    CLEAR_TB_ERRORS = _bit(24)
    """Clear the errors; nothing is loaded before."""
    TB_VALID = _bit(41)
    SYNC_OCCURRED = _bit(42)
    MISSING_SYNC = _bit(43)
    """A synchronising pulse did not come when it was due."""
    MISSING_STEP = _bit(44)
    """The clock's steps did not come, so that the timebase fell behind."""
    RESIDUE_ERROR = _bit(45)
    """The timebase's parity is wrong: some of its bits changed."""
    CORRUPT = _bit(60)
    """TFMR's own parity is wrong: the timebase may be anything."""


TB_ERRORS = Tfmr.MISSING_SYNC | Tfmr.MISSING_STEP | Tfmr.RESIDUE_ERROR | Tfmr.CORRUPT
"""The errors that make a timebase invalid."""


class Hmer(IntFlag):
    """Causes of a hypervisor maintenance interrupt: bits of HMER, 64 bits."""

    TFAC_ERROR = _bit(4)
    """TFMR has an error."""
    DEBUG_TRIGGER = _bit(17)
    """A debugger's trigger; the timebase is right."""


def require_tb_errors(errors: Tfmr) -> None:
    """Raise ValueError unless `errors` are errors of a timebase."""
    if not errors or errors & ~TB_ERRORS:
        raise ValueError(f"{errors!r} is no error of a timebase: give {TB_ERRORS!r}, or some of them")


class TimerFacility:
    """The timer facility of one core, with the core's `timebase`.

    `tfmr` is what software reads. Without TB_VALID in it nobody may use T.
    """

    def __init__(self, timebase: CoreTimebase) -> None:
        self.timebase = timebase
        self.tfmr: int = Tfmr.TB_VALID | Tfmr.SYNC_OCCURRED
        self._ready = False

    @property
    def errors(self) -> Tfmr:
        """The errors that hardware found and software has not cleared."""
        return TB_ERRORS & self.tfmr

    def fail(self, errors: Tfmr, damage: Ticks) -> None:
        """Make T wrong by `damage` from now on, and show `errors` in TFMR (`require_tb_errors`)."""
        self._ready = False
        # First the error, then the damage: code that reads T and then finds it valid has read a right value.
        self.tfmr = (self.tfmr | errors) & ~(Tfmr.TB_VALID | Tfmr.SYNC_OCCURRED)
        self.timebase.adjust = signed64(self.timebase.adjust + damage.value)

    def write_tfmr(self, value: int) -> None:
        """Write TFMR, 64 bits: do what its control bits ask for.

        As in hardware each step needs the one before it: clear the errors, prepare the load, load T (T = H,
        without any offset).
        """
        if value & Tfmr.CLEAR_TB_ERRORS:
            self.tfmr &= ~TB_ERRORS
        if value & Tfmr.LOAD_TOD_MOD:
            self._ready = not self.errors
        if value & Tfmr.MOVE_CHIP_TOD_TO_TB and self._ready:
            self.timebase.load_from_tod()
            self.tfmr |= Tfmr.TB_VALID | Tfmr.SYNC_OCCURRED
            self._ready = False
