"""What is said of places: read, written back, and refused."""

import pytest

from chronovisor.proof.code.assumptions import (
    Age,
    Apart,
    AssumptionError,
    Compared,
    Register,
    Steady,
    Word,
    parse_assumption,
    parse_place,
)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("r8", Register(8)),
        (" r0 ", Register(0)),
        ("168(r5)", Word(168, 5)),
        ("-0x10( r31 )", Word(-16, 31)),
        ("(r1)", Word(0, 1)),
        ("010(r1)", Word(10, 1)),
    ],
)
def test_places(text: str, place: object) -> None:
    assert parse_place(text) == place
    assert parse_place(str(place)) == place


@pytest.mark.parametrize("text", ["", "r32", "8", "8(r0)", "8(r40)", "-(r3)", "r5+8", "f1", "8(r3"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(AssumptionError, match="is no place"):
        parse_place(text)


@pytest.mark.parametrize(
    ("text", "assumption"),
    [
        ("168(r5) & 0xffffff = 0", Compared(Word(168, 5), 0xFFFFFF, "=", 0)),
        ("r3>=7", Compared(Register(3), (1 << 64) - 1, ">=", 7)),
        ("r3 != 0x10", Compared(Register(3), (1 << 64) - 1, "!=", 16)),
        ("age(0(r30)) <= 1000", Age(Word(0, 30), 1000)),
        ("age( r8 )<=0x10", Age(Register(8), 16)),
        ("steady(168(r27))", Steady(Word(168, 27))),
        ("apart(0(r30), 168(r27),176(r27))", Apart((Word(0, 30), Word(168, 27), Word(176, 27)))),
    ],
)
def test_assumptions(text: str, assumption: object) -> None:
    assert parse_assumption(text) == assumption
    assert parse_assumption(str(assumption)) == assumption


@pytest.mark.parametrize(
    "text",
    [
        "",
        "r3",
        "r3 = r4",
        "r3 == 4",
        "r3 & = 4",
        "age(0(r30))",
        "steady(0(r30)) <= 4",
        "steady(r3)",
        "apart(0(r3))",
        "apart(0(r3), r4)",
        f"r3 = {1 << 64}",
        "later(r3)",
    ],
)
def test_what_is_no_assumption(text: str) -> None:
    with pytest.raises(AssumptionError):
        parse_assumption(text)
