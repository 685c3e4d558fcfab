"""The process that compiles regions leaves a busy machine to guests, by what the machine's Linux knows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from chronovisor.engine.regions import compile_server

AUTOGROUP = Path("/proc/self/autogroup")
PROGRAM = f"""
import os, time
from {compile_server.__name__} import come_second
come_second()
print(os.nice(0))
if os.path.exists("{AUTOGROUP}"):
    print(open("{AUTOGROUP}").read())
"""


def test_its_session_counts_for_less_than_the_guests() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        # As the service starts it.
        start_new_session=True,
    )
    process, *session = done.stdout.split(maxsplit=1)
    assert int(process) > 0
    if AUTOGROUP.exists():
        found = re.search(r"nice (-?\d+)", session[0])
        assert found is not None
        assert found[1] == process
