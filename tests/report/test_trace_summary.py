"""What traces say in sums is what the guests did."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_trace import named, trace_of

from chronovisor.cli import main
from chronovisor.cli.status import ExitStatus
from chronovisor.report.trace import reading, recorder
from chronovisor.report.trace import vocabulary as v
from chronovisor.report.trace.picture import draw
from chronovisor.report.trace.reading import Slice, TraceFormatError, Track, read_trace
from chronovisor.report.trace.summary import PARTS, offsets, summarise
from chronovisor.report.trace.table import lines

sys.path.insert(0, str(Path(__file__).parents[1] / "machine"))
from elf_files import program
from two_vcpus import TWO_CPUS


@cache
def whole() -> bytes:
    """A trace."""
    with TemporaryDirectory() as folder:
        trace_of(path := Path(folder) / "trace", "hello-le")
        return path.read_bytes()


def test_times_and_exits_add_up(tmp_path: Path) -> None:
    tracks = trace_of(tmp_path / "trace", "hello-le")
    (vcpu,) = summarise([tracks]).vcpus
    told = [event for event in named(tracks, "vCPU 0").slices if not event.is_instant]
    # All of its time is in exactly one part, and so is each event in one reason.
    outermost = [event for event in told if not event.inside]
    assert sum(vcpu.spent.values()) == sum((event.end or 0) - event.begin for event in outermost)
    assert set(vcpu.spent) == set(PARTS)
    assert all(spent >= 0 for spent in vcpu.spent.values())
    assert sum(one.told for one in vcpu.exits.values()) == sum(
        e.name.startswith(("H_", "exit ")) for e in told
    )
    assert vcpu.exits["H_CEDE within the guest"].all == 1
    assert vcpu.interrupts == {"decrementer": 1}
    # A virtual clock stands while user space answers.
    assert vcpu.spent["user space"] == 0 < vcpu.spent["guest"]
    assert [stay.core for stay in vcpu.stays] == [0] * len(vcpu.stays)


def test_what_is_only_counted_is_in_the_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (all_told,) = summarise([trace_of(tmp_path / "a", "hello-le")]).vcpus
    monkeypatch.setattr(recorder, "ALLOWANCE", 40)
    monkeypatch.setattr(recorder, "EVENTS_A_SECOND", 2_000)
    (part,) = summarise([trace_of(tmp_path / "b", "hello-le")]).vcpus
    counted = sum(one.counted for one in part.exits.values())
    assert counted > 5
    assert part.counted_runs
    assert {reason: one.all for reason, one in part.exits.items()} == {
        reason: one.all for reason, one in all_told.exits.items()
    }


def test_two_vcpus_have_their_own_sums(tmp_path: Path) -> None:
    summary = summarise([trace_of(tmp_path / "trace", program(TWO_CPUS), smp=2)])
    assert [vcpu.name for vcpu in summary.vcpus] == ["vCPU 0", "vCPU 1"]
    assert summary.vcpus[1].stolen > 0
    text = "\n".join(lines(summary))
    assert "guest vCPU 1:" in text
    assert "H_RTAS" in text


def test_an_offset_that_changed_is_seen() -> None:
    def stay(begin: int, host: int, ahead: int) -> Slice:
        def times(at: int) -> dict[str, int | str]:
            return {"host_tb": at, "guest_tb": (at + ahead) % 2**64}

        values: dict[str, int | str] = {"core": 3, **times(host)}
        return Slice("guest", begin, begin + 125, "run", values, times(host + 64))

    events = [stay(0, 0, 7), stay(1000, 512, 7), stay(9_000_000, 600, 7 - 2**24)]
    track = Track("vCPU 0", 3, 2, False, slices=events)
    (vcpu,) = summarise([[Track("one", 2, 1, False), track]]).vcpus
    assert list(offsets(vcpu)) == [(9_000_000, -(2**24))]
    assert vcpu.guest == "one"
    assert [(stay.core, stay.begin, stay.end) for stay in vcpu.stays] == [
        (3, 0, 1125),
        (3, 9_000_000, 9_000_125),
    ]


def test_the_report_of_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace_of(tmp_path / "trace", "hello-le")
    assert main(["report", str(tmp_path / "trace")]) == ExitStatus.OK
    assert "H_PUT_TERM_CHAR" in capsys.readouterr().out
    for kind, magic in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        picture = tmp_path / f"picture.{kind}"
        assert main(["report", str(tmp_path / "trace"), "--json", "--picture", str(picture)]) == ExitStatus.OK
        (vcpu,) = json.loads(capsys.readouterr().out)["vcpus"]
        assert vcpu["exits"]["H_PUT_TERM_CHAR"]["told"] > 3
        assert picture.read_bytes().startswith(magic)


def test_what_cannot_be_reported_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").write_bytes(b"")
    trace_of(tmp_path / "trace", "hello-le")
    for words, arguments in {
        "text: this is no trace of Perfetto's": [tmp_path / "text"],
        "No such file": [tmp_path / "none"],
        "not a regular file": [Path("/dev/zero")],
        "no such directory": [tmp_path / "trace", "--picture", tmp_path / "none" / "picture.png"],
        "picture.txt": [tmp_path / "trace", "--picture", tmp_path / "picture.txt"],
    }.items():
        assert main(["report", *map(str, arguments)]) == ExitStatus.USAGE
        assert words in capsys.readouterr().err
    assert main(["report", str(tmp_path / "empty")]) == ExitStatus.OK
    assert capsys.readouterr().out == "no vCPU did anything\n"


def test_every_part_of_a_run_is_known() -> None:
    inside_a_run = {one.name for one in v.SLICES if v.RUN.name in one.inside}
    assert inside_a_run == {v.ENTER.name, v.IN_GUEST.name, v.LEAVE.name, v.CEDED.name}


@settings(max_examples=200)
@given(st.data())
def test_no_file_is_too_strange_to_report(data: st.DataObject) -> None:
    """P12: a trace comes from anywhere. It is reported, or refused in words."""
    changed = bytearray(whole())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        if data.draw(st.booleans()):
            changed[at] = data.draw(st.integers(0, 255))
        else:
            size = data.draw(st.integers(1, 40))
            changed[at : at + size] = data.draw(st.binary(max_size=40))
    with contextlib.suppress(TraceFormatError):
        text = list(lines(summary := summarise([read_trace(io.BytesIO(changed))])))
        assert text
        json.dumps(summary.as_json())


def test_values_of_the_wrong_kind_are_no_numbers(tmp_path: Path) -> None:
    strange: dict[str, int | str] = {
        "core": "?",
        "host_tb": "x",
        "guest_tb": -1,
        "H_RTAS": "many",
        "runs": "y",
    }
    events = [
        Slice("guest", 5, 3, "run", strange, strange),
        Slice("move", 1, 2, "", strange, strange),
        Slice("decrementer", 2, 2, "guest", strange, is_instant=True),
        Slice("runs that were only counted", 0, 9, "", strange, strange),
    ]
    names = ("vCPU 0", "moves", "time of the guest")
    tracks = [Track("$a$\\x", 2, 1, False)]
    tracks += [Track(name, 3 + n, 2, False, slices=events) for n, name in enumerate(names)]
    summary = summarise([tracks])
    assert list(lines(summary))
    draw(summary, tmp_path / "picture.png")


def test_a_trace_of_too_many_events_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_EVENTS", 20)
    with pytest.raises(TraceFormatError, match="more than 20 events"):
        read_trace(io.BytesIO(whole()))
