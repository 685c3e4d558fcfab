"""The addresses of those fields of a thread's state that native code uses most."""

from __future__ import annotations

from typing import cast

from chronovisor.engine.live_registers import LiveRegisters
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.state_layout import ALIKE, OFFSETS
from chronovisor.memory.guest_memory import GuestMemory

HOT = ("CIA", "find_both_by_store")
"""The first hot field and the last one."""
GPRS, VSRS = range(32), range(14, 32)


def test_the_hot_fields_are_alike_to_none_that_is_used_much() -> None:
    first, last = (OFFSETS[name] for name in HOT)
    hot = {name: at % ALIKE for name, at in OFFSETS.items() if first <= at <= last}
    assert {
        "XER",
        "CR_FIELDS",
        "handlers_from",
        "page_base",
        "done_in_regions",
        "budget",
        "reach",
    } <= hot.keys()
    used = [*hot.values(), *((OFFSETS["gpr_words"] + 8 * n) % ALIKE for n in GPRS)]
    assert len(set(used)) == len(used) == len(hot) + len(GPRS)
    seldom = {(OFFSETS["vsr_words"] + 16 * n + half) % ALIKE for n in VSRS for half in (0, 8)}
    assert set(hot.values()) <= seldom


def test_what_python_keeps_beside_the_fields_has_slots() -> None:
    """Without a slot, an attribute of a structure takes five times as long. Each hypercall uses some."""
    thread = NativeEngine(GuestMemory(1 << 16)).thread(cast("LiveRegisters", None))
    assert vars(thread) == {}
