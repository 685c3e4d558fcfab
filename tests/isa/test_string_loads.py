"""String loads of the invalid form, in which the address comes from a register that is loaded."""

from __future__ import annotations

import pytest

from .single import execute

#: Memory of the executed instruction is zero there.
ADDRESS = 0x100


@pytest.mark.parametrize("base", range(4, 8))
def test_lswi_leaves_its_base_alone(base: int) -> None:
    before = {number: 0x1111_0000 + number for number in range(3, 9)} | {base: ADDRESS}
    state = execute(f"lswi 4,{base},16", before)
    assert [state.gpr[number] for number in range(3, 9)] == [
        ADDRESS if number == base else 0 if 4 <= number < 8 else before[number] for number in range(3, 9)
    ]


@pytest.mark.parametrize(("base", "index"), [(5, 10), (10, 5), (4, 7), (7, 4), (5, 5)])
def test_lswx_leaves_base_and_index_alone(base: int, index: int) -> None:
    before = {number: 0x1111_0000 + number for number in range(3, 9)} | {base: ADDRESS, index: ADDRESS}
    state = execute(f"lswx 4,{base},{index}", before, XER=15)
    assert [state.gpr[number] for number in range(3, 9)] == [
        ADDRESS if number in (base, index) else 0 if 4 <= number < 8 else before[number]
        for number in range(3, 9)
    ]


@pytest.mark.parametrize("text", ["lswx 31,0,10", "lswi 31,0,8"])
def test_register_0_is_loaded_if_it_is_no_base(text: str) -> None:
    before = {0: 0x1111, 10: ADDRESS, 31: 0x2222}
    state = execute(text, before, XER=8)
    assert (state.gpr[31], state.gpr[0]) == (0, 0)
