"""A machine's processor: its clock, its cores and its random number generator."""

from __future__ import annotations

import random
from collections.abc import Callable

from chronovisor.processor.core import Core
from chronovisor.processor.cpu_model import POWER9, CpuModel
from chronovisor.timebase.clock import HostClock, TickSource
from chronovisor.timebase.tbu40 import CoreTimebase
from chronovisor.timebase.types import MASK64


class Processor:
    """The cores of one machine, on one clock.

    `origin` is the timebase (64-bit ticks) at which `source` stands at 0. With a virtual source an
    instruction takes `ticks_per_instruction` ticks. `timebase` makes the timebase register of each core.
    Raises ValueError for counts of cores or threads that the model cannot have.
    """

    def __init__(
        self,
        source: TickSource,
        origin: int = 0,
        cores: int = 1,
        threads_per_core: int = 1,
        cpu_model: CpuModel = POWER9,
        ticks_per_instruction: int = 256,
        timebase: Callable[[HostClock, int, bool], CoreTimebase] = CoreTimebase,
    ) -> None:
        if cores < 1:
            raise ValueError(f"a host with {cores} cores: it needs at least one")
        if threads_per_core not in (1, 2, 4, 8) or threads_per_core > cpu_model.max_threads:
            raise ValueError(
                f"{threads_per_core} threads per core: a {cpu_model.name} has "
                + " or ".join(str(n) for n in (1, 2, 4, 8) if n <= cpu_model.max_threads)
            )
        if ticks_per_instruction < 1:
            raise ValueError(
                f"an instruction that takes {ticks_per_instruction} ticks: it takes at least one"
            )
        self.cpu_model = cpu_model
        self.clock = HostClock(source, origin & MASK64)
        self.ticks_per_instruction = ticks_per_instruction
        self.physical_cores = cores
        self.threads_per_physical_core = threads_per_core
        if cpu_model.independent_threads:
            cores, threads_per_core = cores * threads_per_core, 1
        self.threads_per_core = threads_per_core
        """Threads of each of `cores`; 1 if the processor's threads are independent."""
        self.cores = [
            Core(timebase(self.clock, number, cpu_model.has_tbu40), threads_per_core)
            for number in range(cores)
        ]
        # A virtual machine repeats itself, so its random numbers do too.
        self.random: random.Random = (
            random.Random(self.clock.origin) if source.is_virtual else random.SystemRandom()
        )
        self.random_bits: Callable[[int], int] = self.random.getrandbits
        """Return so many random bits."""
