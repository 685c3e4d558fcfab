"""Files that somebody made on purpose: always a clean error, or a guest; never more memory than allowed."""

from __future__ import annotations

import random
from io import BytesIO
from pathlib import Path

import pytest
from snapshot_files import mutated
from timer_guest import timer_guest

from chronovisor.machine.errors import MachineError
from chronovisor.machine.host import Host
from chronovisor.memory import GuestMemory
from chronovisor.migration import snapshot_format as form
from chronovisor.migration.snapshot import snapshot
from chronovisor.migration.snapshot_format import SectionReader, SnapshotError
from chronovisor.migration.snapshot_restore import read_contents, restore_from
from chronovisor.timebase.policy import CATCH_UP, FREEZE, TimePolicy
from chronovisor.timebase.types import Ticks

CASES = 4_000
RESTORED = 300
MEMORY_LIMIT = 4 << 20


class WatchedFile(BytesIO):
    """A file that knows how much was ever asked of it at once."""

    largest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.largest = max(self.largest, size or 0)
        return super().read(size)

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        self.largest = max(self.largest, len(buffer))
        return super().readinto(buffer)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return small_snapshot(tmp_path_factory.mktemp("fuzz") / "small")


def small_snapshot(path: Path) -> bytes:
    """A snapshot of a small guest with two vCPUs and some history."""
    with Host(clock="virtual", cpu="power8", threads=2) as host:
        guest = host.boot(timer_guest(), memory="1M", smp=2, threads=2)
        for offset in (1, 1 << 63):
            guest.set("TB_OFFSET", offset)
        guest.run_for(Ticks(1 << 20))
        guest.console.type("typed")
        snapshot(guest, path)
    return path.read_bytes()


def one_line(error: Exception) -> None:
    assert str(error)
    assert str(error).isprintable()


def read(data: bytes) -> bool:
    """Whether it was taken for a snapshot."""
    file = WatchedFile(data)
    try:
        reader = SectionReader(file)
        if reader.header.memory_size > MEMORY_LIMIT:
            return False
        read_contents(reader, GuestMemory(reader.header.memory_size))
    except SnapshotError as error:
        one_line(error)
        return False
    finally:
        assert file.largest <= max(form.LIMITS.values())
    return True


def campaign(whole: bytes, seed: int, cases: int) -> int:
    """Read so many changed files; how many were taken."""
    chance = random.Random(seed)
    assert read(whole)
    return sum(read(mutated(chance, whole)) for _ in range(cases))


def test_changed_files_are_read_or_refused(whole: bytes) -> None:
    taken = campaign(whole, seed=1, cases=CASES)
    # Registers and memory may be anything: some of them are snapshots, of other guests.
    assert CASES // 50 < taken < CASES // 2


def test_changed_files_are_restored_or_refused(whole: bytes) -> None:
    chance, restored = random.Random(2), 0
    with Host(clock="virtual", cpu="power8", threads=2) as host:
        for _ in range(RESTORED):
            policy = chance.choice((FREEZE, CATCH_UP, TimePolicy(Ticks(1000))))
            try:
                reader = SectionReader(BytesIO(mutated(chance, whole)))
                made = restore_from(reader, host, policy=policy, memory_limit=MEMORY_LIMIT)
            except MachineError as error:
                one_line(error)
            else:
                restored += 1
                made.start().run_for(Ticks(10_000))
                host.discard(made.guest)
            assert host.guests == []
    assert restored > 3
