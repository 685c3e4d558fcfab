"""A page for each command, made from what its `--help` says, before Sphinx looks for pages."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from docutils import nodes
from sphinx.application import Sphinx

from chronovisor.cli import COMMANDS, HELP
from chronovisor.cli.status import statuses_in_help

FOLDER = "commands"


def pages() -> dict[str, str]:
    """Return the pages' texts in Markdown by their names: one for each command, and `index`."""
    made = {name: _page(name) for name in COMMANDS}
    rows = "".join(f"| [{name}]({name}.md) | {one.summary} |\n" for name, one in COMMANDS.items())
    listed = "".join(f"{name}\n" for name in COMMANDS)
    made["index"] = (
        f"# Commands\n\n{_text(HELP)}\n\n"
        f"| command | what it does |\n| --- | --- |\n{rows}\n"
        f"```{{toctree}}\n:hidden:\n\n{listed}```\n"
    )
    return made


def _page(name: str) -> str:
    module, summary, statuses = COMMANDS[name]
    application = typer.Typer(add_completion=False, rich_markup_mode=None)
    application.command(name)(import_module(module).command)
    command = typer.main.get_command(application)
    # Asked of the command itself: which package holds the class of contexts depends on typer's version.
    context: Any = command.make_context(f"chronovisor {name}", [], resilient_parsing=True)
    usage = " ".join(command.collect_usage_pieces(context))
    told = inspect.cleandoc(command.help or summary)
    # In the order of a manual page.
    synopsis = f"## Synopsis\n\n```\nchronovisor {name} {usage}\n```"
    parts = [f"# {name}", synopsis, "## Description", _text(told)]
    for title, kind in (("Arguments", "argument"), ("Options", "option")):
        found = [p for p in command.params if p.param_type_name == kind and not getattr(p, "hidden", False)]
        # The option --help is on every page of its own accord.
        records = [record for p in found if p.name != "help" and (record := _record(p, context))]
        if records:
            parts += [f"## {title}", *records]
    parts += ["## Exit status", _text(statuses_in_help(statuses).removeprefix("Exit status: ")) + "."]
    return "\n\n".join(parts) + "\n"


def _record(parameter: Any, context: Any) -> str | None:
    """An option or an argument as an entry of a list of definitions."""
    told = parameter.get_help_record(context)
    if told is None:
        return None
    name, meaning = told
    return f"`{name}`\n: {_text(meaning) or '–'}"


def _text(text: str) -> str:
    """Plain text as Markdown that shows it."""
    parts = text.split("`")
    # What is between backticks is code already.
    return "`".join(part if n % 2 else _escaped(part) for n, part in enumerate(parts))


def _escaped(text: str) -> str:
    for sign in "\\*_<[|":
        text = text.replace(sign, "\\" + sign)
    return text


def _write(app: Sphinx) -> None:
    folder = Path(app.srcdir) / FOLDER
    folder.mkdir(exist_ok=True)
    made = {f"{name}.md": text for name, text in pages().items()}
    for path in folder.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        path = folder / name
        # Sphinx reads again only what has changed.
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _without_links(app: Sphinx, doctree: nodes.document, _name: str) -> None:
    """Leave the words alone of what leads to another page: a manual page cannot lead there."""
    if app.builder.name == "man":
        for link in list(doctree.findall(nodes.reference)):
            if "://" not in link.get("refuri", ""):
                link.replace_self(link.children)


def setup(app: Sphinx) -> dict[str, Any]:
    """Join Sphinx."""
    app.connect("builder-inited", _write)
    app.connect("doctree-resolved", _without_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
