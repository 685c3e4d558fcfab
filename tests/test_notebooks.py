"""The notebooks of docs/ still come out as they are printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "extensions"))
from notebooks import execute, page

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.mark.soak
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_says_what_it_said(path: Path) -> None:
    notebook = json.loads(path.read_text())
    told = [
        "".join(text for output in cell["outputs"] for text in output.get("text", ()))
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]
    assert [found["text"] for found in execute(notebook)] == told
    assert len("".join(told)) > 100


def test_a_notebook_becomes_a_page(tmp_path: Path) -> None:
    (path,) = NOTEBOOKS
    (tmp_path / path.name).write_text(path.read_text())
    text = page(tmp_path / path.name)
    assert "```python\nimport chronovisor as cv" in text
    assert "the guest powered off" in text
    (picture,) = tmp_path.glob("*.png")
    assert f"![]({picture.name})" in text
