"""Snapshots as files: what comes back, what is refused, and what is left when writing fails."""

from __future__ import annotations

import errno
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snapshot_files import resealed
from timer_guest import timer_guest

import chronovisor as cv
from chronovisor.machine import vcpu_state
from chronovisor.machine.errors import MachineError
from chronovisor.machine.host import Host
from chronovisor.memory import GuestMemory
from chronovisor.migration.guest_encoding import MAXIMUM_TYPED
from chronovisor.migration.snapshot import NotSavedError, snapshot
from chronovisor.migration.snapshot_format import SectionReader, SnapshotError
from chronovisor.migration.snapshot_restore import inspect, opened, read_contents, restore_from
from chronovisor.migration.snapshot_time import ClockReading, Moment, SavedTime, read_clocks
from chronovisor.timebase.clock import HostClock, RealTime, TickSource, VirtualTime
from chronovisor.timebase.history import MAXIMUM_HOPS, AwayClock, Hop
from chronovisor.timebase.policy import CATCH_UP, FREEZE, TimePolicy
from chronovisor.timebase.types import FREQUENCY, MASK64, GuestTime, Offset, Ticks

MS = 512_000
SECOND = 1_000_000_000


@pytest.fixture
def host() -> Iterator[Host]:
    with Host(clock="virtual", tb_origin=12_345, cores=2) as made:
        yield made


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of a small guest."""
    path = tmp_path_factory.mktemp("snapshot") / "small"
    with Host(clock="virtual") as made:
        guest = made.boot(timer_guest(), memory="1M", tb_offset=1 << 50)
        guest.run_for(Ticks(MS))
        guest.name = "small"
        guest.console.type("typed")
        snapshot(guest, path)
    return path


def test_a_guest_comes_back_as_it_was(host: Host, tmp_path: Path) -> None:
    guest = host.boot("demo-le.elf", memory="16M", smp=2, append="vcpus=2")
    guest.run_for(Ticks(20 * MS))
    guest.memory.write((16 << 20) - 4, b"last")
    guest.console.type("rq")
    state, vcpus = guest.machine_state, [vcpu_state.save(vcpu) for vcpu in guest.vcpus]
    made = snapshot(guest, tmp_path / "file")

    contents = inspect(tmp_path / "file")
    assert (contents.header, contents.machine) == (made.header, state)
    assert list(contents.vcpus) == vcpus
    assert contents.typed == b"rq"
    with opened(tmp_path / "file") as reader:
        again = restore_from(reader, host).start(running=False)
    assert bytes(again.memory.view) == bytes(guest.memory.view)
    assert again.machine_state.stopped == state.stopped
    assert [replace(vcpu_state.save(vcpu), dec_expiry=0) for vcpu in again.vcpus] == [
        replace(vcpu, dec_expiry=0) for vcpu in vcpus
    ]
    assert again.run(60).ok
    assert again.console_text.count("memory=intact") == 2
    # What it draws by H_RANDOM goes on too.
    assert again.random.getstate() == state.random_state


def test_all_that_a_guest_can_have_fits(tmp_path: Path) -> None:
    with Host(clock="virtual", cores=256) as host:
        guest = host.boot(timer_guest(), memory="16M", smp=256)
        hop = Hop.set_by_owner(host.timebase, Offset(0), Offset(MASK64 + 1 - (1 << 24)), MASK64)
        for _ in range(MAXIMUM_HOPS + 11):
            guest.history = guest.history.then(hop)
        guest.console.type(b"x" * MAXIMUM_TYPED)
        snapshot(guest, tmp_path / "file")
        contents = inspect(tmp_path / "file")
        assert (len(contents.vcpus), len(contents.typed)) == (256, MAXIMUM_TYPED)
        assert contents.machine.history == guest.history
        assert contents.machine.history.folded == 11
        guest.console.type("y")
        with pytest.raises(MachineError, match="typed input of 65537 bytes"):
            snapshot(guest, tmp_path / "file")
        assert inspect(tmp_path / "file") == contents


def test_its_size_is_that_of_the_memory_in_use(host: Host, tmp_path: Path) -> None:
    guest = host.boot(timer_guest(), memory="1G")
    before = snapshot(guest, tmp_path / "file").size
    guest.memory.write(300 << 20, b"\x01" * (5 << 20))
    after = snapshot(guest, tmp_path / "file")
    assert after.size == (tmp_path / "file").stat().st_size
    assert (5 << 20) <= after.size - before <= (5 << 20) + 1000
    assert after.header.in_use == sum(size for _, size in inspect(tmp_path / "file").runs)
    assert before < 100_000


def test_the_header_is_plain(saved: Path) -> None:
    """Read by hand, at the offsets that the format's description gives."""
    data = saved.read_bytes()
    assert data[:8] == b"\x89CHRSNP\n"
    assert struct.unpack_from(">HHIQI", data, 8) == (3, 144, 1, 1 << 20, 1)
    assert struct.unpack_from(">I", data, 28) == (0x4E1200,)
    assert struct.unpack_from(">Q", data, 32) == (FREQUENCY,)
    assert struct.unpack_from(">Q", data, 40)[0] == sum(size for _, size in inspect(saved).runs)
    assert struct.unpack_from(">I", data, 48) == (32,)
    assert struct.unpack_from(">Q", data, 56)[0] >> 50 == 1
    assert data[72:136].rstrip(b"\0") == b"small"
    assert struct.unpack_from(">I", data, 140)[0] == crc32(data[:140])
    assert data[144:148] == b"TIME"


