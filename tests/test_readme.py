"""What the README shows from Python is what happens."""

from __future__ import annotations

import doctest
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import chronovisor
import chronovisor.kvm.errors as kvm_errors
import chronovisor.machine.errors as machine_errors
import chronovisor.migration.errors as migration_errors

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


def test_public_names_are_listed_and_documented() -> None:
    assert {*chronovisor.__all__, "__version__"} <= set(dir(chronovisor))
    told = pydoc.render_doc(chronovisor, renderer=pydoc.plaintext)
    for name in ("class Host", "class MoveError", "move("):
        assert name in told
    assert re.fullmatch(r"\d+\.\d+\.\d+", chronovisor.__version__)


def test_every_error_is_public() -> None:
    for errors in (kvm_errors, machine_errors, migration_errors):
        for name in vars(errors):
            if name.endswith("Error"):
                assert name in chronovisor.__all__
                assert getattr(chronovisor, name) is getattr(errors, name)


def test_importing_the_package_imports_no_part_of_it() -> None:
    code = (
        "import sys, chronovisor; dir(chronovisor); chronovisor.__version__; "
        "print([n for n in sys.modules if n.startswith('chronovisor.') or n in ('numpy', 'llvmlite')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
