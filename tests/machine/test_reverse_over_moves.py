"""The past of a recorded guest goes along when it moves to another process: gdb goes back over the move."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Timer

import pytest
from between_processes import RECORD, send
from elf_files import program
from recorded import assert_it_repeats_itself
from test_debugger import gdb, needs_gdb, number
from test_reverse import (
    EARLY_AT,
    NOWHERE,
    PERIOD,
    RACE_ELF,
    STEP,
    STORE_AT,
    no,
    reversible,
    timer_image,
)

from chronovisor.cli.demo.sabotage import SabotagedSystem
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.machine import Guest, Host, MachineError, vcpu_state
from chronovisor.machine.debugger.past import Arrival, Why
from chronovisor.memory import PAGE_SIZE
from chronovisor.migration.encoding import NUMBERS, decode, encode
from chronovisor.migration.errors import MoveRefusedError, StreamError
from chronovisor.migration.messages import Past
from chronovisor.migration.recorded_past import PastPart, RecordedPast
from chronovisor.migration.recording import Recording
from chronovisor.migration.replay import Replay
from chronovisor.proof.sabotage import SABOTAGES
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.types import GuestTime, Ticks


def recording_of(guest: Guest) -> Recording:
    assert isinstance(guest.recorder, Recording)
    return guest.recorder


def runs(guest: Guest, chance: random.Random, times: int) -> None:
    for _ in range(times):
        guest.run_for(Ticks(STEP * chance.randint(100, 1500)))


@pytest.mark.parametrize("engine", ["regions", "concrete"])
def test_every_stretch_repeats_itself_on_another_host_over_two_moves(engine: str, tmp_path: Path) -> None:
    """Two vCPUs. What was executed on the first host is executed again on the third."""
    chance, origins = random.Random(7), (0x1234_5678_9ABC, 1 << 50, 3)
    hosts = [Host(origin, "virtual", cores=2, engine=engine) for origin in origins]
    guest = hosts[0].boot(RACE_ELF, "1M", smp=2)
    Recording(guest, RECORD)
    runs(guest, chance, 4)
    for host in hosts[1:]:
        kept = recording_of(guest).past
        before = [kept.stretch(n) for n in range(kept.last + 1)]
        guest = send(guest, lambda host=host: host, tmp_path)  # type: ignore[misc]
        came = recording_of(guest).past
        assert [came.stretch(n) for n in range(came.last + 1)] == before
        assert list(came.pages.each()) == list(kept.pages.each())
        runs(guest, chance, 4)
    recording = recording_of(guest)
    assert [recording.past.stretch(n).host.tb_origin for n in (0, 5, 10)] == list(origins)
    assert assert_it_repeats_itself(recording) == recording.past.last >= 11
    for host in hosts:
        host.close()


def test_a_step_over_the_move_and_back_is_the_same_instruction(tmp_path: Path) -> None:
    guest = Host(77, "virtual").boot(timer_image(), "1M")
    Recording(guest, RECORD)
    guest.run_for(Ticks(STEP * 1000))
    with Host(1 << 60, "virtual") as there:
        moved = send(guest, lambda: there, tmp_path)
        moved.run_for(Ticks(STEP * 10))
        past = Replay(recording_of(moved))

        def seen() -> tuple[int, GuestTime, vcpu_state.VcpuState, bytes]:
            assert past.guest is not None
            clock = past.guest.system.clock
            vcpu = past.guest.vcpus[0]
            return (
                clock.now().value,
                past.guest.timebase(),
                vcpu_state.save(vcpu),
                past.guest.memory.read(0, 1 << 20),
            )

        back = []
        for _ in range(25):
            assert past.step_back(0, no) == Arrival(Why.STEPPED, 0)
            back.append(seen())
        origins = [now >= 1 << 60 for now, *_ in back]
        assert origins == sorted(origins, reverse=True)
        assert 0 < sum(origins) < 25
        forth = [back[-1]]
        for _ in range(24):
            assert past.step_on(0, no) == Arrival(Why.STEPPED, 0)
            forth.append(seen())
        # At the place of the move itself gdb sees the host that it comes from.
        (at,) = [n for n, (one, other) in enumerate(zip(forth, back[::-1], strict=True)) if one != other]
        assert forth[at][0] < back[-1 - at][0]
        assert at == 24 - sum(origins) + 1
        assert forth[at][2].regs == back[-1 - at][2].regs
        assert forth[at][3:] == back[-1 - at][3:]
        assert [past.step_on(0, no).why for _ in range(2)] == [Why.STEPPED, Why.PRESENT]
        assert past.guest is None


def test_a_destination_that_keeps_less_has_the_end_of_the_past(tmp_path: Path) -> None:
    store = "lis r4,2; li r5,0\nloop: addi r5,r5,1\nstd r5,0(r4)\nb loop"
    guest = Host(clock="virtual").boot(program(store), "1M")
    Recording(guest, RECORD)
    for _ in range(100):
        guest.run_for(Ticks(STEP * 30))
    with Host(clock="virtual") as there:
        moved = send(guest, lambda: there, tmp_path, record=64 << 10)
        recording = recording_of(moved)
        assert recording.past.pages.size <= 64 << 10
        assert 50 < recording.past.first < recording.past.last == 99
        past = Replay(recording)
        assert past.run_back(0, NOWHERE, no) == Arrival(Why.BEGINNING, 0)
        assert past.guest is not None
        assert past.guest.get("R5") == 10 * recording.past.first


def test_a_destination_that_records_nothing_takes_the_guest_without_its_past(tmp_path: Path) -> None:
    guest = Host(clock="virtual").boot(timer_image(), "1M")
    Recording(guest, RECORD)
    guest.run_for(Ticks(STEP * 100))
    with Host(clock="virtual") as there:
        moved = send(guest, lambda: there, tmp_path, record=0)
        assert moved.recorder is None
        moved.run_for(Ticks(STEP * 100))


def test_a_guest_that_was_not_recorded_is_recorded_from_its_arrival_on(tmp_path: Path) -> None:
    guest = Host(clock="virtual").boot(timer_image(), "1M")
    guest.run_for(Ticks(STEP * 100))
    at = guest.get("PC")
    with Host(clock="virtual") as there:
        moved = send(guest, lambda: there, tmp_path)
        moved.run_for(Ticks(STEP * 100))
        past = Replay(recording_of(moved))
        assert past.run_back(0, NOWHERE, no) == Arrival(Why.BEGINNING, 0)
        assert past.guest is not None
        assert (past.guest.get("PC"), past.guest.system.clock) == (at, there.clock)


def test_virtual_time_does_not_go_on_in_real_time(tmp_path: Path) -> None:
    with Host(clock="virtual") as host, Host() as there:
        guest = host.boot(timer_image(), "1M")
        with pytest.raises(MoveRefusedError, match="virtual time and the destination in real time"):
            send(guest, lambda: there, tmp_path)


def test_a_guest_does_not_move_while_somebody_looks_at_its_past(tmp_path: Path) -> None:
    with Host(clock="virtual") as host, Host(clock="virtual") as there:
        guest = host.boot(timer_image(), "1M")
        past = Replay(Recording(guest, RECORD))
        guest.run_for(Ticks(STEP * 100))
        past.step_back(0, no)
        with pytest.raises(MachineError, match="a debugger looks at the past of image"):
            send(guest, lambda: there, tmp_path)
        past.leave()
        send(guest, lambda: there, tmp_path)


@needs_gdb
def test_gdb_goes_back_over_a_move_to_the_switch_that_was_wrong(tmp_path: Path) -> None:
    """As in `test_reverse.py`, but the guest comes from another process: its new host's switch does not check
    for a wrap.
    """
    resumed, stop = (1 << 60) - 0xC0, 4 * PERIOD - 60 * STEP
    guest = Host(resumed - stop, "virtual").boot(timer_image(), "1M")
    Recording(guest, RECORD)
    guest.run_for(Ticks(stop))
    with Host.over(SabotagedSystem(Hypervisor(VirtualTime(), (1 << 50) - 0xC0), SABOTAGES[0])) as there:
        moved = send(guest, lambda: there, tmp_path)
        assert moved.timebase().value - resumed in (0, 1)
        with reversible(moved, Replay(recording_of(moved))) as server:
            said = gdb(
                server,
                *(f"break *{EARLY_AT:#x}", "continue", 'printf "early=%ld\\n", $r29 - $r28', "delete"),
                *("set $came = $r29", "watch {long}0x20000 if {long}0x20000 > $came"),
                *("reverse-continue", 'printf "pc=%lu\\n", $pc', 'printf "noted=%lu\\n", $r31', "delete"),
                *("monitor time", "reverse-stepi", "monitor time", "reverse-stepi", "monitor time"),
                *("stepi", "monitor time", "stepi", "monitor time", "kill"),
                little=False,
            )
    behind = 1 << 24
    (early,) = (int(found) for found in re.findall(r"early=(-?\d+)", said))
    assert -behind < early < -behind + 100 * STEP, said
    assert "No more reverse-execution history" not in said
    assert number(said, "pc") == [STORE_AT]
    (noted,) = number(said, "noted")
    assert behind - 10 * STEP < resumed - noted < behind
    offsets = [int(found, 16) for found in re.findall(r"vCPU 0: offset 0x([0-9a-f]+)", said)]
    hosts = [int(found, 16) for found in re.findall(r"host timebase +0x([0-9a-f]+)", said)]
    guests = [int(found, 16) for found in re.findall(r"guest timebase +0x([0-9a-f]+)", said)]
    assert [bool(offset) for offset in offsets] == [True, True, False, False, True], said
    mask = (1 << 64) - 1
    assert all(
        (host + offset) & mask == time for host, offset, time in zip(hosts, offsets, guests, strict=True)
    )


# What a peer says


def some_parts() -> tuple[list[PastPart], int]:
    with Host(5, "virtual", cores=2) as host:
        guest = host.boot(RACE_ELF, "1M", smp=2)
        recording = Recording(guest, RECORD)
        runs(guest, random.Random(1), 3)
        return list(recording.past.parts()), guest.memory.size


def look_back(past: RecordedPast, size: int) -> Iterator[str]:
    """Go back in what may be no past; what was said of it."""
    with Host(5, "virtual", cores=2) as host:
        replay = Replay(Recording(host.prepare(size, 2, 1), past=past))
        # It may be told to go very far.
        late = Event()
        timer = Timer(2, late.set)
        timer.start()
        for go in (
            lambda: replay.step_back(1, late.is_set),
            lambda: replay.run_back(0, NOWHERE, late.is_set),
        ):
            try:
                yield go().why.name
            except MachineError as error:
                yield str(error)
        timer.cancel()


def test_parts_come_out_as_they_went_in_and_changed_ones_are_refused_or_harmless() -> None:
    parts, size = some_parts()
    chance, said, taken = random.Random(5), list[str](), 0
    assert [len(part.stretches) for part in parts] == [1, 1, 1, 0]
    written = [encode(Past(part)) for part in parts]
    for part, payload in zip(parts, written, strict=True):
        assert decode(NUMBERS[Past], payload) == Past(part)
    for case in range(120):
        past = RecordedPast(RECORD)
        try:
            for payload in written:
                message = decode(NUMBERS[Past], changed(chance, payload))
                assert isinstance(message, Past)
                past.take(message.part, size, 2)
        except (StreamError, ValueError) as error:
            said.append(str(error))
            continue
        taken += 1
        if not case % 5:
            said += look_back(past, size)
    assert len(set(said)) > 10, said
    assert taken > 10
    assert "\n" not in "".join(said)
    assert {"STEPPED", "BEGINNING"} <= set(said)


def changed(chance: random.Random, payload: bytes) -> bytes:
    """Some bytes with a bit changed, mostly in what is not the registers'."""
    data = bytearray(payload)
    if chance.random() < 0.5:
        at = chance.choice((chance.randrange(64), -1 - chance.randrange(200), chance.randrange(len(data))))
        data[at] ^= 1 << chance.randrange(8)
    return bytes(data)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda past, parts: past.take(parts[1], 1 << 20, 3), "another number of vCPUs"),
        (
            lambda past, parts: [past.take(parts[0], 1 << 20, 2), past.take(parts[2], 1 << 20, 2)],
            "comes behind",
        ),
        (lambda past, parts: past.take(parts[3], 1 << 20, 2), "out of turn"),
        (lambda past, parts: [past.take(part, 8 << 12, 2) for part in parts], "its memory does not"),
        (lambda past, parts: [past.take(part, 1 << 20, 2) for part in (*parts, parts[3])], "out of turn"),
        (
            lambda past, parts: [
                past.take(part, 1 << 20, 2)
                for part in (*parts[:3], replace(parts[3], pages=parts[3].pages[:1] * 2))
            ],
            "out of turn",
        ),
        (
            lambda past, parts: past.take(
                replace(
                    parts[0],
                    stretches=tuple(replace(one, vcpus=one.vcpus[::-1]) for one in parts[0].stretches),
                ),
                1 << 20,
                2,
            ),
            "vCPUs that the guest does not have",
        ),
    ],
)
def test_what_no_past_can_be_is_refused(
    spoil: Callable[[RecordedPast, list[PastPart]], object], words: str
) -> None:
    parts, _ = some_parts()
    with pytest.raises(ValueError, match=words):
        spoil(RecordedPast(RECORD), parts)


def test_of_a_past_that_is_too_long_or_too_large_the_last_part_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts, size = some_parts()
    assert len(parts[3].pages) > 2

    def taken(most: int) -> RecordedPast:
        past = RecordedPast(most)
        for part in parts:
            past.take(part, size, 2)
        return past

    whole, small = taken(RECORD), taken(PAGE_SIZE)
    assert (len(whole), whole.first, whole.last) == (3, 0, 2)
    assert (len(small), small.first, small.last) == (1, 2, 2)
    assert small.pages.size < whole.pages.size
    assert dict(small.pages.at(2)) == dict(whole.pages.at(2))
    monkeypatch.setattr("chronovisor.migration.recorded_past.MOST_STRETCHES", 2)
    short = taken(RECORD)
    assert (len(short), short.last) == (2, 2)
