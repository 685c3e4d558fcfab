"""Guests that never leave to user space by themselves: they spin, idle in H_CEDE, or write without a pause.

Whatever reads a register of such a guest has to kick its vCPU out first, or it waits for ever.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chronovisor.isa.assembly import assemble
from chronovisor.machine import Guest, Host
from chronovisor.machine.dispatch_log_reader import vcpus_with_log
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.migration.pause import Pause
from chronovisor.migration.snapshot import snapshot
from chronovisor.timebase.types import Ticks

sys.path.insert(0, str(Path(__file__).parents[1] / "machine"))
from elf_files import Elf, Part

ENTRY = 0x10000
WRITTEN = 0x100000
"""Where the guest writes that writes: a page for each step, through this much memory."""
CODE = {
    "spins": "again: addi r3,r3,1; b again",
    "idles": "lis r4,0x7fff; mtspr 22,r4; again: li r3,0xe0; sc 1; b again",
    # r5 counts the laps; each lap writes r5 to each of 32 pages.
    "writes": "li r5,0; lap: addi r5,r5,1; lis r6,0x10; li r7,32; mtspr 9,r7; "
    "page: std r5,0(r6); addi r6,r6,4096; bdnz page; b lap",
}


@pytest.fixture(params=CODE)
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    code = assemble(CODE[request.param], ENTRY, False)
    with Host(tb_origin=1 << 40, engine="concrete") as host:
        guest = host.boot(Elf([Part(code, ENTRY)], ENTRY, little=False).build(), "4M")
        guest.resume()
        yield guest


def in_time(action: Callable[[], object]) -> None:
    """Do it on a thread, so that a wait without an end fails this test and nothing else."""
    failures: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it waits for a guest that does not leave by itself"
    assert not failures, failures


def test_it_moves_while_it_runs(guest: Guest) -> None:
    with Host(tb_origin=1, engine="concrete") as away:
        moved: list[Guest] = []
        in_time(lambda: moved.append(move(guest, away, Link([Ticks(1000)]))[0]))
        assert moved[0].running
        moved[0].pause()
        before = moved[0].get("R3"), moved[0].get("R5"), moved[0].get("DEC_EXPIRY")
        lap = int.from_bytes(moved[0].memory.read(WRITTEN, 8), "big")
        assert before[1] - 1 <= lap <= before[1]
        moved[0].run_for(Ticks(512_000))
        assert (moved[0].get("R3"), moved[0].get("R5")) != before[:2] or before[2] > 0


@pytest.mark.parametrize("what", ["its offset", "a register", "its logs", "a pause", "a snapshot"])
def test_it_is_looked_at_while_it_runs(guest: Guest, tmp_path: Path, what: str) -> None:
    looks: dict[str, Callable[[], object]] = {
        "its offset": lambda: guest.offset,
        "a register": lambda: guest.decrementer_bits,
        "its logs": lambda: vcpus_with_log(guest),
        "a pause": lambda: Pause(guest).resume(),
        "a snapshot": lambda: snapshot(guest, tmp_path / "saved"),
    }
    in_time(looks[what])
    assert guest.running
