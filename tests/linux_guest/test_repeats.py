"""In virtual time a boot of Debian's kernel repeats itself: what it prints, and the tick of every line."""

from __future__ import annotations

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


def boot(kernel: Kernel, smp: int) -> list[tuple[int, str]]:
    """Boot in virtual time until the guest powers off; each line, and the tick at which it ended."""
    lines = Lines()
    with Host(cores=smp, clock="virtual", engine="regions", ticks_per_instruction=2) as host:
        lines.watch(host.clock)
        guest = host.boot(
            kernel.vmlinux(), "512M", smp=smp, append=APPEND, console=lines, initrd=busybox(THREE_LINES)
        )
        guest.wall_clock.start(DATE)
        end = guest.run(timeout=BOOT_SECONDS)
        lines.end()
    assert end.reason is EndReason.POWER_OFF, lines.text[-2000:]
    assert "init: running" in lines.lines
    return list(zip(lines.times, lines.lines, strict=True))


def check_repeats(kernel: Kernel, smp: int, times: int) -> None:
    first = boot(kernel, smp)
    assert len(first) > 150
    assert len({tick for tick, _ in first}) > 100
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
    assert len(first) > 150
    assert len({tick for tick, _ in first}) > 100
    with monkeypatch.context() as without:
        # New libraries, which have the everyday handlers alone.
        without.setattr(library, "_library", cache(HandlerLibrary))
        without.setattr(HandlerLibrary, "want", lambda *_: False)
        assert boot(OWN, 1) == first


@pytest.mark.soak
@pytest.mark.parametrize("smp", [1, 2])
@pytest.mark.parametrize("kernel", [OWN, TRIXIE], ids=["own", "trixie"])
def test_ten_boots_are_the_same(kernel: Kernel, smp: int) -> None:
    check_repeats(kernel, smp, max(2, soak.share(10)))
