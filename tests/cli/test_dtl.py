"""`dtl`: logs of running guests, out of memory dumps, and out of Linux's files."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chronovisor.cli import main
from chronovisor.cli.running import run_named
from chronovisor.cli.status import ExitStatus
from chronovisor.machine.errors import MachineError
from chronovisor.machine.host import Host
from chronovisor.papr.vpa import (
    DTL_ENTRY_SIZE,
    VPA_DTL_INDEX,
    DispatchLogEntry,
    DispatchReason,
    PreemptReason,
)

TICKS = 512_000_000


def entry(number: int, timebase: int, by: DispatchReason = DispatchReason.TIME_SLICE) -> DispatchLogEntry:
    return DispatchLogEntry(by, PreemptReason.CEDE, number, 512, 1024, 256, timebase, 0, 0xC000 + number, 1)


def packed(*entries: DispatchLogEntry) -> bytes:
    return b"".join(one.pack() for one in entries)


class Command:
    """`chronovisor dtl` as people use it."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        status = main(["dtl", *arguments])
        printed = self._capsys.readouterr()
        return status, printed.out, printed.err

    def shows(self, *arguments: str) -> str:
        status, out, err = self(*arguments)
        assert (status, err) == (0, "")
        return out

    def fails(self, words: str, *arguments: str) -> None:
        status, out, err = self(*arguments)
        assert (status, out) == (ExitStatus.USAGE, "")
        assert err.startswith('{"error": ' if "--json" in arguments else "chronovisor: ")
        assert err.count("\n") == 1
        assert words in err


@pytest.fixture
def dtl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("CHRONOVISOR_RUN_DIR", str(tmp_path / "run"))
    return Command(capsys)


# Files


