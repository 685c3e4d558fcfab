"""A recorded guest does again what it did, to the last register and byte, and gdb goes back in its time."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elf_files import POWER_OFF, Elf, Part, program
from recorded import assert_it_repeats_itself
from test_debugger import FOR_EVER, Peer, PlainTime, at, debugged, gdb, needs_gdb, number

from chronovisor.cli.debugging import ANY_PORT
from chronovisor.cli.demo.sabotage import SabotagedSystem
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.isa.assembly import assemble
from chronovisor.machine import Guest, Host, MachineError, vcpu_state
from chronovisor.machine.debugger.gdb_protocol import frame
from chronovisor.machine.debugger.gdb_server import GdbServer
from chronovisor.machine.debugger.past import Arrival, Places, Why
from chronovisor.machine.vio.attachments import Attachments
from chronovisor.memory import Watchpoint
from chronovisor.migration import recording as recording_module
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.migration.recording import Recording
from chronovisor.migration.replay import Replay
from chronovisor.proof.sabotage import SABOTAGES
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.policy import FREEZE
from chronovisor.timebase.types import Ticks

STEP = 256
"""Ticks of virtual time an instruction."""
COUNT = "li r5,0\nloop: addi r5,r5,1\nmr r6,r5\nb loop"
RACE = """
    lis r3,0; ori r3,r3,0xf000
    lis r4,start@h; ori r4,r4,start@l
    sc 1
second:
    lis r4,2; li r5,0
    li r10,20000; mtspr 22,r10
loop: ldarx r6,0,r4
    addi r6,r6,1
    stdcx. r6,0,r4
    bne loop
    addi r5,r5,1
    andi. r7,r5,0x3f
    bne loop
    mfspr r8,268
    std r8,32(r4)
    darn r9,1
    li r3,0xe0; sc 1
    b loop
    .balign 8
start: .byte 0,0,0x20,5, 0,0,0,3, 0,0,0,1, 0,0,0,1
       .byte (second >> 24) & 255, (second >> 16) & 255, (second >> 8) & 255, second & 255, 0,0,0,0x33
       .space 4
