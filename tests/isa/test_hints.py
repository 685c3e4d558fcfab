"""Hints: the thread goes on, and nothing else changes."""

from __future__ import annotations

import pytest

from chronovisor.isa.registers import FILES, REGISTERS

from .single import HERE, execute


@pytest.mark.parametrize("text", ["icbt 0,3,4", "dcbt 3,4,0", "dcbtst 3,4,0"])
def test_a_hint_changes_nothing(text: str) -> None:
    # No memory is at this address.
    registers = {3: 1 << 50, 4: 8}
    state, idle = execute(text, registers), execute("nop", registers)
    assert state.NIA == HERE + 4
    for name, register in REGISTERS.items():
        if not register.live:
            assert state.get(name) == idle.get(name), name
    for file in FILES.values():
        assert getattr(state, file.attribute) == getattr(idle, file.attribute), file.name
