"""Guest memory and its dirty log. No native code is needed to import it."""

from chronovisor.memory.guest_memory import PAGE_SIZE, AddressError, DirtyLog, GuestMemory
from chronovisor.memory.watched import Watchpoint

__all__ = ["PAGE_SIZE", "AddressError", "DirtyLog", "GuestMemory", "Watchpoint"]
