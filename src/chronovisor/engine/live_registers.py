"""What a thread needs of the hardware that keeps its time: registers whose value moves by itself."""

from __future__ import annotations

from typing import Final, Protocol

NOT_LENT: Final = 1 << 63
"""Stands for how far a counter is ahead of the clock: native code leaves it to the concrete evaluator."""


class CounterTime(Protocol):
    """What native code needs to read TB, PURR and SPURR by itself: ticks, modulo 2^64.

    T = clock + ``tb_adjust``. PURR = clock + ``purr_ahead``, unless that is `NOT_LENT`. The same holds for
    SPURR.
    """

    tb_adjust: int
    purr_ahead: int
    spurr_ahead: int


class ThreadTime(CounterTime, Protocol):
    """What native code needs to read these registers, and to read and write DEC by itself, all in ticks.

    If ``ticks_per_instruction`` is 0 the clock is the machine's monotonic one. Otherwise it stands at
    ``virtual_ticks`` when a run begins. ``pending``: an interrupt other than the decrementer's waits for
    MSR[EE].
    """

    dec_deadline: int
    dec_written: int
    dec_written_at: int
    virtual_ticks: int
    ticks_per_instruction: int
    pending: int
    lent_deadline: int
    """What ``dec_deadline`` was set to last, from outside a run or within it."""
    lent_level: int
    """What ``pending`` was set to last."""


class LiveRegisters(Protocol):
    """The registers whose value moves by itself: time, as a hardware thread sees it."""

    def read(self, name: str) -> int:
        """The register's value now, unsigned."""

    def write(self, name: str, value: int) -> None:
        """Set the register."""

    def random(self) -> int:
        """64 random bits; on a virtual clock the same ones in each run."""

    def lend(self, time: ThreadTime) -> None:
        """Let native code keep time for a run, from how it stands now."""

    def take_back(self, time: ThreadTime) -> None:
        """Take over what native code did to DEC, if ``dec_written``: its deadline was set, last at tick
        ``dec_written_at``."""
