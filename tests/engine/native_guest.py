"""A guest of a few instructions under either engine, with time that moves one tick an instruction."""

from __future__ import annotations

from random import Random

from handlers import ensure

from chronovisor.engine.concrete import ConcreteEngine, Reason, Stop
from chronovisor.engine.live_registers import ThreadTime
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.state_layout import STORED
from chronovisor.engine.state import Thread
from chronovisor.isa.assembly import assemble
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.isa.registers import FILES
from chronovisor.memory.guest_memory import GuestMemory

CODE = 0x10000
MEMORY_SIZE = 1 << 20
KERNEL = int(MSR.SF | MSR.ME)
ENGINES = (ConcreteEngine, NativeEngine)


class Time:
    """Live registers: the clock counts executed instructions; the real one where `real`."""

    def __init__(self, real: bool) -> None:
        self.real = real
        self.deadline = 1 << 40
        self.thread: Thread | None = None

    def _now(self) -> int:
        assert self.thread is not None
        return self.thread.executed

    def read(self, name: str) -> int:
        assert not self.real
        if name == "DEC":
            left = self.deadline - self._now()
            return self._signed(left) & ((1 << 64) - 1) if self._width() == 56 else left & 0xFFFFFFFF
        return self._now() >> 32 if name == "TBU" else self._now()

    def write(self, name: str, value: int) -> None:
        if name != "DEC":
            # A hypervisor's to write: both engines leave these to the concrete evaluator.
            return
        self.deadline = self._now() + self._signed(value)

    def random(self) -> int:
        """As a host in virtual time: the same bits in each run, others at each instruction."""
        return Random(self._now()).getrandbits(64)

    def _width(self) -> int:
        assert self.thread is not None
        return 56 if self.thread.get("LPCR") & LPCR.LD else 32

    def _signed(self, value: int) -> int:
        half = 1 << (self._width() - 1)
        return (value + half) % (2 * half) - half

    def lend(self, time: ThreadTime) -> None:
        time.tb_adjust = 0
        time.dec_deadline = 1 << 60 if self.real else self.deadline
        time.dec_written = 0
        time.virtual_ticks = self._now()
        time.ticks_per_instruction = 0 if self.real else 1
        time.pending = 0

    def take_back(self, time: ThreadTime) -> None:
        if time.dec_written and not self.real:
            self.deadline = time.dec_deadline


class Guest:
    """Memory and an engine; threads are made as they are needed.

    With `ready` the native engine has a handler for each instruction before the guest runs.
    """

    def __init__(
        self,
        engine: type[ConcreteEngine],
        text: str,
        msr: int = KERNEL,
        size: int = MEMORY_SIZE,
        ready: bool = True,
    ) -> None:
        self.memory = GuestMemory(size)
        self.engine = engine(self.memory)
        self.msr = msr
        self.ready = ready
        self.place(CODE, text)
        self.memory.dirty.take()

    def place(self, address: int, text: str) -> None:
        """Write code to memory."""
        code = assemble(text, address, bool(self.msr & MSR.LE))
        self.memory.write(address, code)
        if self.ready and isinstance(self.engine, NativeEngine):
            mode = bool(self.msr & MSR.SF), bool(self.msr & MSR.LE)
            words = (self.memory.load(place, 4, mode[1]) for place in range(address, address + len(code), 4))
            ensure((word, mode) for word in words)

    def thread(self, cia: int = CODE, real: bool = False, **registers: int) -> Thread:
        time = Time(real)
        thread = time.thread = self.engine.thread(time)
        thread.set_msr(self.msr)
        thread.CIA = cia
        for name, value in registers.items():
            if name in STORED:
                thread.set(name, value)
            else:
                thread.gpr[int(name.removeprefix("r"))] = value
        return thread

    def advance(self, thread: Thread, count: int) -> Stop:
        """Execute `count` instructions, or up to a call of the hypervisor, whatever else stops a run."""
        end = thread.executed + count
        while True:
            stop = self.engine.run(thread, end - thread.executed)
            if thread.executed >= end or stop.reason in (Reason.HYPERCALL, Reason.CRASH_LOOP):
                return stop

    def until_called(self, thread: Thread) -> None:
        """Run until the guest calls the hypervisor."""
        while self.engine.run(thread, self.engine.budget).reason is not Reason.HYPERCALL:
            pass


def registers(thread: Thread) -> dict[str, int]:
    """Everything that a thread holds between two instructions."""
    named = {name: thread.get(name) for name in STORED if name != "NIA"}
    numbered = {
        f"{file.prefix}{n}": value
        for file in FILES.values()
        for n, value in enumerate(getattr(thread, file.attribute)[: file.count])
    }
    return {**named, **numbered, "executed": thread.executed}
