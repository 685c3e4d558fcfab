"""Moves to special-purpose registers that keep a part of what is written."""

from __future__ import annotations

from chronovisor.isa.registers import REGISTERS

from .single import ALL, execute


def test_psscr_keeps_what_its_declaration_says() -> None:
    state = execute("mtspr 823,3", {3: ALL})
    assert state.get("PSSCR") == REGISTERS["PSSCR"].writable == 0xF000_0000_0000_03FF
