"""A Linux guest with two vCPUs, recorded, does again what it did: every register and byte is the same."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from chronovisor.machine.debugger.past import Arrival, Places, Why
from chronovisor.machine.host import Host
from chronovisor.migration.recording import Recording
from chronovisor.migration.replay import Replay
from chronovisor.timebase.types import FREQUENCY, Ticks
from linux_guest.guests import OWN, THREE_LINES, busybox

sys.path.insert(0, str(Path(__file__).parents[1] / "machine"))
from between_processes import send
from recorded import assert_it_repeats_itself

pytestmark = [pytest.mark.oracle, pytest.mark.soak]


def test_every_stretch_of_a_boot_repeats_itself() -> None:
    with Host(clock="virtual", cores=2, ticks_per_instruction=4) as host:
        guest = host.boot(
            OWN.vmlinux(),
            "512M",
            smp=2,
            append="console=hvc0 cryptomgr.notests",
            initrd=busybox(THREE_LINES),
        )
        compared = 0
        # Of each of some parts of the boot, 80 million instructions.
        for seconds in (0.5, 0.1):
            guest.run_for(Ticks(int(FREQUENCY * seconds)))
            recording = Recording(guest, 1 << 30)
            guest.run_for(Ticks(int(FREQUENCY * 0.6)))
            compared += assert_it_repeats_itself(recording)
            guest.recorder = None
        assert compared >= 20


def test_a_boot_is_gone_back_to_its_first_instruction_from_where_it_has_moved_to(tmp_path: Path) -> None:
    """Each stretch is repeated on the way, and its counts of instructions are compared."""
    append, initrd = "console=hvc0 cryptomgr.notests", busybox(THREE_LINES)
    with Host(clock="virtual", cores=2, ticks_per_instruction=4) as host:
        guest = host.boot(OWN.vmlinux(), "512M", smp=2, append=append, initrd=initrd)
        entry = guest.get("PC")
        Recording(guest, 1 << 30)
        guest.run_for(Ticks(FREQUENCY))
        assert guest.end is None
        with Host(1 << 40, clock="virtual", cores=2, ticks_per_instruction=4) as there:
            moved = send(guest, lambda: there, tmp_path, record=1 << 30)
            assert isinstance(moved.recorder, Recording)
            assert moved.recorder.past.last > 20
            past = Replay(moved.recorder)
            nowhere = Places({moved.memory.size - 4}, ())
            assert past.run_back(0, nowhere, lambda: False) == Arrival(Why.BEGINNING, 0)
            assert past.guest is not None
            assert past.guest.get("PC") == entry
