"""A thread's state over z3's bit-vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import z3

from chronovisor.engine.state import REAL_MODE_MASK
from chronovisor.isa.registers import FILES, REGISTERS

STORED = tuple(name for name, register in REGISTERS.items() if not register.live)


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reservation: its real address (64 bits), its size in bytes (8 bits), the value read (128 bits)."""

    held: z3.BoolRef
    address: z3.BitVecRef
    size: z3.BitVecRef
    value: z3.BitVecRef


class SymbolicLive(Protocol):
    """The registers whose value moves by itself, as a model of them.

    What a model must remember from one instruction to the next it keeps in ``state.live``, which is
    copied and merged with the state.
    """

    def passes(self, state: SymbolicState) -> None:
        """Called before each instruction: time goes by."""

    def read(self, name: str, state: SymbolicState) -> z3.BitVecRef:
        """The register's value now, in its width."""

    def write(self, name: str, value: z3.BitVecRef, when: z3.BoolRef, state: SymbolicState) -> None:
        """Set the register if ``when`` holds."""


class Addresses:
    """What is known of the addresses of a run: which bits of one count, and which are not the same."""

    mask = REAL_MODE_MASK
    """The bits of an effective address that reach memory, in 64-bit mode."""

    def apart(self, one: z3.BitVecRef, other: z3.BitVecRef) -> bool:
        """Whether two terms are known never to be one address."""
        distance = z3.simplify(one - other)
        return z3.is_bv_value(distance) and bool(distance.as_long() != 0)

    def initial(self, memory: z3.ArrayRef, address: z3.BitVecRef) -> z3.BitVecRef:
        """The byte that memory had at an address before anything was stored."""
        return z3.Select(memory, address)