def test_a_log_of_linux_as_a_table_and_for_programs(dtl: Command, tmp_path: Path) -> None:
    path = tmp_path / "cpu-3"
    path.write_bytes(
        packed(entry(3, 10**15), entry(3, 10**15 + TICKS // 1000, DispatchReason.DECREMENTER_INTERRUPT))
    )
    heading, units, first, second = dtl.shows(str(path)).splitlines()
    assert heading.split()[:2] == ["entry", "timebase"]
    assert units.split() == ["ticks", *["µs"] * 4]
    assert first.split() == [
        *("0", "1000000000000000", "0.000", "0.500", "2.000", "1.000", "3"),
        *("time", "slice", "cede", "0x000000000000c003"),
    ]
    assert second.split()[1:3] == ["1000000000512000", "1000.000"]
    assert "decrementer interrupt" in second
    shown = json.loads(dtl.shows(str(path), "--json"))
    assert shown["frequency"] == TICKS
    (log,) = shown["logs"]
    assert (log["vcpu"], log["lost"]) == (None, None)
    assert [e["timebase"] for e in log["entries"]] == [10**15, 10**15 + TICKS // 1000]
    rows = list(csv.DictReader(io.StringIO(dtl.shows(str(path), "--csv"))))
    assert rows[1]["since_first_us"] == "1000.0"
    assert (rows[1]["dispatch_reason"], rows[1]["dispatched_by"]) == ("3", "decrementer interrupt")
    assert [row["enqueue_to_dispatch"] for row in rows] == ["512", "512"]
    assert " 0.001 " in dtl.shows(str(path), "--frequency", "512000000000")


def test_a_file_that_is_read_for_a_while(dtl: Command, tmp_path: Path) -> None:
    """As Linux's own, which has entries only behind the moment at which it was opened."""
    path = tmp_path / "cpu-0"
    path.write_bytes(b"")
    threading.Timer(0.2, lambda: path.write_bytes(packed(entry(0, 5)))).start()
    assert dtl.shows(str(path), "--seconds", "1.5").splitlines()[-1].split()[:2] == ["0", "5"]


def test_a_log_in_a_memory_dump(dtl: Command, tmp_path: Path) -> None:
    memory = bytearray(0x4000)
    ring, vpa, length = 0x2000, 0x1000, 3 * DTL_ENTRY_SIZE + 5
    for n in range(5):
        at = ring + n % 3 * DTL_ENTRY_SIZE
        memory[at : at + DTL_ENTRY_SIZE] = entry(n, 100 + n).pack()
    at = vpa + VPA_DTL_INDEX.offset
    memory[at : at + VPA_DTL_INDEX.size] = VPA_DTL_INDEX.pack(5)
    path = tmp_path / "dump"
    path.write_bytes(memory)
    where = (str(path), "--address", hex(ring), "--length", str(length))
    lines = dtl.shows(*where, "--vpa", hex(vpa)).splitlines()
    assert [line.split()[:2] for line in lines[2:5]] == [["2", "102"], ["3", "103"], ["4", "104"]]
    assert lines[5] == "2 earlier entries are lost: overwritten"
    without = dtl.shows(*where).splitlines()
    assert [line.split()[1] for line in without[2:]] == ["102", "103", "104"]
    dtl.fails("the log would end at 0x4001", str(path), "--address", "0x3fff", "--length", "2")
    dtl.fails("the virtual processor area would end at", *where, "--vpa", "0x3fff")
    dtl.fails("47 bytes holds no entry", str(path), "--address", "0", "--length", "47")
    dtl.fails("--address also needs --length", str(path), "--address", "0")
    dtl.fails("give its log's address by --address", str(path), "--length", "48")
    dtl.fails("address 'here' is no number", str(path), "--address", "here", "--length", "48")


@pytest.mark.parametrize(
    ("words", "data"),
    [
        ("cut short", packed(entry(0, 5))[:-1]),
        ("the file is empty", b""),
        ("no dispatch reason 35", b"#!/bin/sh\n" * 24),
        ("time goes back", packed(entry(0, 5), entry(1, 4))),
        ("has no time", bytes(2 * DTL_ENTRY_SIZE)),
    ],
)
def test_files_that_are_no_log(words: str, data: bytes, dtl: Command, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    dtl.fails(words, str(path))


def test_what_cannot_be_right_is_shown_by_force(dtl: Command, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(packed(entry(0, 5), entry(1, 4), DispatchLogEntry(99, 0, 0, 0, 0, 0, 6, 0, 0, 0)))
    status, out, err = dtl(str(path), "--force")
    assert status == ExitStatus.FAILED
    assert "-0.002" in out
    assert "reason 99" in out
    assert (
        err
        == f"chronovisor: {path}: entry 2: there is no dispatch reason 99; is this a dispatch trace log?\n"
    )


def test_what_makes_no_sense_is_refused(dtl: Command, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(packed(entry(0, 5)))
    dtl.fails("choose one of --csv and --json", str(path), "--csv", "--json")
    dtl.fails("--vcpu is for a running guest", str(path), "--vcpu", "0")
    dtl.fails("no guest named nobody", "nobody")
    dtl.fails("--seconds is for files, and there is no file nobody", "nobody", "--seconds", "1")
    dtl.fails("No such file", str(tmp_path / "none"))
    dtl.fails("directory", str(tmp_path))
    dtl.fails("--frequency", str(path), "--frequency", "0")


# Guests


@pytest.fixture
def host() -> Iterator[Host]:
    with Host(engine="concrete", tb_origin=10**15) as made:
        yield made


def test_the_log_of_a_guest_from_python(host: Host) -> None:
    guest = host.boot("demo-le.elf", "2M")
    with pytest.raises(MachineError, match="no dispatch trace log is registered for vCPU 0"):
        guest.dispatch_log()
    with pytest.raises(MachineError, match="there is no vCPU 7"):
        guest.dispatch_log(7)
    assert guest.run_until("watching")
    log = guest.dispatch_log()
    assert log.lost == 0
    assert [e.timebase for e in log.entries] == sorted(e.timebase for e in log.entries)
    assert 10**15 < log.entries[0].timebase <= log.entries[-1].timebase <= guest.timebase().value
    # Of a log that is full, a guest that stands still still has all of it.
    guest.console.type(b"x" * 2)
    guest.run_for(host.clock.at(TICKS // 2) - host.clock.at(0))
    log = guest.dispatch_log()
    assert len(log.entries) == 85
    assert log.lost
    assert log.lost > 0


def test_the_logs_of_a_running_guest(dtl: Command, host: Host) -> None:
    guest = host.boot("demo-le.elf", "4M", smp=3, append="vcpus=2")
    done: list[Any] = []
    runner = threading.Thread(target=lambda: done.append(run_named(guest, "one", 60)), daemon=True)
    assert guest.run_until("watching")
    # vCPU 2 is not started. A log so long that one answer does not hold it, full to its end.
    count, vpa, log = 10_000, 0x20_0000, 0x20_1000
    guest.set("VPA_ADDR", vpa, 2)
    guest.set("VPA_DTL", log << 64 | count * DTL_ENTRY_SIZE, 2)
    guest.memory.write(log, packed(*(entry(n, 10**15 + n) for n in range(count))))
    guest.memory.write(vpa + VPA_DTL_INDEX.offset, VPA_DTL_INDEX.pack(count))
    runner.start()
    try:
        while dtl("one")[0] != 0:
            assert runner.is_alive()
        shown = json.loads(dtl.shows("one", "--json"))
        assert shown["frequency"] == TICKS
        assert [one["vcpu"] for one in shown["logs"]] == [0, 2]
        first, second = shown["logs"]
        times = [e["timebase"] for e in first["entries"]]
        assert times
        assert times == sorted(times)
        assert second["entries"][-1]["entry"] == count - 1
        assert len(second["entries"]) + second["lost"] == count
        assert len(second["entries"]) >= count - 1
        lines = dtl.shows("one", "--vcpu", "0").splitlines()
        assert lines[0] == "vCPU 0"
        dtl.fails("no vCPU 5", "one", "--vcpu", "5")
        dtl.fails("--address is for files", "one", "--address", "0")
        guest.set("VPA_DTL", 0, 2)
        dtl.fails("no dispatch trace log is registered for vCPU 2", "one", "--vcpu", "2")
        assert [one["vcpu"] for one in json.loads(dtl.shows("one", "--json"))["logs"]] == [0]
        guest.set("VPA_DTL", 0)
        dtl.fails("no vCPU has registered a dispatch trace log", "one")
        guest.set("VPA_DTL", (guest.memory.size - 128) << 64 | 4096)
        dtl.fails("lie outside the guest's", "one")
    finally:
        guest.console.type(b"q")
        runner.join(60)
    assert done[0].end.ok
