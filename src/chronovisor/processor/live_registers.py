"""The registers whose value moves by itself, as instructions on a hardware thread read and write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from chronovisor.engine.endings import Undone
from chronovisor.engine.live_registers import NOT_LENT, CounterTime, ThreadTime
from chronovisor.processor.core import HardwareThread
from chronovisor.processor.counters import RunningCounter, RunTime
from chronovisor.timebase.types import SourceTime


class InterruptLine(Protocol):
    """The thread's external interrupt input, besides what its shared words say."""

    level: bool
    """Whether it is raised."""


class LiveRegisters:
    """The live registers of the hardware thread that a program runs on, by their names in the ISA's table.

    `counters` are the registers that count run time. `account_time` is called before each access; it makes a
    virtual clock show the time that the instructions before this one took. `random_bits` returns a number of
    so many random bits. A name of a register that needs hypervisor state raises KeyError.
    """

    def __init__(
        self,
        thread: HardwareThread,
        counters: Mapping[str, RunningCounter],
        line: InterruptLine,
        account_time: Callable[[], None],
        ticks_per_instruction: int,
        random_bits: Callable[[int], int],
    ) -> None:
        self.thread = thread
        self._counters = counters
        #: Those that native code reads, if they are there: they count the same run time.
        standing = RunningCounter(RunTime(thread.core.timebase.clock.source))
        self._purr, self._spurr = counters.get("PURR", standing), counters.get("SPURR", standing)
        self._line = line
        self._account_time = account_time
        self._ticks_per_instruction = ticks_per_instruction
        self._random_bits = random_bits
        clock = thread.core.timebase.clock
        self._origin = clock.origin
        self._virtual = clock.source if clock.source.is_virtual else None
        self._decrementer = thread.decrementer
        self._readers: dict[str, Callable[[], int]] = {
            "TB": self._timebase,
            "TBU": lambda: self._timebase() >> 32,
            "DEC": lambda: self._decrementer.read(self.thread.dec_width),
        }

    def read(self, name: str) -> int:
        """Return the register as it is at the instruction that reads it, unsigned."""
        self._account_time()
        reader = self._readers.get(name)
        return reader() if reader is not None else self._counters[name].value

    def write(self, name: str, value: int) -> None:
        """Set the register at the instruction that writes it."""
        self._account_time()
        if name != "DEC":
            raise KeyError(name)
        self._decrementer.write(value, self.thread.dec_width)

    def random(self) -> int:
        """Return 64 random bits."""
        return self._random_bits(64)

    def begin(self, thread: HardwareThread, time: CounterTime) -> None:
        """Use the registers of `thread` from now on, and let native code read TB, PURR and SPURR. Until the
        next call nothing moves the timebase, and the counters that run now run on.
        """
        self.thread, self._decrementer = thread, thread.decrementer
        time.tb_adjust = self._origin + thread.core.timebase.adjust
        purr, spurr = self._purr, self._spurr
        ran = purr.run_time.ahead
        if ran is None:
            time.purr_ahead = time.spurr_ahead = NOT_LENT
        else:
            time.purr_ahead, time.spurr_ahead = ran + purr.beyond, ran + spurr.beyond

    def lend(self, time: ThreadTime) -> None:
        """Let native code keep DEC for a run, from its present state."""
        deadline, level = self._decrementer.deadline, self._line.level
        # The same object, mostly: numbers as large as a deadline take longer to compare.
        if deadline is not time.lent_deadline:
            time.dec_deadline = time.lent_deadline = deadline
        if level is not time.lent_level:
            time.pending = time.lent_level = level
        if self._virtual is not None:
            # The concrete evaluator may have executed an instruction that read no time.
            self._account_time()
            time.virtual_ticks = self._virtual.ticks()
            time.ticks_per_instruction = self._ticks_per_instruction

    def take_back(self, time: ThreadTime) -> None:
        """Take over native code's last write to DEC, and on a virtual clock the time of the instructions."""
        if self._virtual is not None:
            self._account_time()
        time.dec_written = 0
        deadline = time.lent_deadline = SourceTime(time.dec_deadline)
        written = SourceTime(time.dec_written_at)
        self._decrementer.write_deadline(deadline, written, self.thread.dec_width)

    def _timebase(self) -> int:
        core = self.thread.core
        value = core.timebase.read()
        if core.hmer:
            # The maintenance interrupt comes before this instruction.
            raise Undone
        return value
