"""Traces of guests, read back: what is in them is declared, nests, and says what really happened."""

from __future__ import annotations

import io
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as perfetto
from trace_rules import PHASES, check, read

import chronovisor as cv
from chronovisor.kvm.ids import ExitReason
from chronovisor.papr.hcalls import Hcall
from chronovisor.report.trace import file, recorder
from chronovisor.report.trace import vocabulary as v
from chronovisor.report.trace.file import TraceFile
from chronovisor.report.trace.packets import Packets
from chronovisor.report.trace.reading import TraceFormatError, Track, read_trace
from chronovisor.report.trace.recorder import Event, Kind
from chronovisor.timebase.clock import HostClock, RealTime, VirtualTime
from chronovisor.timebase.types import GRANULE, MASK64, Offset

sys.path.insert(0, str(Path(__file__).parents[1] / "machine"))
from elf_files import program
from two_vcpus import TWO_CPUS


@contextmanager
def traced(path: Path, source: cv.VirtualTime | cv.RealTime) -> Iterator[TraceFile]:
    def lost(error: Exception) -> None:
        raise error

    trace = TraceFile(path, source, lost)
    try:
        yield trace
    finally:
        trace.close()


def named(tracks: list[Track], name: str) -> Track:
    (found,) = (track for track in tracks if track.name == name)
    return found


def trace_of(path: Path, image: str | bytes, offset: int = 0, **options: int) -> list[Track]:
    source = cv.VirtualTime()
    with (
        cv.Host(clock=source, tb_origin=MASK64 - 5, engine="concrete") as host,
        traced(path, source) as trace,
    ):
        guest = host.boot(image, tb_offset=offset, **options)
        guest.trace(trace.guest(host.clock, "guest"))
        assert guest.run().message == "the guest powered off"
    return read(path)


