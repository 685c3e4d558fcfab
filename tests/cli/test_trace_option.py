"""`--trace`: of runs, of moves at both ends, of restored guests, and what goes wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from processes import Machine, Process

from chronovisor.cli import main
from chronovisor.cli.status import ExitStatus
from chronovisor.report.trace.reading import Slice, Track

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from trace_rules import check, read


def events(tracks: list[Track], name: str) -> list[Slice]:
    return next(track for track in tracks if track.name == name).slices


def test_a_move_is_in_the_traces_of_both_ends(machine: Machine, tmp_path: Path) -> None:
    here = machine.run("here", "--trace", str(tmp_path / "here"))
    there, address = machine.receive("there", "--trace", str(tmp_path / "there"))
    record = machine.asks("migrate", "here", address)
    assert here.ends() == 0
    there.type("q")
    assert there.ends() == 0
    source, destination = read(tmp_path / "here"), read(tmp_path / "there")
    assert check(source) > 50
    assert check(destination) > 20
    move, *phases = events(source, "moves")
    assert move.values == {"where": f"to {address}"}
    assert move.at_end == {"outcome": "completed", **record}
    rounds = [event for event in phases if event.name == "round"]
    assert [event.values["number"] for event in rounds] == list(range(1, record["rounds"] + 1))
    assert [event.inside for event in rounds[-2:]] == ["copy", "send state"]
    names = [event.name for event in phases if event.name != "round"]
    assert names == ["ask", "copy", "downtime", "stop", "send state", "decide", "commit"]
    downtime = next(event for event in phases if event.name == "downtime")
    (paused,) = (event for event in events(source, "time of the guest") if event.end > downtime.begin)
    assert downtime.begin <= paused.begin
    came, *phases = events(destination, "moves")
    assert (came.at_end["outcome"], came.at_end["downtime_ns"]) == ("completed", record["downtime_ns"])
    assert [event.name for event in phases if event.name != "receive"] == [
        *("consider", "load", "set time", "record", "start")
    ]
    # One clock for both: the guest is never in both places, and not here after its time was sampled.
    assert downtime.begin <= phases[-2].begin <= came.end
    left = max(event.end for event in events(source, "vCPU 0"))
    assert left <= min(event.begin for event in events(destination, "vCPU 0"))


def test_a_move_that_fails_is_told_as_one(machine: Machine, tmp_path: Path) -> None:
    here = machine.run("here", "--trace", str(tmp_path / "here"))
    status, _, _ = machine.does("migrate", "here", f"unix:{tmp_path}/nobody")
    assert status == ExitStatus.FAILED
    here.type("q")
    assert here.ends() == 0
    tracks = read(tmp_path / "here")
    check(tracks)
    (move,) = (event for event in events(tracks, "moves") if event.name == "move")
    assert move.at_end["outcome"] == "failed"


def test_a_restored_guest_is_traced(machine: Machine, tmp_path: Path) -> None:
    machine.run("one")
    machine.asks("snapshot", "one", str(tmp_path / "saved"))
    again = Process("restore", str(tmp_path / "saved"), "--name", "two", "--trace", str(tmp_path / "t"))
    machine.processes.append(again)
    again.type("q")
    assert again.ends() == 0
    assert check(read(tmp_path / "t")) > 20


HELLO = ("run", "hello-le", "--engine", "concrete", "--trace")


def test_a_full_disk_is_said_in_one_line_and_the_guest_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*HELLO, "/dev/full"]) == ExitStatus.OK
    out, err = capfd.readouterr()
    assert out.endswith("decrementer interrupt on time\n")
    assert err == "chronovisor: the trace /dev/full ends here: No space left on device\n"


def test_a_trace_that_cannot_be_begun_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*HELLO, str(tmp_path / "none" / "trace")]) == ExitStatus.USAGE
    assert "cannot be written to" in capfd.readouterr().err
    monkeypatch.delitem(sys.modules, "chronovisor.report.trace.packets")
    monkeypatch.setitem(sys.modules, "perfetto.protos.perfetto.trace", None)
    assert main([*HELLO, str(tmp_path / "trace")]) == ExitStatus.USAGE
    out, err = capfd.readouterr()
    assert out == ""
    assert err == (
        "chronovisor: --trace: the package perfetto is not installed: pip install 'chronovisor[traces]'\n"
    )
