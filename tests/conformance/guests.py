"""Guests that Chronovisor ships, run to their end on a provider."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chronovisor.cli.demo.side import REAL_PATIENCE
from chronovisor.cli.demo.watched import ask_for_report
from chronovisor.machine.files import SHIPPED
from chronovisor.machine.host import Host
from chronovisor.migration.snapshot import snapshot
from chronovisor.migration.snapshot_restore import restore
from chronovisor.timebase.types import Ticks


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


def watch(provider: str, image: str, smp: int = 1, seconds: float = 0.5) -> dict[str, Any]:
    """Have the guest that watches its own time run for a while, with an offset; its report."""
    with Host(provider=provider, cores=smp) as host:
        guest = host.boot(SHIPPED / image, "16M", smp=smp, tb_offset=1 << 50)
        guest.run_for(Ticks.from_ns(int(seconds * 1e9)))
        report = ask_for_report(guest, REAL_PATIENCE)
        if report["expected"] != report["taken"]:
            # One that was due that very moment is there by the next report; a lost one never is.
            report = ask_for_report(guest, REAL_PATIENCE)
        return asdict(report)


def save(provider: str, path: Path) -> dict[str, Any]:
    """Have the guest that watches its own time run, and save it; its report."""
    with Host(provider=provider) as host:
        guest = host.boot(SHIPPED / "demo-le.elf", "16M", tb_offset=5 << 40)
        report = ask_for_report(guest, REAL_PATIENCE)
        snapshot(guest, path)
        return asdict(report)


def go_on(provider: str, path: Path) -> dict[str, Any]:
    """Have the guest of a snapshot go on, and save it there again; its report."""
    with Host(provider=provider) as host:
        guest, _ = restore(path, host)
        report = ask_for_report(guest, REAL_PATIENCE)
        snapshot(guest, path)
        return asdict(report)
