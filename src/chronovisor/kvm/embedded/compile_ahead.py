"""The native code that every guest needs, compiled before there is a guest, so that a package can bring it.

`python -m chronovisor.kvm.embedded.compile_ahead DIRECTORY` leaves it in DIRECTORY, in the form of the code
cache. What is there already is not compiled again, and what is of other sources is deleted.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from chronovisor.engine.native import code_cache, compile_server, compiler, sets
from chronovisor.engine.native.compile_service import CompileService
from chronovisor.engine.native.hypercalls import hypercall_address
from chronovisor.hypervisor.hypercall_programs import PROGRAMS
from chronovisor.hypervisor.native_switch import switching

_MODES: Final = ((True, True), (True, False))
"""64-bit mode in both byte orders. Guests execute few instructions in 32-bit mode."""
_SELDOM_MODES: Final = ((True, True),)
"""Those in which the seldom used are worth their time, which is that of all others together: Linux's own."""


def compile_ahead(directory: Path) -> None:
    """Leave the code in a directory, which is made if need be.

    RuntimeError if it cannot be compiled, OSError if the directory cannot be read or written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["CHRONOVISOR_CACHE"] = str(directory)
    # What is used gets the present time, whether it was there or not.
    for path in directory.glob("*.o"):
        os.utime(path, (0, 0))
    _compile_sets()
    # These are compiled, or found, when a process comes to them: here.
    hypercall_address(tuple(PROGRAMS))
    switching()
    for path in directory.glob("*.o"):
        if path.stat().st_mtime:
            # Whoever may read the package may read it.
            path.chmod(0o644)
        else:
            path.unlink()


def _compile_sets() -> None:
    # The largest first: several processes share the work.
    wanted = [sets.seldom(mode) for mode in _SELDOM_MODES]
    wanted += [one for mode in _MODES for one in (sets.paired(mode), sets.everyday(mode))]
    asked = {one.file_name: compile_server.request(one) for one in wanted}
    asked |= {sets.stencils_name(mode): compile_server.stencils_request(mode) for mode in _MODES}
    missing = {
        n: request for n, request in asked.items() if code_cache.kept(n, compiler.fingerprint()) is None
    }
    service, answered = CompileService(processes=len(os.sched_getaffinity(0))), SimpleQueue[bytes | None]()
    for name, request in missing.items():
        service.ask(request, partial(_keep, name, answered))
    codes = [answered.get() for _ in missing]
    if None in codes:
        raise RuntimeError("the compiling process failed")


def _keep(name: str, answered: SimpleQueue[bytes | None], code: bytes | None) -> None:
    if code is not None:
        code_cache.keep(name, compiler.fingerprint(), code)
    answered.put(code)


def main(*arguments: str) -> None:
    """The command. It ends with a line and status 1 if the code cannot be compiled, with status 2 if the
    arguments are wrong.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.add_argument("directory", metavar="DIRECTORY", type=Path)
    directory = parser.parse_args(arguments).directory
    code_cache.BROUGHT = Path(os.devnull)
    try:
        compile_ahead(directory)
    except (RuntimeError, OSError) as error:
        raise SystemExit(f"native code was not compiled ahead: {error}") from None


if __name__ == "__main__":
    main(*sys.argv[1:])