class SymbolicState:
    """Registers, memory and reservation, each a term; ``path`` holds in every run that gets here.

    ``memory`` is an array from real address (64 bits) to byte. Memory has ``memory_size`` bytes: an access
    beyond them ends in a data storage interrupt. Without one every address has memory.

    ``radix`` says that LPCR[HR] is set: translated accesses then walk the guest's tables in ``memory``. If it
    is False, LPCR[HR] is taken to be clear, and translated accesses end in a data storage interrupt.
    """

    __slots__ = (
        "addresses",
        "executed",
        "files",
        "live",
        "memory",
        "memory_size",
        "path",
        "radix",
        "registers",
        "reservation",
    )

    def __init__(
        self,
        files: dict[str, list[z3.BitVecRef]],
        registers: dict[str, z3.BitVecRef],
        memory: z3.ArrayRef,
        reservation: Reservation,
        memory_size: int | None = None,
        addresses: Addresses | None = None,
        radix: bool = False,
    ) -> None:
        self.radix = radix
        self.addresses = addresses or Addresses()
        self.files = files
        self.registers = registers
        self.memory = memory
        self.reservation = reservation
        self.memory_size = memory_size
        self.path: z3.BoolRef = z3.BoolVal(True)
        self.live: dict[str, z3.BitVecRef] = {}
        self.executed = 0

    @classmethod
    def unknown(
        cls,
        suffix: str = "",
        known: Mapping[str, int] | None = None,
        memory_size: int | None = None,
        addresses: Addresses | None = None,
        radix: bool = False,
    ) -> SymbolicState:
        """A state of which nothing is known but the registers ``known`` (as are CIA and MSR, to run code).

        The unknowns are named as the registers are, general ones r0 to r31, with ``suffix`` behind.
        """
        known = known or {}
        numbered = {f"{file.prefix}{n}" for file in FILES.values() for n in range(file.count)}
        unheard = known.keys() - set(STORED) - numbered
        if unheard:
            raise ValueError(f"no stored register is called {', '.join(sorted(unheard))}")

        def term(name: str, width: int) -> z3.BitVecRef:
            return z3.BitVecVal(known[name], width) if name in known else z3.BitVec(name + suffix, width)

        return cls(
            {
                file.name: [term(f"{file.prefix}{n}", file.width) for n in range(file.count)]
                for file in FILES.values()
            },
            {name: term(name, REGISTERS[name].width) for name in STORED},
            z3.Array(f"memory{suffix}", z3.BitVecSort(64), z3.BitVecSort(8)),
            Reservation(
                z3.Bool(f"reserved{suffix}"),
                z3.BitVec(f"reserved_address{suffix}", 64),
                z3.BitVec(f"reserved_size{suffix}", 8),
                z3.BitVec(f"reserved_value{suffix}", 128),
            ),
            memory_size,
            addresses,
            radix,
        )

    @property
    def gpr(self) -> list[z3.BitVecRef]:
        """The general purpose registers."""
        return self.files["GPR"]

    def __getitem__(self, name: str) -> z3.BitVecRef:
        return self.registers[name]

    def __setitem__(self, name: str, value: z3.BitVecRef | int) -> None:
        width = REGISTERS[name].width
        self.registers[name] = z3.BitVecVal(value, width) if isinstance(value, int) else value

    def assume(self, condition: z3.BoolRef) -> None:
        """Leave out the runs in which ``condition`` does not hold."""
        self.path = z3.simplify(z3.And(self.path, condition))

    def copy(self) -> SymbolicState:
        """The same state, to go another way."""
        other = SymbolicState(
            {name: list(file) for name, file in self.files.items()},
            dict(self.registers),
            self.memory,
            self.reservation,
            self.memory_size,
            self.addresses,
            self.radix,
        )
        other.path, other.live, other.executed = self.path, dict(self.live), self.executed
        return other

    def merged(self, other: SymbolicState) -> SymbolicState:
        """One state for both, whose paths must not overlap."""

        def either(mine: z3.ExprRef, theirs: z3.ExprRef) -> z3.ExprRef:
            return mine if mine.eq(theirs) else z3.simplify(z3.If(self.path, mine, theirs))

        if self.live.keys() != other.live.keys():
            raise ValueError("the states keep different live registers")
        a, b = self.reservation, other.reservation
        both = SymbolicState(
            {
                name: [either(x, y) for x, y in zip(file, other.files[name], strict=True)]
                for name, file in self.files.items()
            },
            {name: either(self.registers[name], other.registers[name]) for name in STORED},
            either(self.memory, other.memory),
            Reservation(
                either(a.held, b.held),
                either(a.address, b.address),
                either(a.size, b.size),
                either(a.value, b.value),
            ),
            self.memory_size,
            self.addresses,
            self.radix,
        )
        both.path = z3.simplify(z3.Or(self.path, other.path))
        both.live = {name: either(self.live[name], other.live[name]) for name in self.live}
        both.executed = max(self.executed, other.executed)
        return both

    # Memory, at real addresses

    def bytes_at(self, address: z3.BitVecRef, size: int, little: bool) -> z3.BitVecRef:
        """``size`` bytes of memory as a number."""
        parts = [self._byte(self.memory, z3.simplify(address + place)) for place in range(size)]
        if little:
            parts.reverse()
        return z3.Concat(*parts) if size > 1 else parts[0]

    def _byte(self, memory: z3.ArrayRef, address: z3.BitVecRef) -> z3.BitVecRef:
        """A byte of memory, past the stores that are known to be elsewhere."""
        while z3.is_store(memory):
            rest, there, value = memory.children()
            if there.eq(address):
                return value
            if not self.addresses.apart(there, address):
                return z3.If(there == address, value, self._byte(rest, address))
            memory = rest
        if z3.is_app_of(memory, z3.Z3_OP_ITE):
            condition, yes, no = memory.children()
            return z3.If(condition, self._byte(yes, address), self._byte(no, address))
        return self.addresses.initial(memory, address)

    def put_bytes(self, address: z3.BitVecRef, value: z3.BitVecRef, little: bool) -> z3.ArrayRef:
        """What memory becomes when a number is stored."""
        size = value.size() // 8
        memory = self.memory
        for place in range(size):
            low = 8 * (place if little else size - 1 - place)
            memory = z3.Store(memory, z3.simplify(address + place), z3.Extract(low + 7, low, value))
        return memory
