"""The process that compiles regions: ``python -m chronovisor.engine.regions.compile_server``.

It works as the process that compiles handlers does. A region is wanted by the mode, the contents of pages
and the hot instruction's offset; the answer is what `CompiledRegion.encode` makes.
"""

from __future__ import annotations

import base64
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from chronovisor.engine.native.compile_server import serve
from chronovisor.engine.regions.compile import WantedRegion, compile_region

#: How much less urgent compiling regions is than running guests.
_NICENESS = 5
#: After how many regions garbage is collected: each leaves about a megabyte. To look at what is still in use
#: after each of them would take a tenth of the time.
_COLLECTS_AFTER = 16


def request(wanted: WantedRegion) -> dict[str, object]:
    """What asks for a region."""
    pages = [(page, base64.b64encode(content).decode()) for page, content in wanted.pages.items()]
    numbers = {"hot": wanted.hot, "starts": wanted.starts, "stops": wanted.stops}
    return {"mode": wanted.mode, "pages": pages, **numbers}


def answer(asked: dict[str, Any]) -> bytes:
    """The region that a request asks for."""
    pages = {page: base64.b64decode(content) for page, content in asked["pages"]}
    wanted = WantedRegion(
        tuple(asked["mode"]), pages, asked["hot"], tuple(asked["starts"]), tuple(asked["stops"])
    )
    return compile_region(wanted).encode()


def come_second() -> None:
    """Leave a busy machine to guests: they run without regions too, if more slowly."""
    os.nice(_NICENESS)
    # This process has a session of its own. Linux may share processors among sessions, each of which has a
    # niceness, and count that of a process within its session alone (sched(7), "The autogroup feature").
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_NICENESS))


if __name__ == "__main__":
    come_second()
    serve(answer, _COLLECTS_AFTER)
