"""One instruction, executed by the concrete evaluator from given registers."""

from __future__ import annotations

from chronovisor.engine.concrete import operation
from chronovisor.engine.live_registers import ThreadTime
from chronovisor.engine.state import ThreadState
from chronovisor.isa.assembly import assemble
from chronovisor.isa.bits import MSR, XER
from chronovisor.memory.guest_memory import GuestMemory

HERE = 0x1_2340
ALL = (1 << 64) - 1

_MEMORY = GuestMemory(4096)


class _NoTime:
    def read(self, name: str) -> int:
        raise AssertionError(f"{name} is read")

    def write(self, name: str, value: int) -> None:
        raise AssertionError(f"{name} is written")

    def random(self) -> int:
        raise AssertionError("random bits are drawn")

    def lend(self, time: ThreadTime) -> None: ...

    def take_back(self, time: ThreadTime) -> None: ...


class _NoCode:
    def forget(self, address: int) -> None: ...

    def forget_translations(self) -> None: ...


def execute(
    text: str, gpr: dict[int, int] | None = None, sixty_four: bool = True, **registers: int
) -> ThreadState:
    """The state after the instruction; other registers than those given are zero."""
    state = ThreadState(_MEMORY, _NoTime(), _NoCode())
    state.set_msr(int(MSR.SF) if sixty_four else 0)
    for name, value in registers.items():
        state.set(name, value)
    for number, value in (gpr or {}).items():
        state.gpr[number] = value & ALL
    state.CIA, state.NIA = HERE, HERE + 4
    word = int.from_bytes(assemble(text, HERE), "big")
    handler, operands = operation(word, sixty_four, False)
    handler(state, *operands)
    return state


def signed(number: int, width: int = 64) -> int:
    """The number's low bits as a signed one."""
    low = number & ((1 << width) - 1)
    return low - (low >> (width - 1) << width)


def flags(state: ThreadState) -> set[str]:
    """The names of XER's bits that are set."""
    return {flag.name for flag in XER if flag is not XER.COUNT and state.XER & flag and flag.name}


def relation(a: int, b: int, so: int = 0) -> int:
    """LT GT EQ SO for two numbers."""
    return (a < b) << 3 | (a > b) << 2 | (a == b) << 1 | so