def test_a_guests_trace_says_what_it_did_in_both_times(tmp_path: Path) -> None:
    tracks = trace_of(tmp_path / "trace", "hello-be", 3 * GRANULE)
    assert check(tracks) > 50
    vcpu = named(tracks, "vCPU 0")
    assert [track.name for track in tracks][:3] == ["chronovisor", "moves", "guest"]
    names = Counter(event.name for event in vcpu.slices)
    assert names["H_PUT_TERM_CHAR"] > 3
    assert names["guest"] == names["enter"] == names["leave"] > names["H_PUT_TERM_CHAR"]
    assert names["decrementer"] == 1
    for event in vcpu.slices:
        if event.name == "guest":
            assert event.values["offset"] == 3 * GRANULE
            for told in (event.values, event.at_end):
                assert int(told["guest_tb"]) - int(told["host_tb"]) & MASK64 == 3 * GRANULE
            # The trace's clock is the host's, without its origin.
            passed = int(event.at_end["host_tb"]) - int(event.values["host_tb"]) & MASK64
            assert event.end is not None
            assert abs(passed * 125 // 64 - (event.end - event.begin)) <= 1
    (first, *_) = (event for event in vcpu.slices if event.name == "guest")
    assert named(tracks, "vCPU 0 timebase offset").counts == [(first.begin, 3 * GRANULE)]
    exits = Counter(str(event.at_end["exit"]) for event in vcpu.slices if event.name == "run")
    assert exits["PAPR_HCALL"] == sum(e.name.startswith("H_") and not e.inside for e in vcpu.slices)
    assert set(exits) == {"PAPR_HCALL", "INTR"}


def test_a_trace_in_virtual_time_repeats_itself(tmp_path: Path) -> None:
    """Two vCPUs share a core: the order of their stays, and what each lost to the other, are in the trace."""
    one, two = (trace_of(tmp_path / name, program(TWO_CPUS), smp=2) for name in "ab")
    assert one == two
    assert check(one) > 30
    stays = [[e for e in named(one, f"vCPU {n}").slices if e.name == "guest"] for n in (0, 1)]
    assert all(
        mine.end <= theirs.begin or theirs.end <= mine.begin for mine in stays[0] for theirs in stays[1]
    )
    assert named(one, "vCPU 1 stolen time").counts


def test_what_comes_too_fast_is_counted_and_none_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def calls(tracks: list[Track]) -> Counter[str]:
        found: Counter[str] = Counter()
        for event in named(tracks, "vCPU 0").slices:
            if event.name.startswith("H_"):
                found[event.name + (v.WITHIN_GUEST if event.inside else "")] += 1
            for name, value in event.at_end.items():
                if name.startswith("H_"):
                    found[name] += int(value)
        return found

    everything = trace_of(tmp_path / "a", "hello-be")
    monkeypatch.setattr(recorder, "ALLOWANCE", 60)
    monkeypatch.setattr(recorder, "EVENTS_A_SECOND", 2_000)
    part = trace_of(tmp_path / "b", "hello-be")
    check(part)
    runs = [event for event in named(part, "vCPU 0").slices if event.name == "runs that were only counted"]
    assert sum(int(event.at_end["runs"]) for event in runs) > 5
    assert len(named(part, "vCPU 0").slices) < len(named(everything, "vCPU 0").slices) // 2
    assert calls(part) == calls(everything)
    assert calls(part)["H_PUT_TERM_CHAR"] > 3


def one_recorder(sink: recorder.Sink) -> recorder.VcpuRecorder:
    return recorder.GuestRecorder(sink, HostClock(VirtualTime()), "guest").vcpu(0)


def test_what_native_code_does_by_itself_is_counted(tmp_path: Path) -> None:
    """`demo` sets its decrementer each millisecond, and its interrupts come while it is in native code."""
    source = cv.RealTime()
    with cv.Host(clock=source, engine="threaded") as host, traced(tmp_path / "trace", source) as trace:
        guest = host.boot("demo-le")
        guest.trace(trace.guest(host.clock, "guest"))
        # Until native code is there, the concrete evaluator executes the guest.
        for _ in range(2400):
            guest.run_for(cv.Ticks(cv.FREQUENCY // 20))
            statistics = guest.statistics()
            assert statistics is not None
            if statistics.instructions.threaded > 60_000_000:
                break
    tracks = read(tmp_path / "trace")
    check(tracks)
    counted = {name: named(tracks, f"vCPU 0 {name}").counts[-1][1] for name in (one.name for one in v.WORK)}
    assert counted["decrementers in native code"] > 0
    assert counted["instructions"] > 30_000_000
    assert counted["page faults in native code"] == 0


def test_a_guest_that_calls_with_any_number_makes_no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """P12: neither the recorder nor the trace grows with the numbers that a guest thinks of."""
    monkeypatch.setattr(recorder, "ALLOWANCE", 100)
    told = one_recorder(sink := recorder.Sink())
    for number in range(0x10_0000, 0x10_0000 + 3000):
        told.run_begins()
        told.called(number, told.now() if told.times_calls else None)
        told.run_ends(ExitReason.PAPR_HCALL, number)
        told.handled()
    told.close()
    assert len(sink.events) < 200
    names = {event.name for event in sink.events}
    names |= {
        name for event in sink.events if isinstance(event, recorder.Event) for name in event.values or {}
    }
    assert {name for name in names if name.startswith("H_")} == {
        v.UNKNOWN_HYPERCALL,
        v.UNKNOWN_HYPERCALL + v.WITHIN_GUEST,
    }


def test_events_that_nobody_writes_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MOST_WAITING", 500)
    told = one_recorder(sink := recorder.Sink())
    for _ in range(1000):
        told.run_begins()
        told.entering() if told.told else None
        told.run_ends(ExitReason.PAPR_HCALL, Hcall.RTAS)
        told.handled()
    assert len(sink.events) < 600


def test_a_full_disk_ends_the_trace_and_not_the_guest(tmp_path: Path) -> None:
    source = cv.VirtualTime()
    lost: list[Exception] = []
    trace = TraceFile(Path("/dev/full"), source, lost.append)
    with cv.Host(clock=source, engine="concrete") as host:
        guest = host.boot("hello-be")
        guest.trace(told := trace.guest(host.clock, "guest"))
        assert guest.run().message == "the guest powered off"
        trace.close()
        assert [error.args[1] for error in lost] == ["No space left on device"]
        assert trace.sink.off
        trace.sink.events.clear()
        # What is told afterwards goes nowhere.
        vcpu = told.vcpu(0)
        for _ in range(100):
            vcpu.run_begins()
            vcpu.entered(source.ticks(), Offset(GRANULE), 0, 7)
            vcpu.run_ends(ExitReason.INTR, None)
        told.may_run(False)
        assert not trace.sink.events


def test_a_trace_ends_before_it_fills_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "LARGEST", 2000)
    lost: list[Exception] = []
    source = cv.VirtualTime()
    trace = TraceFile(tmp_path / "trace", source, lost.append)
    with cv.Host(clock=source, engine="concrete") as host:
        guest = host.boot("hello-be")
        guest.trace(trace.guest(host.clock, "guest"))
        assert guest.run().message == "the guest powered off"
        trace.close()
    (error,) = lost
    assert "2000 bytes" in str(error)
    assert 1000 < (tmp_path / "trace").stat().st_size <= 2000
    assert named(read(tmp_path / "trace"), "vCPU 0").slices


def test_what_is_no_trace_is_refused_in_words(tmp_path: Path) -> None:
    trace_of(tmp_path / "trace", "hello-be")
    whole = (tmp_path / "trace").read_bytes()
    for data, words in {
        b"hello": "no trace",
        b"\x0a\xff\xff\xff\xff\xff": "no trace",
        b"\x0a\xff\xff\xff\x7f": "a packet of",
        b"\x0a\x03\xff\xff\xff": "none of Perfetto's",
        whole + b"\x0a\x04\x5a\x02\x58\x63": "not announced",
    }.items():
        with pytest.raises(TraceFormatError, match=words):
            read_trace(io.BytesIO(data))


def test_a_trace_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    trace_of(tmp_path / "trace", "hello-be")
    whole = (tmp_path / "trace").read_bytes()
    events = -1
    for length in range(0, len(whole), 97):
        tracks = read_trace(io.BytesIO(whole[:length]))
        more = sum(len(track.slices) for track in tracks)
        assert more >= events
        events = more
    assert events > 50


def test_the_python_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "traces.md").read_text()
    (program_text,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    exec(compile(program_text, "docs/traces.md", "exec"), {})
    assert check(read(tmp_path / "hello.pftrace")) > 50


def test_the_viewer_finds_what_it_needs(tmp_path: Path) -> None:
    """What the format asks of a sequence of packets, beyond that each packet parses."""
    trace_of(tmp_path / "trace", "hello-le")
    packets = perfetto.Trace.FromString((tmp_path / "trace").read_bytes()).packet
    first, clocks = packets[:2]
    assert first.sequence_flags == first.SEQ_INCREMENTAL_STATE_CLEARED
    assert first.trace_packet_defaults.timestamp_clock_id == perfetto.BUILTIN_CLOCK_MONOTONIC
    # Timestamps are of a clock whose relation to the trace's own is known before the first of them.
    shown = {clock.clock_id: clock.timestamp for clock in clocks.clock_snapshot.clocks}
    assert clocks.clock_snapshot.primary_trace_clock in shown
    assert (
        {packet.trusted_packet_sequence_id for packet in packets} == {first.trusted_packet_sequence_id} != {0}
    )
    names: set[int] = set()
    events = 0
    for packet in packets:
        names |= {entry.iid for entry in packet.interned_data.event_names}
        if packet.HasField("track_event"):
            events += 1
            assert packet.HasField("timestamp")
            assert packet.sequence_flags == packet.SEQ_NEEDS_INCREMENTAL_STATE
            if packet.track_event.name_iid:
                assert packet.track_event.name_iid in names
    assert events > 100


def test_the_page_lists_what_is_in_a_trace() -> None:
    page = (Path(__file__).parents[2] / "docs" / "traces.md").read_text()
    assert len(PHASES) == 13
    told = page.split("- Moves:")[1].split("\n\n")[0]
    assert {name for name in PHASES if re.search(rf"\b{name}\b", told)} == PHASES


def test_declared_names_are_distinct() -> None:
    names = [one.name for one in (*v.SLICES, *v.INSTANTS)]
    assert len(names) == len(set(names)) > 10


def test_an_event_that_comes_again_is_written_as_the_first_was() -> None:
    """But for its time, and the names that the first packet declares."""
    packets, packet = Packets(RealTime()), perfetto.TracePacket()
    compared = 0
    for kind in Kind:
        for track, name in ((3, "run"), (4, "run"), (3, "guest")):
            values = {"core": 1} if name == "guest" else None
            read = []
            for ticks in (512, 1024, 1536):
                packet.ParseFromString(packets.of(Event(kind, ticks, track, name, values, shown=ticks)))
                assert packet.timestamp * 64 == ticks * 125
                for field in ("timestamp", "interned_data"):
                    packet.ClearField(field)
                packet.track_event.counter_value = 0
                read.append(packet.SerializeToString(deterministic=True))
            assert read[0] == read[1] == read[2]
            compared += 1
            assert packet.track_event.track_uuid == 1 + track
            assert len(packet.track_event.debug_annotations) == (values is not None)
    assert compared == 12