def refusal(data: bytes) -> str:
    """Read all of it; the line that it is refused with."""
    with pytest.raises(SnapshotError) as caught:
        read_whole(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read_whole(data: bytes) -> None:
    reader = SectionReader(BytesIO(data))
    read_contents(reader, GuestMemory(reader.header.memory_size))


@settings(max_examples=500, deadline=None)
@given(st.data(), st.integers(1, 255))
def test_a_change_in_any_byte_is_found(saved: Path, data: st.DataObject, change: int) -> None:
    damaged = bytearray(saved.read_bytes())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= change
    refusal(bytes(damaged))


def test_an_end_anywhere_is_found(saved: Path) -> None:
    whole = saved.read_bytes()
    read_whole(whole)
    for end in [*range(600), *range(600, len(whole), 97), *range(len(whole) - 100, len(whole))]:
        refusal(whole[:end])
    assert "end" in refusal(whole + b"\0")


def test_another_version_is_refused_by_its_number(saved: Path) -> None:
    whole = saved.read_bytes()
    assert "version 7" in refusal(whole[:8] + struct.pack(">H", 7) + bytes(3))
    assert "update it" in refusal(whole[:8] + struct.pack(">H", 7) + whole[10:])
    assert "version 0" in refusal(whole[:8] + struct.pack(">H", 0) + whole[10:])


def test_a_section_that_lies_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    assert resealed(bytearray(whole)) == whole
    first_memory = whole.index(b"MEMO")

    def changed(at: int, form_: str, value: int) -> str:
        data = bytearray(whole)
        struct.pack_into(form_, data, at, value)
        return refusal(resealed(data))

    assert "memory for" in changed(first_memory + 8, ">Q", 1 << 40)
    assert "no pages in turn" in changed(first_memory + 8, ">Q", 0x123)
    second_memory = whole.index(b"MEMO", first_memory + 4)
    first_address = struct.unpack_from(">Q", whole, first_memory + 8)[0]
    assert "no pages in turn" in changed(second_memory + 8, ">Q", first_address)
    assert "'MEMO' of 4293918720 bytes" in changed(first_memory + 4, ">I", 0xFFF0_0000)
    assert "another guest" in changed(56, ">Q", 1)
    assert "makes no sense" in changed(16, ">Q", 1 << 61)
    assert "makes no sense" in changed(24, ">I", 0)
    assert "makes no sense" in changed(72, ">I", 0x1B5B_324A)
    assert "end" in changed(40, ">Q", 0)


def test_more_memory_than_the_limit_is_refused_before_any_is_taken(saved: Path, host: Host) -> None:
    data = bytearray(saved.read_bytes())
    struct.pack_into(">Q", data, 16, 1 << 45)
    path = saved.with_name("huge")
    path.write_bytes(resealed(data))
    with opened(path) as reader, pytest.raises(MachineError, match="--memory-limit"):
        restore_from(reader, host)
    assert host.guests == []
    with opened(saved) as reader, pytest.raises(MachineError, match="--memory-limit"):
        restore_from(reader, host, memory_limit=(1 << 20) - 1)


@pytest.mark.parametrize(
    ("facts", "words"),
    [({"cpu": "power8"}, "version 0x4e1200"), ({"cpu": "ppc970"}, "version")],
)
def test_a_host_that_cannot_have_it_says_why(saved: Path, facts: dict[str, str], words: str) -> None:
    with Host(clock="virtual", **facts) as other:  # type: ignore[arg-type]
        with opened(saved) as reader, pytest.raises(MachineError, match=words):
            restore_from(reader, other)
        assert other.guests == []


def test_a_damaged_file_leaves_nothing_on_the_host(saved: Path, host: Host) -> None:
    path = saved.with_name("damaged")
    path.write_bytes(saved.read_bytes()[:-1])
    with pytest.raises(SnapshotError, match=f"{path}: it is cut off"), opened(path) as reader:
        restore_from(reader, host)
    assert host.guests == []


def test_from_python_in_two_lines(tmp_path: Path) -> None:
    time = cv.VirtualTime()
    with cv.Host(clock=time) as home, cv.Host(clock=time, tb_origin=10**18) as away:
        guest = home.boot("hello-le.elf", memory="1M")
        cv.snapshot(guest, tmp_path / "file")
        time.advance(FREQUENCY)
        again, record = cv.restore(tmp_path / "file", away, policy="bounded:0.5")
        assert record.counted_ticks == FREQUENCY // 2
        assert again.run(60).ok
        with pytest.raises(ValueError, match="write freeze"):
            cv.restore(tmp_path / "file", away, policy="never")


# Writing


def leftovers(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_full_disk_leaves_the_old_file(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = host.boot(timer_guest(), memory="1M")
    snapshot(guest, tmp_path / "file")
    before = (tmp_path / "file").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    guest.run_for(Ticks(MS))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(NotSavedError, match="No space left"):
            snapshot(guest, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == before
    assert leftovers(tmp_path) == ["file"]
    # So does one that is full at any write: here the largest file that the process may make.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (0, 100, 5000, len(before) - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(NotSavedError, match="File too large"):
                snapshot(guest, tmp_path / "file")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (tmp_path / "file").read_bytes() == before
        assert leftovers(tmp_path) == ["file"]
    assert guest.run_for(Ticks(MS)) is None


KILLED = """
import os, signal, sys
from chronovisor.machine.host import Host
from chronovisor.migration import snapshot_format
from chronovisor.migration.snapshot import snapshot
written = 0
def section(self, kind, payload, addr=0, real=snapshot_format.SectionWriter.section):
    global written
    written += 1
    if written == int(sys.argv[2]):
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, kind, payload, addr)
with Host(clock="virtual") as host:
    guest = host.boot("hello-le.elf", memory="1M")
    snapshot(guest, sys.argv[1])
    snapshot_format.SectionWriter.section = section
    guest.memory.write(0x80000, b"new")
    snapshot(guest, sys.argv[1])
"""


@pytest.mark.parametrize("at", [1, 4])
def test_a_kill_leaves_the_old_file(tmp_path: Path, at: int) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "file"), str(at)], timeout=120)
    assert done.returncode == -9
    assert inspect(tmp_path / "file").header.memory_size == 1 << 20
    assert all(addr != 0x80000 for addr, _ in inspect(tmp_path / "file").runs)
    assert len(leftovers(tmp_path)) == 2


def test_only_its_owner_can_read_it(saved: Path) -> None:
    assert saved.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_written_to(host: Host, tmp_path: Path) -> None:
    guest = host.boot(timer_guest(), memory="1M")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path, words in {
        tmp_path / "directory": "no file that could be replaced",
        tmp_path / "pipe": "no file that could be replaced",
        tmp_path / "nowhere" / "file": "No such file",
        tmp_path / ("x" * 300): "too long",
    }.items():
        with pytest.raises(NotSavedError, match=words):
            snapshot(guest, path)
    (tmp_path / "link").symlink_to("target")
    snapshot(guest, tmp_path / "link")
    assert leftovers(tmp_path) == ["directory", "link", "pipe", "target"]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in {
        tmp_path: "not a regular file",
        tmp_path / "pipe": "not a regular file",
        tmp_path / "nowhere": "No such file",
        Path("/dev/zero"): "not a regular file",
        Path(sys.executable): "no snapshot",
    }.items():
        with pytest.raises(SnapshotError, match=words):
            inspect(path)


def test_a_guest_that_cannot_be_saved(host: Host, tmp_path: Path) -> None:
    guest = host.boot("hello-le.elf", memory="1M", smp=2)
    guest.set("TB_OFFSET", 1 << 40, 1)
    with pytest.raises(MachineError, match="different timebase offsets"):
        snapshot(guest, tmp_path / "file")
    guest.set("TB_OFFSET", 0, 1)
    guest.run(60)
    with pytest.raises(MachineError, match="has ended"):
        snapshot(guest, tmp_path / "file")
    assert leftovers(tmp_path) == []


# The time in a file


def reading(boot: str, boot_s: float, day_s: float, virtual: str = "", ticks: int = 0) -> ClockReading:
    def moment(seconds: float) -> Moment:
        return Moment(int(seconds * SECOND), int(seconds * SECOND) + 1000)

    return ClockReading(virtual, ticks, boot, moment(boot_s), moment(day_s))


HERE = HostClock(VirtualTime(), 7)


def away(before: ClockReading, after: ClockReading, policy: TimePolicy = CATCH_UP) -> tuple[str, float, int]:
    clock, absence = SavedTime(GuestTime(5), Ticks(0), 0, before).away(HERE, after, policy)
    middle = (absence.least_elapsed + absence.most_elapsed) / 2 / FREQUENCY
    return str(clock), round(middle, 3), absence.round_trip.value


def test_by_which_clock_the_time_away_is_known() -> None:
    monday = reading("one", 100, 5000)
    assert away(monday, reading("one", 107, 9999)) == ("boot clock", 7, 1024)
    assert away(monday, reading("two", 3, 5020)) == ("wall clock", 20, 1024)
    assert away(reading("", 100, 5000), reading("", 107, 5001)) == ("wall clock", 1, 1024)
    virtual = reading("one", 100, 5000, "a virtual clock", 1000)
    assert away(virtual, reading("two", 1, 1, "a virtual clock", 1000 + FREQUENCY)) == ("host clock", 1, 0)
    # It may have been paused before.
    _, absence = SavedTime(GuestTime(5), Ticks(99), 0, virtual).away(HERE, virtual, CATCH_UP)
    assert (absence.least_elapsed, absence.most_elapsed) == (99, 99)


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (reading("one", 99, 9999), "in the future"),
        (reading("two", 3, 4999), "by the wall clock the guest was saved 1.000 s in the future"),
        (reading("one", 107, 5007, "a virtual clock"), "go on in a virtual clock"),
        (reading("two", 107, 3e9), "no guest was away for 2999995000 s"),
    ],
)
def test_a_time_away_that_cannot_count_is_refused(after: ClockReading, words: str) -> None:
    for policy in (CATCH_UP, TimePolicy(Ticks(1))):
        with pytest.raises(MachineError, match=words):
            away(reading("one", 100, 5000), after, policy)
    # Where none of it is to count there is nothing to refuse.
    assert away(reading("one", 100, 5000), after, FREEZE) == (AwayClock.NONE, 0, 0)


