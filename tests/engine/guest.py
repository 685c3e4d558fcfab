"""A guest of a few instructions, run by the concrete engine."""

from __future__ import annotations

from collections.abc import Mapping

from chronovisor.engine.concrete import ConcreteEngine, Stop
from chronovisor.isa.assembly import assemble
from chronovisor.isa.bits import MSR
from chronovisor.isa.registers import REGISTERS
from chronovisor.memory.guest_memory import GuestMemory

CODE = 0x10000
MEMORY_SIZE = 1 << 20


class Clock:
    """Live registers: TB counts how often it is read; what is written is kept."""

    def __init__(self) -> None:
        self.timebase = 0x1234_5678_9ABC_DEF0
        self.written: list[tuple[str, int]] = []

    def read(self, name: str) -> int:
        self.timebase += 1
        return self.timebase >> 32 if name == "TBU" else self.timebase

    def write(self, name: str, value: int) -> None:
        self.written.append((name, value))

    def random(self) -> int:
        self.timebase += 1
        return self.timebase

    def lend(self, time: object) -> None: ...

    def take_back(self, time: object) -> None: ...


class Guest:
    """Code at CODE, in 64-bit big-endian privileged mode unless `msr` says otherwise."""

    def __init__(
        self,
        text: str,
        msr: int = int(MSR.SF | MSR.ME),
        engine: type[ConcreteEngine] = ConcreteEngine,
        **registers: int,
    ) -> None:
        self.memory = GuestMemory(MEMORY_SIZE)
        self.engine = engine(self.memory)
        self.clock = Clock()
        self.little = bool(msr & MSR.LE)
        self.place(CODE, text)
        self.state = self.engine.thread(self.clock)
        self.state.set_msr(msr)
        self.state.CIA = CODE
        self.set(registers)

    def place(self, address: int, text: str) -> None:
        self.memory.write(address, assemble(text, address, self.little))

    def set(self, registers: Mapping[str, int]) -> None:
        for name, value in registers.items():
            if name in REGISTERS:
                self.state.set(name, value)
            else:
                self.state.gpr[int(name.removeprefix("r"))] = value

    def run(self, budget: int = 100) -> Stop:
        return self.engine.run(self.state, budget)

    def step(self, count: int = 1) -> None:
        """Execute instructions one by one, whatever they end in."""
        for _ in range(count):
            self.engine.run(self.state, 1)

    def __getitem__(self, name: str) -> int:
        return self.state.get(name) if name in REGISTERS else self.state.gpr[int(name.removeprefix("r"))]
