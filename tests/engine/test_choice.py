"""Which engine a guest gets, and what a user is told if it is not the fast one."""

from __future__ import annotations

import logging

import pytest

from chronovisor.engine import choice
from chronovisor.engine.choice import engine_named
from chronovisor.engine.concrete import ConcreteEngine


@pytest.fixture(autouse=True)
def anew() -> None:
    choice._warn_once.cache_clear()


def test_an_engine_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="no engine 'fast'; choose one of auto, regions, threaded, concrete"):
        engine_named("fast")


@pytest.mark.parametrize(
    ("machine", "byteorder", "compiler", "said"),
    [
        ("aarch64", "little", True, "the native engine runs on x86-64 alone, and this is aarch64"),
        ("s390x", "big", True, "the native engine runs on x86-64 alone, and this is s390x"),
        ("x86_64", "little", False, "the native engine needs llvmlite, which is not installed"),
    ],
)
def test_a_machine_without_native_code(
    machine: str,
    byteorder: str,
    compiler: bool,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(choice.platform, "machine", lambda: machine)
    monkeypatch.setattr(choice.sys, "byteorder", byteorder)
    monkeypatch.setattr(choice, "find_spec", lambda name: compiler or None)
    with pytest.raises(ValueError, match=f"{said}: use the concrete engine"):
        engine_named("regions")
    assert not caplog.records
    assert engine_named("auto") is engine_named("auto") is ConcreteEngine
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert said in record.getMessage()


def test_the_concrete_engine_is_there_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice.platform, "machine", lambda: "riscv64")
    assert engine_named("concrete") is ConcreteEngine
