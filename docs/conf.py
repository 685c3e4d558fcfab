"""How Sphinx makes the documentation's site: `make docs`."""

import sys
from pathlib import Path

import chronovisor
from chronovisor.cli import COMMANDS, HELP

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "Chronovisor"
author = "the Chronovisor authors"
copyright = "the Chronovisor authors; Apache-2.0"
release = version = chronovisor.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "command_pages", "notebooks"]
exclude_patterns = ["extensions"]
nitpicky = False

# `make man`: a manual page for each command, from the same text as its page on the site.
man_pages = [
    (f"commands/{name}", f"chronovisor-{name}", command.summary, [author], 1)
    for name, command in COMMANDS.items()
]
man_pages.append(("commands/index", "chronovisor", HELP.partition("\n")[0], [author], 1))
man_pages.append(("qemu", "chronovisor-qemu", "QEMU's command line, for what Chronovisor has.", [author], 1))

html_theme = "furo"
html_title = f"Chronovisor {release}"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
# A console session is shown as it is: what a guest prints is not a program.
highlight_language = "none"

# The docstrings are plain text with `code` in them.
# "--detach" is two hyphens.
smartquotes = False
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "undoc-members": False, "exclude-members": "__init__, __new__"}
