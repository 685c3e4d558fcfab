"""What the README shows from Python is what happens."""

from __future__ import annotations

import doctest
from pathlib import Path

import chronovisor

README = Path(__file__).parents[1] / "README.md"


def test_the_python_of_the_readme() -> None:
    results = doctest.testfile(
        str(README), module_relative=False, optionflags=doctest.REPORT_ONLY_FIRST_FAILURE
    )
    assert results.attempted > 8
    assert results.failed == 0


def test_the_python_of_the_package() -> None:
    results = doctest.testmod(chronovisor)
    assert results.attempted > 5
    assert results.failed == 0


def test_public_names_are_there() -> None:
    for name in chronovisor.__all__:
        assert getattr(chronovisor, name).__doc__