"""
"""Two vCPUs count in one doubleword by reservations, draw random numbers, and cede now and then (H_CEDE is
0xe0) until their decrementers expire."""
HANDLER = "li r10,20000; mtspr 22,r10; rfid"
RACE_ELF = Elf(
    [Part(assemble(HANDLER, 0x900, False), 0x900), Part(assemble(RACE, 0x10000, False), 0x10000)],
    0x10000,
    little=False,
).build()
RACE_LOOP = 0x10000 + 4 * 9
"""The address of its `loop`."""


NOWHERE = Places({4}, ())
"""A place to which these guests do not come."""


def no() -> bool:
    return False


@contextlib.contextmanager
def reversible(guest: Guest, past: Replay) -> Iterator[GdbServer]:
    server = GdbServer(guest, at(ANY_PORT), PlainTime(guest), lambda: guest.timebase().value, past=past)
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("engine", ["regions", "concrete"])
@pytest.mark.parametrize(("cores", "threads"), [(2, 1), (1, 1)])
def test_every_stretch_of_two_vcpus_repeats_itself(cores: int, threads: int, engine: str) -> None:
    drawn = random.Random(cores)
    with Host(clock="virtual", cores=cores, threads=threads, engine=engine) as host:
        guest = host.boot(RACE_ELF, smp=2, threads=threads)
        recording = Recording(guest)
        for _ in range(12):
            guest.run_for(Ticks(STEP * drawn.randint(1, 3000)))
        assert assert_it_repeats_itself(recording) == 11
        assert guest.memory.load(0x20000, 8, False) > 100
        for vcpu in (0, 1):
            assert sum(recording.past.stretch(n).executed[vcpu] for n in range(12)) > 1000


def test_a_call_of_user_space_at_the_end_of_a_turn_is_not_the_end() -> None:
    """The vCPUs print (H_PUT_TERM_CHAR) in each eighth instruction, and a turn has 1,000."""
    text = """
        lis r3,0; ori r3,r3,0xf000
        lis r4,start@h; ori r4,r4,start@l
        sc 1
    second:
        li r7,0; nop; nop
    loop: li r3,0x58
        li r4,0
        li r5,1
        li r6,0x2e
        sc 1
        addi r7,r7,1
        nop
        b loop
        .balign 8
    start: .byte 0,0,0x20,5, 0,0,0,3, 0,0,0,1, 0,0,0,1
           .byte (second >> 24) & 255, (second >> 16) & 255, (second >> 8) & 255, second & 255, 0,0,0,0x33
           .space 4
    """
    with Host(clock="virtual", cores=2) as host:
        guest = host.boot(program(text, little=False), "1M", smp=2)
        recording = Recording(guest)
        guest.run_for(Ticks(STEP * 40_000))
        assert min(recording.past.stretch(0).executed) > 10_000
        past = Replay(recording)
        assert past.run_back(0, NOWHERE, no).why is Why.BEGINNING


def test_what_is_typed_comes_again_at_its_tick() -> None:
    with Host(clock="virtual") as host:
        guest = host.boot("demo-le.elf")
        recording = Recording(guest)
        for key in "trt":
            guest.run_for(Ticks.from_ns(30_000_000))
            guest.resume()
            guest.console.type(key)
            guest.pause()
        guest.run_for(Ticks.from_ns(30_000_000))
        printed = guest.console.printed
        assert_it_repeats_itself(recording)
        # Nothing is printed twice.
        assert guest.console.printed == printed


def test_a_long_run_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_module, "_LONGEST", 1000)
    with Host(clock="virtual", cores=2) as host:
        guest = host.boot(RACE_ELF, smp=2)
        recording = Recording(guest)
        guest.run_for(Ticks(STEP * 20_000))
        assert assert_it_repeats_itself(recording) >= 10
        total = sum(sum(recording.past.stretch(n).executed) for n in range(recording.past.last + 1))
        counted = guest.statistics()
        assert counted is not None
        assert total == counted.instructions.total


def test_little_of_the_past_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with Host(clock="virtual") as host:
        guest = host.boot(program("lis r4,2; li r5,0\nloop: addi r5,r5,1\nstd r5,0(r4)\nb loop"))
        recording = Recording(guest, size=64 << 10)
        for _ in range(100):
            guest.run_for(Ticks(STEP * 30))
        assert recording.past.pages.size <= 64 << 10
        assert recording.past.first > 50
        past = Replay(recording)
        assert past.run_back(0, Places((), ()), no) == Arrival(Why.BEGINNING, 0)
        assert past.guest is not None
        assert past.guest.get("R5") == 10 * recording.past.first
        assert_it_repeats_itself(recording)


def test_the_past_that_turns_out_otherwise_is_told() -> None:
    with Host(clock="virtual") as host:
        guest = host.boot(program(f"lis r4,2\nloop: ld r5,0(r4)\ncmpdi r5,0\nbeq loop\n{POWER_OFF}"))
        recording = Recording(guest)
        guest.run_for(Ticks(STEP * 1000))
        now = host.timebase
        # As if another value had been there.
        recording.past.pages.note(0, 0x20, b"\1" * 4096)
        past = Replay(recording)
        with pytest.raises(MachineError, match="could not be repeated: there the guest powered off"):
            past.run_back(0, NOWHERE, no)
        assert past.guest is None
        assert host.timebase == now


def test_going_back_can_be_given_up() -> None:
    with Host(clock="virtual") as host:
        guest = host.boot(program(COUNT))
        recording = Recording(guest)
        guest.run_for(Ticks(STEP * 1000))
        past, now = Replay(recording), host.timebase
        assert past.run_back(0, NOWHERE, lambda: True) == Arrival(Why.INTERRUPTED, 0)
        assert (past.guest, host.timebase) == (None, now)
        assert past.step_back(0, no) == Arrival(Why.STEPPED, 0)
        there, before = past.guest, host.timebase
        assert there is not None
        at = there.get("PC")
        assert past.run_back(0, NOWHERE, lambda: True) == Arrival(Why.INTERRUPTED, 0)
        assert past.guest is not None
        assert (past.guest.get("PC"), host.timebase) == (at, before)


def test_who_cannot_be_recorded(tmp_path: Path) -> None:
    with Host() as host, pytest.raises(MachineError, match="virtual time"):
        Recording(host.boot(FOR_EVER))
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    with Host(clock="virtual") as host:
        host.attachments = Attachments.parse([str(disk)])
        guest = host.boot(FOR_EVER)
        with pytest.raises(MachineError, match="disk or network"):
            Recording(guest)


def test_a_place_is_the_same_forwards_and_backwards() -> None:
    """Each place that is come to backwards is come to forwards, with the same state, of two vCPUs."""
    with Host(clock="virtual", cores=2) as host:
        guest = host.boot(RACE_ELF, smp=2)
        recording = Recording(guest)
        for _ in range(3):
            guest.run_for(Ticks(STEP * 800))
        past, places = Replay(recording), Places({RACE_LOOP + 28}, [Watchpoint(0x20020, 8, False, True)])

        def state() -> tuple[object, ...]:
            assert past.guest is not None
            registers = tuple(vcpu_state.save(vcpu) for vcpu in past.guest.vcpus)
            return host.timebase, registers, past.guest.memory.read(0x20000, 64)

        backwards = []
        while (arrival := past.run_back(1, places, no)).why is Why.HIT:
            if arrival.watchpoint is None:
                backwards.append((arrival, state()))
            else:
                # As gdb does: it is behind the access.
                past.step_back(arrival.vcpu, no)
        assert arrival.why is Why.BEGINNING
        forwards = []
        while (arrival := past.run_on(1, places, no)).why is Why.HIT:
            if arrival.watchpoint is None:
                forwards.append((arrival, state()))
        assert arrival.why is Why.PRESENT
        assert forwards == backwards[::-1]
        assert {found.vcpu for found, _ in forwards} == {0, 1}
        assert len(forwards) >= 3


@pytest.mark.parametrize("engine", ["regions", "concrete"])
def test_a_recorded_run_of_one_vcpu_is_the_run_that_is_not_recorded(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it does not wait in H_CEDE, which a cut ends."""
    monkeypatch.setattr(recording_module, "_LONGEST", 777)

    def run(recorded: bool) -> tuple[object, ...]:
        with Host(clock="virtual", engine=engine, tb_origin=99) as host:
            guest = host.boot(timer_image())
            recording = Recording(guest) if recorded else None
            guest.run_for(Ticks(PERIOD + PERIOD // 3))
            assert recording is None or recording.past.last > 20
            assert guest.get("R30") == 1
            return host.timebase, vcpu_state.save(guest.vcpus[0]), guest.memory.read(0, 1 << 20)

    assert run(True) == run(False)


class SlowReplay(Replay):
    """It takes as long as it may."""

    begun = False

    def run_back(self, vcpu: int, places: Places, interrupted: Callable[[], bool]) -> Arrival:
        self.begun = True
        while not interrupted():
            time.sleep(0.01)
        return Arrival(Why.INTERRUPTED, vcpu)


@pytest.mark.parametrize("vanishes", [False, True])
def test_a_debugger_gives_up_going_back_or_vanishes(vanishes: bool) -> None:
    with Host(clock="virtual") as host:
        guest = host.boot(FOR_EVER)
        past = SlowReplay(Recording(guest))
        with reversible(guest, past) as server:
            peer = Peer(server)
            assert b";ReverseStep+;ReverseContinue+" in peer.ask(b"qSupported")
            peer.socket.sendall(frame(b"bc"))
            wait_for(lambda: past.begun)
            if vanishes:
                peer.socket.close()
                wait_for(lambda: guest.running)
                return
            peer.socket.sendall(b"\x03")
            assert peer.answer().startswith(b"T02thread:1;")
            assert peer.ask(b"D") == b"OK"


def test_a_guest_that_is_not_recorded_does_not_go_back() -> None:
    with Host(clock="virtual") as host:
        guest = host.boot(FOR_EVER)
        with debugged(guest) as server:
            peer = Peer(server)
            assert b"Reverse" not in peer.ask(b"qSupported")
            for request in (b"bs", b"bc"):
                assert (
                    peer.ask(request)
                    == b"E.the guest is not recorded: run it with --clock virtual and --record"
                )


def test_each_step_through_a_range_is_recorded() -> None:
    """Such a step lets the guest go on as soon as it has ended, on another thread than the vCPU's."""
    text = "li r5,0\nli r6,300\nmtctr r6\nloop: addi r5,r5,1\nbdnz loop\nback: nop\nb back"
    with Host(clock="virtual") as host:
        guest = host.boot(program(text))
        recording = Recording(guest)
        with reversible(guest, Replay(recording)) as server:
            peer = Peer(server)
            assert peer.ask(b"vCont;r10000,10014:1").startswith(b"T05thread:1;")
            assert (guest.get("PC"), guest.get("R5")) == (0x10014, 300)
            assert assert_it_repeats_itself(recording) > 600
            assert {recording.past.stretch(n).executed for n in range(600)} == {(1,)}


def test_a_reboot_begins_a_new_history() -> None:
    reboot = "lis r3,0; ori r3,r3,0xf000; lis r4,block@h; ori r4,r4,block@l; sc 1; b ."
    block = "block: .byte 0,0,0x20,9, 0,0,0,0, 0,0,0,1\n.space 4"
    wait = "li r5,2000; mtctr r5; loop: bdnz loop"
    with Host(clock="virtual") as host:
        guest = host.boot(program(f"{wait}; {reboot}\n{block}", little=False))
        recording = Recording(guest)
        guest.run_for(Ticks(STEP * 3000))
        guest.run_for(Ticks(STEP * 100))
        assert (recording.past.first, recording.past.last) == (1, 2)
        assert assert_it_repeats_itself(recording) == 1
        past = Replay(recording)
        assert past.run_back(0, NOWHERE, no).why is Why.BEGINNING
        assert past.guest is not None
        assert (past.guest.get("PC"), past.guest.get("R5")) == (0x10000, 0)
        past.leave()
        guest.run_for(Ticks(STEP * 10_000))
        assert recording.past.first == recording.past.last > 5


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@needs_gdb
@pytest.mark.parametrize("vcpus", [1, 2])
def test_gdb_goes_back(vcpus: int) -> None:
    with Host(clock="virtual", cores=vcpus) as host:
        guest = host.boot(RACE_ELF, smp=vcpus)
        with reversible(guest, Replay(Recording(guest))) as server:
            show = 'printf "count=%lu\\n", {long}0x20000'
            said = gdb(
                server,
                *(f"break *{RACE_LOOP + 16:#x}", "continue", "continue", "continue", show, "reverse-stepi"),
                *('printf "pc=%lu\\n", $pc', show, "reverse-continue", show, "reverse-continue", show),
                *("set $r5 = 1", "stepi", 'printf "pc=%lu\\n", $pc', "continue", show, "delete"),
                *("watch {long}0x20020", "continue", "continue", "reverse-continue", "reverse-continue"),
                *("delete", "reverse-continue", 'printf "pc=%lu\\n", $pc', "continue", show, "kill"),
                little=False,
            )
    assert number(said, "count") == [3, 3, 2, 1, 2, 64], said
    # The step forward is from the place of the breakpoint; the beginning is the guest's.
    assert number(said, "pc") == [RACE_LOOP + 12, RACE_LOOP + 20, 0x10000]
    assert "the guest's past cannot be changed" in said
    assert said.count("No more reverse-execution history") == 4
    assert said.count("Old value = 0\nNew value = ") == 1
    assert said.count("\nNew value = 0\n") == 1


PERIOD = 0x40_0000
"""Ticks from one timer to the next in the guest below: 8 ms."""
TIMER_HANDLER = """
    mfspr r29,268
    subf r4,r28,r29
    cmpdi r4,0
    blt early
next: add r28,r28,r27
    mfspr r4,268
    subf r4,r4,r28
    mtspr 22,r4
    addi r30,r30,1
    rfid
early: addi r26,r26,1
    b next
"""
"""r28 is when the timer is due, r29 when it came, r30 how many there were."""
EARLY_AT = 0x900 + 4 * 10
TIMER_GUEST = """
    lis r27,0x40
    li r30,0; li r26,0; lis r25,2
    mfspr r28,268
    add r28,r28,r27
    mtspr 22,r27
    mfmsr r3; ori r3,r3,0x8000; mtmsrd r3,1
work: mfspr r31,268
    std r31,0(r25)
    b work
"""
"""It notes its timebase at 0x20000, for ever."""
STORE_AT = 0x10000 + 4 * 11


def timer_image() -> bytes:
    parts = [
        Part(assemble(TIMER_HANDLER, 0x900, False), 0x900),
        Part(assemble(TIMER_GUEST, 0x10000, False), 0x10000),
    ]
    return Elf(parts, 0x10000, little=False).build()


@needs_gdb
def test_from_a_missed_timer_back_over_a_move_to_the_switch_that_caused_it() -> None:
    """The guest moves to a host whose switch does not check for a wrap. From then on it is 2^24 ticks behind,
    so a timer comes before it is due.
    """
    image = timer_image()
    clock, resumed, stop = VirtualTime(), (1 << 60) - 0xC0, 4 * PERIOD - 60 * STEP
    # The move takes two flights. In the first entry after it the low 24 bits of the guest's clock wrap.
    here = Host(tb_origin=resumed - 2 * STEP - stop, clock=clock)
    there = Host.over(SabotagedSystem(Hypervisor(clock, 1 << 50), SABOTAGES[0]))
    with here, there:
        guest = here.boot(image)
        recording = Recording(guest)
        guest.run_for(Ticks(stop))
        moved, _ = move(guest, there, Link([Ticks(STEP)]), policy=FREEZE)
        assert moved.timebase().value == resumed
        recording.follow(moved)
        with reversible(moved, Replay(recording)) as server:
            said = gdb(
                server,
                *(f"break *{EARLY_AT:#x}", "continue", 'printf "early=%ld\\n", $r29 - $r28', "monitor time"),
                # Backwards over what the guest has noted, to where its clock was ahead of what the timer saw.
                *("delete", "set $came = $r29", "watch {long}0x20000 if {long}0x20000 > $came"),
                *("reverse-continue", 'printf "pc=%lu\\n", $pc', 'printf "noted=%lu\\n", $r31', "delete"),
                *(
                    "reverse-stepi",
                    "monitor time",
                    "reverse-stepi",
                    "monitor time",
                    'printf "pc=%lu\\n", $pc',
                ),
                *("stepi", "monitor time", "stepi", "monitor time", "kill"),
                little=False,
            )
    behind = 1 << 24
    (early,) = (int(found) for found in re.findall(r"early=(-?\d+)", said))
    assert -behind < early < -behind + 100 * STEP, said
    assert "No more reverse-execution history" not in said
    # The first thing that it noted on its new host is 2^24 ticks behind; the last on the old one is not.
    assert number(said, "pc") == [STORE_AT, STORE_AT + 4]
    (noted,) = number(said, "noted")
    assert 0 < resumed - noted < behind
    assert resumed - noted > behind - 10 * STEP
    offsets = [int(found, 16) for found in re.findall(r"vCPU 0: offset 0x([0-9a-f]+)", said)]
    assert [bool(offset) for offset in offsets] == [True, True, False, False, True]
