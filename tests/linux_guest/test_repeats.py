"""In virtual time a boot of Debian's kernel repeats itself: what it prints, the tick of every line, and the
number of instructions until it powers off.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest
import soak

from chronovisor.engine.native import library
from chronovisor.engine.native.library import HandlerLibrary
from chronovisor.machine.ending import EndReason
from chronovisor.machine.host import Host
from linux_guest.guests import BOOT_SECONDS, OWN, THREE_LINES, TRIXIE, Kernel, Lines, busybox

pytestmark = pytest.mark.oracle
APPEND = "console=hvc0 cryptomgr.notests"
DATE = "2026-11-28T12:00:00"


@dataclass(frozen=True)
class Boot:
    """A boot in virtual time until the guest powered off."""

    lines: list[tuple[int, str]]
    """Each line, and the tick at which it ended."""
    ticks: int
    """The clock at the end."""
    instructions: int


def boot(kernel: Kernel, smp: int) -> Boot:
    lines = Lines()
    with Host(cores=smp, clock="virtual", engine="regions", ticks_per_instruction=2) as host:
        lines.watch(host.clock)
        guest = host.boot(
            kernel.vmlinux(), "512M", smp=smp, append=APPEND, console=lines, initrd=busybox(THREE_LINES)
        )
        guest.wall_clock.start(DATE)
        end = guest.run(timeout=BOOT_SECONDS)
        lines.end()
        statistics = guest.statistics()
        ticks = host.clock.source.ticks()
    assert end.reason is EndReason.POWER_OFF, lines.text[-2000:]
    assert "init: running" in lines.lines
    assert statistics is not None
    assert len(lines.lines) > 150
    assert len(set(lines.times)) > 100
    assert statistics.instructions.total > 100_000_000
    return Boot(list(zip(lines.times, lines.lines, strict=True)), ticks, statistics.instructions.total)


def check_repeats(kernel: Kernel, smp: int, times: int) -> None:
    first = boot(kernel, smp)
    for _ in range(times - 1):
        assert boot(kernel, smp) == first


def test_a_boot_repeats_itself() -> None:
    check_repeats(OWN, 1, 2)


@pytest.mark.soak
def test_a_boot_repeats_itself_whichever_evaluator_runs_an_instruction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The concrete evaluator runs all rare instructions in the second boot."""
    first = boot(OWN, 1)
    with monkeypatch.context() as without:
        # New libraries, which have the everyday handlers alone.
        without.setattr(library, "_library", cache(HandlerLibrary))
        without.setattr(HandlerLibrary, "want", lambda *_: False)
        assert boot(OWN, 1) == first


@pytest.mark.soak
@pytest.mark.parametrize("smp", [1, 2])
@pytest.mark.parametrize("kernel", [OWN, TRIXIE], ids=["own", "trixie"])
def test_ten_boots_are_the_same(kernel: Kernel, smp: int) -> None:
    check_repeats(kernel, smp, 10 if (kernel, smp) == (OWN, 1) else max(2, soak.share(10)))
