"""Guest memory by addresses that lead to it page by page."""

from __future__ import annotations

from collections.abc import Callable

from chronovisor.memory.guest_memory import PAGE_SIZE, AddressError, GuestMemory


class NoAddressError(LookupError):
    """An effective address that leads to no memory."""


def read_through(memory: GuestMemory, real: Callable[[int], int], address: int, size: int) -> bytes:
    """Return the bytes at an address up to the first that is not there.

    `real` returns the guest real address behind an address, or raises NoAddressError; so does this if the
    first byte is not there.
    """
    found = bytearray()
    while len(found) < size:
        at = address + len(found)
        piece = min(size - len(found), PAGE_SIZE - at % PAGE_SIZE)
        try:
            found += memory.read(real(at), piece)
        except (NoAddressError, AddressError):
            if found:
                break
            raise NoAddressError from None
    return bytes(found)
