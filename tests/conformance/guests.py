"""Guests that Chronovisor ships, run to their end on a provider."""

from __future__ import annotations

import time
from typing import Any

from chronovisor.machine.host import Host


def run(provider: str, image: str, append: str = "", smp: int = 1, timeout: float = 30.0) -> dict[str, Any]:
    """Boot the image and run it; how it ended, what it printed, and the seconds that took."""
    begun = time.monotonic()
    with Host(provider=provider) as host:
        guest = host.boot(image, "16M", smp=smp, append=append)
        end = guest.run(timeout)
        return {
            "reason": end.reason.value,
            "message": end.message,
            "details": end.details,
            "console": guest.console_text,
            "seconds": time.monotonic() - begun,
        }