def test_the_clocks_of_this_machine() -> None:
    first, second = read_clocks(RealTime()), read_clocks(RealTime())
    assert first.boot == second.boot != ""
    assert first.virtual == second.virtual == ""
    least, most = first.boot_time.ticks_until(second.boot_time)
    assert 0 <= least <= second.ticks - first.ticks + 1
    assert second.ticks - first.ticks - 1 <= most
    one, other = VirtualTime(), VirtualTime()
    assert read_clocks(one).virtual == read_clocks(one).virtual != read_clocks(other).virtual


@pytest.mark.parametrize("origin", [0, 5, 1 << 63, MASK64])
@pytest.mark.parametrize("offset", [0, 1 << 60, MASK64 + 1 - (1 << 24)])
def test_a_host_that_lived_shorter_than_the_guest(origin: int, offset: int, tmp_path: Path) -> None:
    old = VirtualTime(1 << 55)
    with Host(clock=old, tb_origin=origin) as home, Host(clock=VirtualTime(), tb_origin=3) as young:
        guest = home.boot("demo-le.elf", memory="1M", tb_offset=offset)
        guest.run_for(Ticks(10 * MS))
        before = guest.timebase()
        snapshot(guest, tmp_path / "file")
        with opened(tmp_path / "file") as reader:
            restored = restore_from(reader, young).start(running=False)
        assert 0 <= (restored.timebase() - before).value <= 1 << 24
        restored.console.type("q")
        assert restored.run(60).ok
        assert " back=0 " in restored.console_text
        assert "lost=0" in restored.console_text


def test_catching_up_by_the_clocks_that_are_there(tmp_path: Path) -> None:
    """The wall clock is taken where the boot is another, and said to be no more than that."""

    def later(source: TickSource) -> ClockReading:
        now = read_clocks(source)
        day = now.time_of_day.not_before + 3600 * SECOND
        return replace(now, boot="another", time_of_day=Moment(day, day))

    with Host(clock="real") as home, Host(clock="real", tb_origin=1 << 61) as other:
        guest = home.boot(timer_guest(), memory="1M")
        snapshot(guest, tmp_path / "file")
        for read, clock, seconds in ((read_clocks, AwayClock.BOOT, 0), (later, AwayClock.WALL, 3600)):
            with opened(tmp_path / "file") as reader:
                hop = restore_from(reader, other, policy=CATCH_UP, read=read).hop
            assert hop.clock == clock
            assert hop.record.counted_ticks == hop.record.elapsed_ticks
            assert seconds <= hop.record.elapsed_ticks / FREQUENCY < seconds + 60
