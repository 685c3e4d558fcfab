"""Guest memory with watchpoints: an access to a watched place is refused before it is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from chronovisor.memory.guest_memory import PAGE_SHIFT, GuestMemory


@dataclass(frozen=True, slots=True)
class Watchpoint:
    """So many bytes at a real address, and which accesses to them are watched."""

    address: int
    size: int
    loads: bool
    stores: bool

    @property
    def pages(self) -> range:
        """The numbers of the pages that it is in."""
        return range(self.address >> PAGE_SHIFT, (self.address + self.size - 1 >> PAGE_SHIFT) + 1)

    def is_hit(self, address: int, size: int, store: bool) -> bool:
        """Whether an access touches it."""
        watched = self.stores if store else self.loads
        return watched and address < self.address + self.size and self.address < address + size


class WatchedError(Exception):
    """An access to a watched place, which was not made."""

    def __init__(self, watchpoint: Watchpoint) -> None:
        super().__init__(f"{watchpoint.address:#x}")
        self.watchpoint = watchpoint


class WatchedMemory(GuestMemory):
    """The same memory, as a thread has it whose accesses are watched."""

    __slots__ = ("_plain", "_watchpoints")

    def __init__(self, plain: GuestMemory, watchpoints: Iterable[Watchpoint]) -> None:
        # Everything is the other memory's own.
        self.size, self.data, self.view = plain.size, plain.data, plain.view
        self.atomic, self.on_clear, self.dirty = plain.atomic, plain.on_clear, plain.dirty
        self._plain = plain
        self._watchpoints = tuple(watchpoints)

    def check(self, addr: int, size: int, store: bool) -> None:
        """Raise WatchedError if an access touches a watched place."""
        for watchpoint in self._watchpoints:
            if watchpoint.is_hit(addr, size, store):
                raise WatchedError(watchpoint)

    def about_to_store(self, addr: int, size: int) -> None:
        """WatchedError if a store would touch a watched place."""
        self.check(addr, size, True)

    @property
    def unwatched(self) -> GuestMemory:
        """The same memory without watchpoints."""
        return self._plain

    def load(self, addr: int, size: int, little: bool) -> int:
        """As the memory's own; WatchedError."""
        self.check(addr, size, False)
        return self._plain.load(addr, size, little)

    def read(self, addr: int, size: int) -> bytes:
        """As the memory's own; WatchedError."""
        self.check(addr, size, False)
        return self._plain.read(addr, size)

    def store(self, addr: int, size: int, value: int, little: bool) -> None:
        """As the memory's own; WatchedError."""
        self.check(addr, size, True)
        self._plain.store(addr, size, value, little)

    def write(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        """As the memory's own; WatchedError."""
        self.check(addr, len(data), True)
        self._plain.write(addr, data)
