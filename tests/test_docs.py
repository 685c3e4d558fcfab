"""The pages in docs/ name files and tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import chronovisor

ROOT = Path(__file__).parents[1]
OFFSET = (ROOT / "docs" / "timebase-offset.md").read_text()
PATH = re.compile(r"`((?:[a-z_0-9]+/)+(?:[a-z_0-9]+\.py)?)(::\w+)?`")
ALONE = re.compile(r"`(::\w+)`")


def _named() -> list[tuple[str, str]]:
    """The files that the clauses' rows name, each with the test in it or an empty text."""
    found: list[tuple[str, str]] = []
    for row in (line for line in OFFSET.splitlines() if re.match(r"\| \d+ \|", line)):
        for token in re.findall(r"`[^`]+`", row):
            if matched := PATH.fullmatch(token):
                found.append((matched[1], (matched[2] or "").removeprefix("::")))
            elif matched := ALONE.fullmatch(token):
                found.append((found[-1][0], matched[1].removeprefix("::")))
    return found


def test_every_clause_names_code_and_tests() -> None:
    assert len(_named()) > 40


@pytest.mark.parametrize(("path", "test"), sorted(set(_named())))
def test_what_a_clause_names_is_there(path: str, test: str) -> None:
    places = [ROOT / "tests" / path, ROOT / "src" / "chronovisor" / path]
    there = [place for place in places if place.exists()]
    assert there, f"{path} is neither a module nor a test"
    if test:
        assert re.search(rf"(def|class) {test}\(", there[0].read_text()), f"{path} has no {test}"


def test_every_episode_of_the_history_is_named() -> None:
    told = {
        name
        for path in (ROOT / "tests" / "hypervisor").glob("test_history_*.py")
        for name in re.findall(r"^class (Test\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert len(told) > 20
    assert told <= {test for _, test in _named()}


def test_the_site_has_every_public_name() -> None:
    shown = re.findall(r"^\.\. auto\w+:: chronovisor\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.M)
    assert sorted(shown) == sorted(chronovisor.__all__)


def test_links_between_pages_lead_somewhere() -> None:
    """On the site `make docs` sees to that. In the repository, README and the others are read as they are."""
    followed = 0
    for page in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs" / "tutorials").glob("*.md"),
    ):
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            followed += 1
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    assert followed > 40


def test_every_page_has_a_place_on_the_site() -> None:
    arranged = set(re.findall(r"^[a-z][\w/-]*$", (ROOT / "docs" / "index.md").read_text(), re.M))
    pages = {
        path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md")
    }
    assert {page for page in pages if not page.startswith("commands/")} - {"index"} <= arranged
    assert len(arranged) > 15
