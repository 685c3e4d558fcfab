"""A program that no evaluator could run is refused, and the line that made the mistake is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chronovisor.isa.notation import Machine
from chronovisor.isa.operations import OPERATIONS
from chronovisor.isa.values import Value
from chronovisor.isa.verifier import SHAPES, ProgramError, verify


def test_every_operation_has_a_shape() -> None:
    assert SHAPES.keys() == OPERATIONS.keys()


def _unknown(m: Machine) -> None:
    m.trace.emit("divide", 64, (m.gpr[3], m.gpr[4]))


def _too_narrow(m: Machine) -> None:
    m.trace.emit("add", 64, (m.gpr[3], m.gpr[4].trunc(32)))


def _operand_missing(m: Machine) -> None:
    m.trace.emit("store", 0, (m.gpr[3],))


def _effect_with_a_result(m: Machine) -> None:
    m.trace.emit("resync", 64)


def _other_width_than_the_register(m: Machine) -> None:
    m.trace.emit("get", 64, (), "CR")


def _no_register(m: Machine) -> None:
    m.trace.emit("set", 0, (m.gpr[3],), "XYZ")


def _live_as_stored(m: Machine) -> None:
    m.trace.emit("get", 64, (), "TB")


def _no_file(m: Machine) -> None:
    m.trace.emit("read_file", 64, (m.value(3),), "XYZ")


def _condition_of_many_bits(m: Machine) -> None:
    m.trace.emit("select", 64, (m.gpr[3], m.gpr[4], m.gpr[5]))


def _bits_that_are_not_there(m: Machine) -> None:
    m.trace.emit("extract", 8, (m["CR"],), 25)


def _made_in_another_block(m: Machine) -> None:
    made: list[Value] = []
    with m.when(m.gpr[3].eq(0)):
        made.append(m.gpr[4])
    m.gpr[5] = made[0]


def _made_in_another_program(m: Machine) -> None:
    m.trace.emit("write_file", 0, (m.value(3), Machine().gpr[4]), "GPR")


def _no_operand_of_the_instruction(m: Machine) -> None:
    m.gpr[3] = m.operand("SI")


MISTAKES = [value for name, value in sorted(globals().items()) if name.startswith("_") and callable(value)]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_is_named_by_its_line(mistake: Callable[[Machine], None]) -> None:
    m = Machine()
    mistake(m)
    code: Any = mistake.__code__
    lines = {number for _, _, number in code.co_lines() if number is not None}
    with pytest.raises(ProgramError) as raised:
        verify(m.trace.program("example", ("RT", "RA")))
    file, number = str(raised.value).split(": ")[0].split(":")
    assert file == "test_verifier.py"
    assert int(number) in lines
    assert "in example" in str(raised.value)


def test_a_value_knows_the_line_of_the_meaning_that_made_it() -> None:
    m = Machine()
    m.compare(m.gpr[3].slt(0), m.gpr[3].eq(0))
    assert {statement.line.split(":")[0] for statement in m.trace.program("example", ()).statements()} == {
        "test_verifier.py"
    }
