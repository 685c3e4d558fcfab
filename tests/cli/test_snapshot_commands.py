"""`pause`, `resume`, `snapshot`, `restore`, `inspect` and `history`, as people use them."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from processes import ORIGIN, Machine, Process, keeps_its_timers

from chronovisor.cli.status import ExitStatus
from chronovisor.migration.snapshot_restore import inspect
from chronovisor.timebase.types import FREQUENCY, GRANULE

SECOND = FREQUENCY


def restored(machine: Machine, *arguments: str) -> Process:
    machine.processes.append(process := Process("restore", *arguments))
    assert "goes on" in process.error_line()
    return process


def test_a_guest_is_paused_and_goes_on(machine: Machine) -> None:
    guest = machine.run("one", "--tb-origin", str(ORIGIN))
    stopped = machine.asks("pause", "one")["guest_tb"]
    (listed,) = machine.asks("ps")
    assert (listed["state"], listed["guest_tb"]) == ("paused", stopped)
    machine.fails(ExitStatus.USAGE, "paused already", "pause", "one")
    # Registers can be looked at meanwhile, and looking does not let it go.
    assert machine.asks("reg", "one", "PC") == machine.asks("reg", "one", "PC")
    time.sleep(0.3)
    record = machine.asks("resume", "one")
    assert (record["kind"], record["policy"], record["clock"]) == ("resume", "freeze", "host clock")
    assert record["guest_tb_before"] == stopped
    assert 0 <= record["guest_tb_after"] - stopped == record["error_ticks"] <= GRANULE
    assert record["elapsed_ticks"] >= 0.3 * SECOND
    assert machine.state("one") == "running"
    machine.fails(ExitStatus.USAGE, "is not paused", "resume", "one")
    before, now, after = guest.timebase()
    put_back = record["elapsed_ticks"] - record["error_ticks"]
    assert before <= now - ORIGIN + put_back <= after

    machine.asks("pause", "one")
    time.sleep(0.3)
    record = machine.asks("resume", "one", "--time", "catch-up")
    # Its host's clock went on, and so did its own.
    assert record["error_ticks"] == record["wait_ns"] == 0
    assert record["counted_ticks"] == record["elapsed_ticks"]
    machine.asks("pause", "one")
    time.sleep(0.3)
    status, _, said = machine.does("resume", "one", "--time", "catch-up", "--max-step", "0.1")
    assert status == ExitStatus.OK
    assert re.search(r"its clock went forward by 0\.100 s of the \d", said)
    machine.asks("pause", "one")
    time.sleep(0.3)
    record = machine.asks("resume", "one", "--time", "bounded:0.1", "--clock-error-limit", "40ms")
    assert record["counted_ticks"] == 0.1 * SECOND
    history = machine.asks("history", "one")
    assert [hop["policy"] for hop in history["hops"]] == [
        "freeze",
        "bounded:20",
        "bounded:0.1",
        "bounded:0.1",
    ]
    assert history["counted_ticks"] == sum(hop["counted_ticks"] for hop in history["hops"])
    assert "clock error since its birth" in machine.does("history", "one")[1]
    guest.type("q")
    assert " back=0 " in (report := guest.line())
    assert report.endswith("memory=intact\n")
    assert keeps_its_timers(report)
    assert guest.ends() == 0


def test_a_guest_is_saved_and_goes_on_elsewhere(machine: Machine, tmp_path: Path) -> None:
    file = str(tmp_path / "one.snapshot")
    first = machine.run("one", "--tb-origin", str(ORIGIN))
    machine.asks("reg", "one", "TB_OFFSET=0x7000000000000000")
    saved = machine.asks("snapshot", "one", file)
    assert saved["size"] == Path(file).stat().st_size
    # It goes on where it was; a guest of that name runs, so another name is asked for.
    first.type("r")
    assert first.line().endswith("memory=intact\n")
    machine.fails(ExitStatus.USAGE, "named one runs already", "restore", file)
    first.type("q")
    first.line()
    assert first.ends() == 0

    again = restored(machine, file, "--tb-origin", "77")
    (listed,) = machine.asks("ps")
    assert (listed["name"], listed["state"], listed["vcpus"]) == ("one", "running", 1)
    before, now, after = again.timebase()
    frozen = machine.asks("history", "one")["hops"]
    assert [(hop["kind"], hop["clock"]) for hop in frozen] == [("set", "none"), ("restore", "boot clock")]
    # Since the restore its timebase went on with the machine's clock.
    assert now - saved["guest_tb"] <= after - before + 60 * SECOND
    assert frozen[1]["guest_tb_before"] == saved["guest_tb"]
    assert frozen[1]["counted_ticks"] == 0

    # A slow machine may take longer to come here than the 20 s that a guest catches up by unless asked.
    all_of_it = ("--time", "catch-up", "--max-step", "600")
    caught_up = restored(machine, file, "--name", "two", *all_of_it, "--tb-origin", str(ORIGIN))
    before, now, after = caught_up.timebase()
    (hop,) = (hop for hop in machine.asks("history", "two")["hops"] if hop["kind"] == "restore")
    off = GRANULE // 2 + hop["error_bound_ticks"]
    assert before - off <= now - ORIGIN - 0x7000_0000_0000_0000 <= after + off
    for process in (again, caught_up):
        process.type("q")
        assert " back=0 " in (report := process.line())
        assert keeps_its_timers(report)
        assert report.endswith("memory=intact\n")
        assert process.ends() == 0


def test_a_move_whose_time_does_not_count(machine: Machine) -> None:
    machine.run("one")
    there, address = machine.receive("two", "--tb-origin", "12345")
    machine.fails(ExitStatus.USAGE, "write freeze", "migrate", "one", address, "--time", "never")
    report = machine.asks("migrate", "one", address, "--time", "freeze")
    assert report["counted_ticks"] == 0
    assert report["error_ticks"] == report["guest_tb_after"] - report["guest_tb_before"] >= 0
    (hop,) = machine.asks("history", "two")["hops"]
    assert (hop["kind"], hop["policy"], hop["clock"]) == ("move", "freeze", "exchange")
    there.type("q")
    assert " back=0 " in (told := there.line())
    assert keeps_its_timers(told)


def test_a_paused_guest_is_saved_as_it_was(machine: Machine, tmp_path: Path) -> None:
    file = str(tmp_path / "file")
    machine.run("one")
    stopped = machine.asks("pause", "one")["guest_tb"]
    time.sleep(0.2)
    assert machine.asks("snapshot", "one", file)["guest_tb"] == stopped
    assert machine.state("one") == "paused"
    assert inspect(file).time.stopped_before.value >= 0.2 * SECOND


def test_what_is_in_a_snapshot_is_shown(machine: Machine, tmp_path: Path) -> None:
    file = str(tmp_path / "file")
    machine.run("one", "--smp", "2", "--append", "vcpus=2")
    machine.asks("pause", "one")
    registers = [machine.asks("reg", "one", "--vcpu", str(cpu)) for cpu in range(2)]
    saved = machine.asks("snapshot", "one", file)
    shown = machine.asks("inspect", file)
    assert (shown["name"], shown["vcpus"], shown["memory"]) == ("one", 2, 2 << 20)
    assert shown["time"]["guest_tb"] == saved["guest_tb"]
    assert sum(run["size"] for run in shown["memory_map"]) == shown["in_use"] == saved["in_use"]
    for found, live in zip(shown["registers"], registers, strict=True):
        assert {"R0", "PC", "MSR", "VTB", "PURR", "DEC_EXPIRY", "VSR31", "VPA_ADDR"} <= set(found)
        assert found == {name: live[name] for name in found}
    assert shown["history"] == machine.asks("history", "one") == machine.asks("history", file)
    text = machine.does("inspect", file)[1]
    assert f"guest timebase    {saved['guest_tb']:#018x}" in text
    assert f"  PC           {registers[0]['PC']:#018x}" in text
    assert "vCPU 1" in text


def test_what_cannot_be(machine: Machine, tmp_path: Path) -> None:
    file, text = str(tmp_path / "file"), tmp_path / "text"
    text.write_text("something else")
    machine.run("one")
    machine.asks("snapshot", "one", file)
    for words, arguments in {
        "no guest named two": ("pause", "two"),
        "name '../x'": ("resume", "../x"),
        "write freeze, catch-up": ("resume", "one", "--time", "sometimes"),
        "16.384ms": ("resume", "one", "--clock-error-limit", "16ms"),
        "no duration": ("resume", "one", "--clock-error-limit", "much"),
        "--memory-limit": ("restore", file, "--name", "two", "--memory-limit", "1M"),
        "'a/b'": ("restore", file, "--name", "a/b"),
        "--ticks-per-instruction": ("restore", file, "--ticks-per-instruction", "0"),
        "write freeze": ("restore", file, "--time", "bounded:-1"),
        "go on in virtual clock": (
            "restore", file, "--name", "two", "--time", "catch-up", "--clock", "virtual",
        ),
    }.items():  # fmt: skip
        machine.fails(ExitStatus.USAGE, words, *arguments)
    for command in ("inspect", "restore", "history"):
        machine.fails(ExitStatus.BAD_IMAGE, "no snapshot", command, str(text))
        machine.fails(ExitStatus.BAD_IMAGE, "not a regular file", command, str(tmp_path))
    machine.fails(ExitStatus.BAD_IMAGE, "No such file", "restore", str(tmp_path / "nowhere"))
    machine.fails(ExitStatus.FAILED, "could not be written", "snapshot", "one", str(tmp_path / "no" / "x"))
    machine.fails(ExitStatus.FAILED, "no file that could be replaced", "snapshot", "one", "/dev/null")
    assert machine.state("one") == "running"


def test_a_name_that_is_none_is_not_taken_from_a_file(machine: Machine, tmp_path: Path) -> None:
    from chronovisor.machine.host import Host
    from chronovisor.migration.snapshot import snapshot

    with Host(clock="virtual") as host:
        guest = host.boot("hello-le.elf", memory="1M")
        guest.name = "../../etc/passwd"
        snapshot(guest, tmp_path / "file")
    process = Process("restore", str(tmp_path / "file"), "--json")
    machine.processes.append(process)
    assert process.error_line().startswith("chronovisor: guest-")
    assert json.loads(process.error_line())["clock"] == "none"
    assert process.ends() == 0


@pytest.mark.parametrize("shown", ["", "--json"])
def test_a_life_without_a_hop(machine: Machine, shown: str) -> None:
    machine.run("one")
    told = machine.does("history", "one", *([shown] if shown else []))[1]
    assert ("between +0.000 ms and +0.000 ms" in told) is not bool(shown)
