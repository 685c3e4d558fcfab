"""Expressions and formats of the human monitor. What QEMU answers to them is in test_monitor_oracle."""

from __future__ import annotations

import contextlib

import hypothesis.strategies as st
import pytest
from hypothesis import given

from chronovisor.cli.monitor_expressions import ExpressionError, Format, evaluate

BYTES = bytes.fromhex("48003f00deadbee0")


def value(text: str) -> int:
    return evaluate(text, {"r3": 0xFE00000, "pc": 0x100}.__getitem__)


@pytest.mark.parametrize(
    ("format_", "order", "line"),
    [
        # QEMU's, of the same bytes.
        ("/4ub", "big", " 72   0  63   0"),
        ("/4ob", "big", "0110   0 077   0"),
        ("/8cb", "big", "'H' '\\x00' '?' '\\x00' '\\xde' '\\xad' '\\xbe' '\\xe0'"),
        ("/1xg", "big", "0x48003f00deadbee0"),
        ("/2xw", "big", "0x48003f00 0xdeadbee0"),
        ("/2", "little", "0x003f0048 0xe0beadde"),
        ("/1dw", "little", "   4128840"),
    ],
)
def test_memory_is_shown_as_by_qemu(format_: str, order: str, line: str) -> None:
    shown = list(Format.parse(format_).lines(0x100, BYTES, "little" if order == "little" else "big"))
    assert shown[0] == f"0000000000000100: {line}"


def test_registers_in_expressions() -> None:
    assert value("$r3 + 8 * ($pc - 0xf0)") == 0xFE00080
    assert value("-1") == value("~0") == (1 << 64) - 1
    assert value("2+3&1") == 2 + (3 & 1)


@given(
    st.text(alphabet="0179xa$r3+-*/%&|^~() ", max_size=40), st.text(alphabet="/0129xduocbhwgi", max_size=6)
)
def test_any_text_is_answered(text: str, format_: str) -> None:
    with contextlib.suppress(ExpressionError, KeyError):
        assert 0 <= value(text) < 1 << 64
    with contextlib.suppress(ExpressionError):
        form = Format.parse(format_)
        lines = list(form.lines((1 << 64) - 8, BYTES, "big"))
        assert not form.count or lines
        assert form.shown(value("0"))


def test_depth_is_limited() -> None:
    with pytest.raises(ExpressionError, match="more than 64"):
        value("-" * 10_000 + "1")
