"""What pyproject.toml cannot say: a build compiles the native code that every guest needs.

So the first start after an installation compiles nothing. If the code cannot be compiled, as on machines that
are not x86-64, the package is complete without it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SOURCES = Path(__file__).resolve().parent / "src"
CODE = Path("chronovisor/engine/native/code")


class BuildWithCode(build_py):
    """Builds the package, then compiles into it; an editable one has the code among its sources."""

    def run(self) -> None:
        """Do both."""
        super().run()
        if platform.machine() != "x86_64":
            return
        place = (SOURCES if self.editable_mode else Path(self.build_lib).resolve()) / CODE
        # pip isolates a build by a directory that has Python forget the sources of an editable package.
        path = [one for one in sys.path if not (Path(one) / "sitecustomize.py").exists()]
        command = [sys.executable, "-m", "chronovisor.kvm.embedded.compile_ahead", str(place)]
        if subprocess.run(
            command, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCES), *path])}, check=False
        ).returncode:
            print("warning: the first start on a machine will compile this package's native code")


setup(cmdclass={"build_py": BuildWithCode})
