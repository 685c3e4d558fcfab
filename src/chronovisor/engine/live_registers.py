"""What a thread needs of the hardware that keeps its time: registers whose value moves by itself."""

from __future__ import annotations

from typing import Protocol


class ThreadTime(Protocol):
    """What native code needs to read TB and to read and write DEC by itself, all in ticks.

    T = clock + ``tb_adjust``. If ``ticks_per_instruction`` is 0 the clock is the machine's monotonic one.
    Otherwise it stands at ``virtual_ticks`` when a run begins. ``pending``: an interrupt other than the
    decrementer's waits for MSR[EE].
    """

    tb_adjust: int
    dec_deadline: int
    dec_written: int
    dec_written_at: int
    virtual_ticks: int
    ticks_per_instruction: int
    pending: int
    lent: tuple[int, int, int] | None
    """What ``tb_adjust``, ``dec_deadline`` and ``pending`` were set to last; None to set them again."""


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
        """Take over what native code did to DEC (``dec_written``: its deadline was set, last at tick
        ``dec_written_at``)."""
