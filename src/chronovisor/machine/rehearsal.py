"""A rehearsal: a small guest is run to its end before a guest arrives that must not wait.

An engine compiles, loads and caches much when it first runs a guest's code. A guest that has just moved would
see that delay as a step of its time.
"""

from __future__ import annotations

import logging

from chronovisor.machine.host import Host

IMAGES = ("hello-le.elf", "hello-be.elf")
_PATIENCE = 120.0
"""Seconds of real time: the first start on a machine may have everything to compile."""

log = logging.getLogger(__name__)


def rehearse(cpu: str, engine: str, provider: str = "embedded") -> None:
    """Run a guest in either byte order on a host like that; errors are left for the real guest to show."""
    for image in IMAGES:
        try:
            with Host(cpu=cpu, engine=engine, provider=provider) as host:
                host.boot(image, "1M").run(_PATIENCE)
        except Exception:
            log.exception("the rehearsal with %s", image)
