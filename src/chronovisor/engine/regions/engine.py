"""The native engine with regions in its second tier."""

from __future__ import annotations

from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.regions.tier import RegionTier
from chronovisor.memory.guest_memory import GuestMemory


class RegionEngine(NativeEngine):
    """Runs the threads of one guest natively, hot loops as regions."""

    def __init__(self, memory: GuestMemory) -> None:
        super().__init__(memory, RegionTier())
