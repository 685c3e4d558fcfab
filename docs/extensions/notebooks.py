"""Notebooks: executed without Jupyter, and made into pages of the site.

`python docs/extensions/notebooks.py docs/notebooks/NAME.ipynb` executes a notebook and writes its outputs
into it. Sphinx makes a page of each notebook before it looks for pages.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

FOLDER = "notebooks"


def execute(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """Execute the cells of code in order; return the outputs of each, as a notebook has them."""
    names: dict[str, Any] = {"__name__": "__main__"}
    return [
        _outputs("".join(cell["source"]), names) for cell in notebook["cells"] if cell["cell_type"] == "code"
    ]


def _outputs(source: str, names: dict[str, Any]) -> dict[str, Any]:
    """What a cell printed, and the value of its last expression: as text, or a figure as a picture."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, "cell", "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    found: dict[str, Any] = {"text": printed.getvalue()}
    if hasattr(value, "savefig"):
        value.savefig(picture := io.BytesIO(), format="png", metadata={"Software": None})
        found["picture"] = base64.b64encode(picture.getvalue()).decode()
    elif value is not None:
        found["text"] += f"{value!r}\n"
    return found


def renew(path: Path) -> None:
    """Execute a notebook, and write its outputs into it."""
    notebook = json.loads(path.read_text())
    outputs = iter(execute(notebook))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            found, cell["outputs"] = next(outputs), []
            if found["text"]:
                text = found["text"].splitlines(keepends=True)
                cell["outputs"].append({"output_type": "stream", "name": "stdout", "text": text})
            if "picture" in found:
                data = {"image/png": found["picture"]}
                cell["outputs"].append({"output_type": "display_data", "data": data, "metadata": {}})
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def page(path: Path) -> str:
    """Return a notebook as a page in Markdown; its pictures are written beside it."""
    parts = []
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                parts.append(f"```text\n{''.join(output['text'])}```")
            else:
                picture = path.with_name(f"{path.stem}-{number}.png")
                picture.write_bytes(base64.b64decode(output["data"]["image/png"]))
                parts.append(f"![]({picture.name})")
    parts.append(f"This page is made from a notebook, `docs/{FOLDER}/{path.name}`.")
    return "\n\n".join(parts) + "\n"


def _write(app: Any) -> None:
    for path in (Path(app.srcdir) / FOLDER).glob("*.ipynb"):
        made, text = path.with_suffix(".md"), page(path)
        if not made.exists() or made.read_text() != text:
            made.write_text(text)


def setup(app: Any) -> dict[str, Any]:
    """Join Sphinx."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    renew(Path(sys.argv[1]))
