"""Pages of the documentation that are made from declarations are those that the declarations make."""

from __future__ import annotations

from pathlib import Path

import pytest

from chronovisor.cli.made_pages import BEGIN, MADE, renewed

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", MADE)
def test_a_made_page_is_up_to_date(name: str) -> None:
    page = (DOCS / name).read_text()
    assert renewed(name, page) == page, "renew it: python -m chronovisor.cli.made_pages docs"
    assert len(page.partition(BEGIN)[2].splitlines()) > 20


def test_every_page_with_a_made_part_is_known() -> None:
    assert {path.name for path in DOCS.glob("*.md") if BEGIN in path.read_text()} == set(MADE)


def test_a_page_without_a_made_part_is_refused() -> None:
    with pytest.raises(ValueError, match="has no part that is made"):
        renewed("qmp.md", "# QMP\n")
