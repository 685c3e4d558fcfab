"""Guests under gdb itself, and what a debugger that is none can send."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import hypothesis.strategies as st
import pytest
from elf_files import POWER_OFF, program
from hypothesis import given

from chronovisor.cli.debugging import ANY_PORT, debugger_socket
from chronovisor.cli.protection import Protection
from chronovisor.isa.assembly import assemble
from chronovisor.machine import Guest, Host, MachineError
from chronovisor.machine.debugger.gdb_commands import Commands
from chronovisor.machine.debugger.gdb_protocol import PACKET_SIZE, Damaged, Interrupt, Packet, Reader, frame
from chronovisor.machine.debugger.gdb_server import GdbServer
from chronovisor.machine.debugger.inspector import Inspector, Watching
from chronovisor.machine.debugger.monitor_console import MonitorConsole
from chronovisor.machine.door import Door
from chronovisor.timebase.types import Ticks

GDB: Final = "gdb-multiarch"
needs_gdb = pytest.mark.skipif(shutil.which(GDB) is None, reason=f"needs Debian's {GDB}")

COUNT: Final = f"""
    lis r9,0x4; li r5,0; li r6,0
loop: addi r5,r5,1
    addi r6,r6,2
    cmpld r5,r9
    blt loop
done: {POWER_OFF}
"""
LOOP_AT: Final = 0x1000C
"""The address of `loop`; the loop has four instructions."""
TURNS: Final = 0x40000
FOR_EVER: Final = program("li r5,0\nloop: addi r5,r5,1\nmr r6,r5\nb loop")
ENDLESS_AT: Final = 0x10004
"""The address of its `loop`."""


class PlainTime:
    """Stops a guest and lets it go on; its clock goes on."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def stop(self) -> None:
        self._guest.pause()

    def go_on(self) -> None:
        self._guest.resume()

    step_on = go_on


def at(place: str) -> Door:
    return debugger_socket(place, "--gdb", Protection()).open()


@contextlib.contextmanager
def debugged(guest: Guest, door: Door | None = None) -> Iterator[GdbServer]:
    server = GdbServer(guest, door or at(ANY_PORT), PlainTime(guest), lambda: guest.timebase().value)
    try:
        yield server
    finally:
        server.close()


def gdb(server: GdbServer, *commands: str, little: bool = True) -> str:
    """What gdb says to some commands, once it is connected."""
    first = [f"set endian {'little' if little else 'big'}", "set confirm off", "set width 0"]
    # Of itself it gives an answer up after two seconds.
    words = [GDB, "-nx", "-batch", "-l", "60"]
    for command in (*first, f"target remote {server.address}", *commands):
        words += ["-ex", command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    return done.stdout + done.stderr


def number(said: str, name: str) -> list[int]:
    """The values that gdb printed for `printf "NAME=%lu\\n"`."""
    return [int(value) for value in re.findall(rf"{name}=(\d+)", said)]


@needs_gdb
@pytest.mark.parametrize("engine", ["regions", "concrete"])
@pytest.mark.parametrize("little", [True, False])
def test_registers_memory_steps_and_breakpoints(little: bool, engine: str) -> None:
    with Host(engine=engine) as host:
        guest = host.boot(program(COUNT, little))
        code = guest.memory.read(LOOP_AT, 16)
        with debugged(guest) as server:
            said = gdb(
                server,
                *("info registers pc", f"hbreak *{LOOP_AT + 4:#x}", "continue", "continue"),
                *('printf "r5=%lu\\n", $r5', "stepi", 'printf "pc=%lu\\n", $pc', 'printf "r6=%lu\\n", $r6'),
                *("set $r31 = 0x1234567890", "set $cr = 0x12345678", "set $f3 = 2.5", "set $vr4.uint128 = 7"),
                *("p/x $r31", "p/x $cr", "p $f3", "p $vr4.uint128", f"x/i {LOOP_AT:#x}"),
                *("set {long}0x20000 = 0x0102030405060708", "p/x {long}0x20000", "x/2xb 0x20000"),
                *(
                    "monitor reg TB_OFFSET",
                    "monitor time",
                    "p/x $lpcr_64",
                    "info threads",
                    "monitor nonsense",
                ),
                *(f"tbreak *{LOOP_AT + 8:#x}", "set $r5 = 0x3fff0", "delete 1", "continue", "detach"),
                little=little,
            )
            ended = guest.run(60, paused=True)
        assert ended.ok, said
        # Gdb was never able to see a changed instruction, because there was none.
        assert guest.memory.read(LOOP_AT, 16) == code
        assert number(said, "r5") == [2], said
        assert number(said, "pc") == [LOOP_AT + 8]
        assert number(said, "r6") == [4]
        for expected in (
            *(
                "= 0x1234567890\n",
                "= 0x12345678\n",
                "= 2.5\n",
                "= 7\n",
                "addi    r5,r5,1",
                "= 0x102030405060708",
            ),
            *(f"0x{'08' if little else '01'}\t0x{'07' if little else '02'}", "TB_OFFSET 0x0000000000000000"),
            *(
                "guest timebase  0x",
                "vCPU 0: offset 0x0, DEC ",
                "Thread 1 (vCPU 0)",
                "unknown command: 'nonsense'",
            ),
            *("Temporary breakpoint 2, ", "detached"),
        ):
            assert expected in said, (expected, said)
        assert guest.get("R31") == 0x1234567890
        assert guest.get("FPR3") == 0x4004_0000_0000_0000
        assert guest.get("VR4") == 7
        assert guest.get("R5") == TURNS


@needs_gdb
def test_a_breakpoint_comes_into_a_loop_that_is_compiled_whole() -> None:
    with Host(engine="regions") as host:
        guest = host.boot(FOR_EVER)
        run_until_it_is_hot(guest)
        with debugged(guest) as server:
            # The second instruction shares a handler with the first.
            said = gdb(
                server,
                *(
                    f"break *{ENDLESS_AT + 4:#x}",
                    "continue",
                    'printf "r5=%lu\\n", $r5',
                    'printf "r6=%lu\\n", $r6',
                ),
                *("continue", 'printf "r5=%lu\\n", $r5', 'printf "r6=%lu\\n", $r6', "detach"),
            )
            first, second = number(said, "r5")
            assert second == first + 1, said
            assert number(said, "r6") == [first - 1, first]
            # It runs on without its breakpoint.
            assert guest.running
            assert guest.get("R5") > second


def run_until_it_is_hot(guest: Guest) -> None:
    """Let a guest run until some of its code runs in regions."""
    guest.resume()
    deadline = time.monotonic() + 60
    while not (found := guest.statistics()) or not found.instructions.regions:
        assert time.monotonic() < deadline, "no region came"
        time.sleep(0.05)


def test_no_region_comes_over_a_breakpoint() -> None:
    """The breakpoint is on a path that is seldom taken, in a loop that is hot."""
    with Host(engine="regions") as host:
        guest = host.boot(program("li r5,0\nli r6,0\nloop: addi r5,r5,1\nclrldi. r7,r5,42\nbne loop\nb loop"))
        run_until_it_is_hot(guest)
        inspector = Inspector(guest, PlainTime(guest), lambda: None)
        inspector.stop()
        vcpu, before = guest.vcpus[0], guest.get("R5") >> 22
        inspector.add_breakpoint(vcpu, 0x10014)
        for turn in range(before + 1, before + 25):
            inspector.resume([vcpu.id], [])
            deadline = time.monotonic() + 60
            while guest.running:
                assert time.monotonic() < deadline, f"missed after {turn} stops, at {guest.get('R5'):#x}"
                time.sleep(0.001)
            inspector.stop()
            stopped = inspector.take_stop()
            assert stopped is not None
            assert stopped.exit.address == 0x10014
            assert guest.get("R5") == turn << 22
            # As gdb does: a step goes over the breakpoint.
            inspector.resume([], [vcpu.id])
            while guest.running:
                time.sleep(0.001)
            inspector.stop()
            assert guest.get("PC") == 0x10008


@needs_gdb
@pytest.mark.parametrize("engine", ["regions", "concrete"])
def test_in_virtual_time_a_debugger_leaves_no_trace(engine: str) -> None:
    def run(is_debugged: bool) -> tuple[int, int, int]:
        with Host(clock="virtual", engine=engine, tb_origin=99) as host:
            guest = host.boot("hello-le.elf")
            if is_debugged:
                with debugged(guest) as server:
                    said = gdb(
                        server,
                        *("break *0x10048", "continue", "stepi", "stepi", "continue", "delete", "continue"),
                    )
                assert said.count("Breakpoint 1, 0x") == 2, said
                assert "exited normally" in said
            else:
                assert guest.run(60).ok
            return host.timebase.value, guest.get("R1"), len(guest.console_text)

    assert run(True) == run(False)


def test_a_step_counts_one_instruction() -> None:
    with Host(clock="virtual") as host:
        guest = host.boot(FOR_EVER)
        guest.run_for(Ticks(25600))
        vcpu, before, at = guest.vcpus[0], host.timebase, guest.get("PC")
        vcpu.single_step(True)
        guest.resume()
        while guest.running:
            time.sleep(0.01)
        guest.pause()
        vcpu.single_step(False)
        assert host.timebase - before == Ticks(256)
        assert guest.get("PC") == (at + 4 if at != ENDLESS_AT + 8 else ENDLESS_AT)


@pytest.mark.parametrize("engine", ["regions", "concrete"])
def test_code_that_is_written_is_executed(engine: str) -> None:
    with Host(engine=engine) as host:
        guest = host.boot(FOR_EVER)
        if engine == "regions":
            run_until_it_is_hot(guest)
        inspector = Inspector(guest, PlainTime(guest), lambda: None)
        inspector.stop()
        inspector.real_addresses = True
        inspector.write_memory(guest.vcpus[0], ENDLESS_AT, assemble("b .", ENDLESS_AT, little=True))
        inspector.resume([0], [])
        # Once it has been there for so often, it does not leave any more.
        deadline, there = time.monotonic() + 60, 0
        while there < 5:
            assert time.monotonic() < deadline
            # A guest that is looked at all the time does not run.
            time.sleep(0.01)
            there = there + 1 if guest.get("PC") == ENDLESS_AT else 0


@pytest.mark.parametrize("engine", ["regions", "concrete"])
def test_an_instructions_address_has_no_two_lowest_bits(engine: str) -> None:
    with Host(clock="virtual", engine=engine) as host:
        guest = host.boot(FOR_EVER)
        guest.set("PC", ENDLESS_AT + 3)
        guest.run_for(Ticks(256 * 6))
        assert guest.end is None
        assert (guest.get("PC"), guest.get("R5")) == (ENDLESS_AT, 2)


WATCHED: Final = """
    lis r4,2; li r5,0
loop: addi r5,r5,1
    std r5,8(r4)
    andi. r6,r5,0xff
    bne loop
    stw r5,0(r4)
    ld r7,0(r4)
    b loop
"""


@needs_gdb
@pytest.mark.parametrize("little", [True, False])
def test_watchpoints(little: bool) -> None:
    with Host() as host:
        guest = host.boot(program(WATCHED, little))
        with debugged(guest) as server:
            said = gdb(
                server,
                *("watch {int}0x20000", "continue", "continue", 'printf "r5=%lu\\n", $r5', "delete"),
                *("rwatch {int}0x20000", "continue", 'printf "r5=%lu\\n", $r5', "delete"),
                *("awatch {int}0x20000", "continue", "continue", 'printf "pc=%lu\\n", $pc', "kill"),
                little=little,
            )
        assert said.count("Old value = 0\nNew value = 256\n") == 1, said
        assert said.count("Old value = 256\nNew value = 512\n") == 1
        assert number(said, "r5") == [512, 512]
        assert "Hardware read watchpoint 2: {int}0x20000\n\nValue = 512" in said
        access = "Hardware access (read/write) watchpoint 3: {int}0x20000\n\n"
        assert f"{access}Old value = 512\nNew value = 768" in said
        assert f"{access}Value = 768" in said


FACILITIES_ON: Final = "lis r4,2; lis r8,2; lis r7,0x280; ori r7,r7,0x2000; mfmsr r6; or r6,r6,r7; mtmsrd r6"
ACCESSES: Final = {
    **dict.fromkeys(("stb r5,4(r4)", "stdu r5,0(r4)", "stmw r31,4(r4)", "stvx v1,0,r4", "dcbz 0,r4"), True),
    **dict.fromkeys(("stdcx. r5,0,r4", "ldat r5,r4,0", "stxv vs1,0(r4)", "sth r5,-1(r4)"), True),
    **dict.fromkeys(
        ("lbz r5,4(r4)", "ldarx r5,0,r4", "lvx v1,0,r4", "lxvx vs1,0,r4", "lmw r31,4(r4)"), False
    ),
}
"""Accesses to the doubleword at 0x20000, and whether they store."""


@pytest.mark.parametrize("engine", ["regions", "concrete"])
def test_every_kind_of_access_is_watched_and_not_made(engine: str) -> None:
    body = "\n".join(f"ldarx r6,0,r8\n{one}" if one.startswith("stdcx") else one for one in ACCESSES)
    with Host(engine=engine) as host:
        guest = host.boot(program(f"{FACILITIES_ON}\n{body}\nb .", little=False))
        inspector = Inspector(guest, PlainTime(guest), lambda: None)
        vcpu, found = guest.vcpus[0], []
        inspector.add_watchpoint(vcpu, 0x20000, 8, Watching.ALL)
        for _ in range(len(ACCESSES) + 1):
            inspector.resume([vcpu.id], [])
            wait_until_it_stops(guest)
            inspector.stop()
            stopped = inspector.take_stop()
            assert stopped is not None
            assert stopped.exit.watchpoint is not None
            found.append(stopped.exit.address)
            before = guest.memory.read(0x20000, 8)
            guest.memory.write(0x20000, b"unharmed")
            inspector.resume([vcpu.id], [])
            wait_until_it_stops(guest)
            inspector.stop()
            assert inspector.take_stop() == stopped
            assert guest.memory.read(0x20000, 8) == b"unharmed"
            guest.memory.write(0x20000, before)
            inspector.resume([], [vcpu.id])
            wait_until_it_stops(guest)
            inspector.stop()
        assert found == [0x1001C + 4 * n for n in range(len(ACCESSES) + 1)]


NEAR_WATCHED: Final = """
    lis r4,2; lis r8,4; li r5,0
loop: addi r5,r5,1
    std r5,8(r8)
    ld r6,8(r8)
    andi. r7,r5,0xfff
    bne loop
    std r5,32(r4)
    andis. r7,r5,1
    beq loop
    stw r5,4(r4)
    lwz r6,-2(r4)
    addis r5,r5,1
    b loop
"""
"""Each 4,096th turn it stores near a page's beginning. Sometimes it stores at the beginning, too, and loads
four bytes, two of which are in the page before.
"""


@pytest.mark.parametrize("engine", ["regions", "concrete"])
def test_what_is_stored_beside_a_watched_place_is_not_watched(engine: str) -> None:
    beside = "ldarx r6,0,r8\nstdcx. r5,0,r8\nldat r5,r8,0\nstd r5,0(r8)\nstd r5,16(r8)\nld r7,8(r8)"
    with Host(engine=engine) as host:
        guest = host.boot(program(f"lis r8,2\n{beside}\nb .", little=False))
        inspector = Inspector(guest, PlainTime(guest), lambda: None)
        inspector.add_watchpoint(guest.vcpus[0], 0x20008, 8, Watching.ALL)
        inspector.resume([0], [])
        wait_until_it_stops(guest)
        inspector.stop()
        assert guest.get("PC") == 0x10018


def test_only_accesses_to_a_watched_page_are_slow() -> None:
    with Host(engine="regions") as host:
        guest = host.boot(program(NEAR_WATCHED, little=False))
        run_until_it_is_hot(guest)
        inspector = Inspector(guest, PlainTime(guest), lambda: None)
        inspector.stop()
        vcpu, before = guest.vcpus[0], guest.statistics()
        assert before is not None
        inspector.add_watchpoint(vcpu, 0x20000, 6, Watching.ALL)
        hits = []
        for _ in range(6):
            inspector.resume([vcpu.id], [])
            wait_until_it_stops(guest)
            inspector.stop()
            stopped = inspector.take_stop()
            assert stopped is not None
            hits.append((stopped.exit.address, guest.get("R5") & 0x1FFFF))
            inspector.resume([], [vcpu.id])
            wait_until_it_stops(guest)
            inspector.stop()
        # Every one of them, and no other.
        store, load = 0x1002C, 0x10030
        assert hits[hits.index((store, 0x10000)) :][:4] == [(store, 0x10000), (load, 0x10000)] * 2
        after = guest.statistics()
        assert after is not None
        ran = after.instructions.total - before.instructions.total
        assert ran > 500_000
        assert after.instructions.concrete - before.instructions.concrete < ran / 50


def wait_until_it_stops(guest: Guest) -> None:
    deadline = time.monotonic() + 60
    while guest.running:
        assert time.monotonic() < deadline, f"it runs on, at {guest.get('PC'):#x}"
        time.sleep(0.001)


# What a debugger that is none can send


class Peer:
    """A plain connection to the server."""

    def __init__(self, server: GdbServer) -> None:
        host, port = server.address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=60)

    def ask(self, request: bytes) -> bytes:
        """Send a request and return the answer's data; it is acknowledged."""
        self.socket.sendall(frame(request))
        return self.answer()

    def answer(self) -> bytes:
        received = b""
        while not re.search(rb"#[0-9a-f]{2}$", received):
            piece = self.socket.recv(4096)
            assert piece, received
            received += piece
        self.socket.sendall(b"+")
        return received.lstrip(b"+-")[1:-3]


def test_requests_that_make_no_sense_are_answered_and_the_guest_lives() -> None:
    with Host() as host:
        guest = host.boot(FOR_EVER)
        guest.resume()
        with debugged(guest) as server:
            peer = Peer(server)
            assert peer.ask(b"?").startswith(b"T02thread:1;")
            assert not guest.running
            for request in (
                *(
                    b"m",
                    b"mxyz,4",
                    b"m0",
                    b"m0,",
                    b"M0,4:00",
                    b"M0,2:zz",
                    b"X0,3:ab",
                    b"p",
                    b"pffff",
                    b"P0",
                    b"G00",
                ),
                *(b"P0=00", b"P40=zz", b"Z0", b"Z0,zz,4", b"Hg7f", b"T7f", b"qXfer:features:read:other:0,10"),
                *(
                    b"qRcmd,zz",
                    b"qThreadExtraInfo,99",
                    b"vCont;c:zz",
                    b"vCont;c:77",
                    b"qXfer:features:read:target.xml:",
                ),
            ):
                answer = peer.ask(request)
                assert answer.startswith(b"E") or answer == b"", (request, answer)
            assert peer.ask(b"m%x,4" % (guest.memory.size + 4096)) == b"E0e"
            assert peer.ask(b"Z0,%x,4" % (1 << 40)) == b"E0e"
            for request in (
                b"",
                b"vMustReplyEmpty",
                b"Z7,10000,8",
                b"qNoSuchThing",
                b"\xff\x00",
                b"jThreads",
            ):
                assert peer.ask(request) == b"", request
            peer.socket.sendall(b"$m0,4#00")
            assert peer.socket.recv(10) == b"-"
            peer.socket.sendall(b"garbage" + bytes(range(256)) + b"$" + b"a" * (3 * PACKET_SIZE) + b"#00")
            assert peer.ask(b"?").startswith(b"T02")
            # It vanishes: the guest goes on, its breakpoint is gone.
            assert peer.ask(b"Z0,%x,4" % ENDLESS_AT) == b"OK"
            peer.socket.close()
            deadline = time.monotonic() + 60
            while not guest.running:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(0.05)
            assert guest.running
            # The next one is welcome, and a second one is not.
            peer = Peer(server)
            assert peer.ask(b"?").startswith(b"T02")
            assert b"another debugger" in Peer(server).ask(b"qSupported")
            peer.socket.sendall(frame(b"vCont;c"))
            time.sleep(0.05)
            peer.socket.sendall(b"+\x03")
            assert peer.answer().startswith(b"T02thread:1;")
            # It vanishes while the guest runs, which goes on; the next one is welcome once that was noticed.
            peer.socket.sendall(frame(b"vCont;c"))
            peer.socket.close()
            peer = Peer(server)
            while b"another debugger" in peer.ask(b"qSupported"):
                assert time.monotonic() < deadline
                peer = Peer(server)
            assert peer.ask(b"?").startswith(b"T02")
            peer.socket.sendall(frame(b"k"))
            deadline = time.monotonic() + 60
            while guest.end is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)


def test_a_breakpoint_is_reached_while_the_guest_cannot_be_stopped() -> None:
    """As while it is on its way to another host."""

    class BusyTime(PlainTime):
        busy = False

        def stop(self) -> None:
            if self.busy:
                raise MachineError("it is on its way")
            super().stop()

    with Host() as host:
        guest = host.boot(FOR_EVER)
        moving = BusyTime(guest)
        server = GdbServer(guest, at(ANY_PORT), moving, lambda: 0)
        peer = Peer(server)
        assert peer.ask(b"Z0,%x,4" % ENDLESS_AT) == b"OK"
        moving.busy = True
        peer.socket.sendall(frame(b"vCont;c"))
        wait_until_it_stops(guest)
        peer.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            peer.socket.recv(1) and peer.socket.recv(10)
        peer.socket.sendall(b"\x03")
        assert peer.answer() == b"O" + b"it is on its way\n".hex().encode()
        moving.busy = False
        peer.socket.settimeout(60)
        assert peer.answer().startswith(b"T05thread:1;")
        assert peer.ask(b"D") == b"OK"
        server.close()


def test_steps_through_a_range() -> None:
    """As gdb steps through a line of source: it is told of the end alone."""
    text = "li r5,0\nli r6,3\nmtctr r6\nloop: addi r5,r5,1\nbdnz loop\nback: nop\nb back"
    with Host() as host:
        guest = host.boot(program(text))
        with debugged(guest) as server:
            peer = Peer(server)
            assert b";r" in peer.ask(b"vCont?")
            assert peer.ask(b"vCont;r10000,10014:1").startswith(b"T05thread:1;")
            assert (guest.get("PC"), guest.get("R5")) == (0x10014, 3)
            # Not through a breakpoint.
            guest.set("PC", 0x10000)
            assert peer.ask(b"Z0,10010,4") == b"OK"
            assert peer.ask(b"vCont;r10000,10014:1;c").startswith(b"T05")
            assert (guest.get("PC"), guest.get("R5")) == (0x10010, 1)
            # Nor for ever: it is interrupted.
            guest.set("PC", 0x10014)
            peer.socket.sendall(frame(b"vCont;r10014,1001c:1"))
            time.sleep(0.1)
            peer.socket.sendall(b"\x03")
            assert peer.answer().startswith(b"T02thread:1;")
            for wrong in (b"vCont;r", b"vCont;rzz,1:1", b"vCont;r1:1"):
                assert peer.ask(wrong) == b""


def test_packets_in_pieces_and_with_escapes() -> None:
    sent = (
        frame(b"X0,4:}$#*")
        + b"\x03"
        + frame(b"?")
        + b"$abc#zz"
        + b"$old$new#"
        + b"%02x" % (sum(b"new") & 255)
    )
    assert b"$#" not in sent
    expected = [Packet(b"X0,4:}$#*"), Interrupt(), Packet(b"?"), Damaged(), Packet(b"new")]
    for size in (1, 2, 7, len(sent)):
        reader = Reader()
        found = [event for at in range(0, len(sent), size) for event in reader.feed(sent[at : at + size])]
        assert found == expected


@given(st.binary(), st.binary(max_size=40))
def test_any_data_comes_through_a_packet(data: bytes, rubbish: bytes) -> None:
    assert list(Reader().feed(frame(data))) == [Packet(data)]
    # What came before a packet is forgotten with it, if it was the end of another.
    assert list(Reader().feed(rubbish.replace(b"#", b"") + frame(data)))[-1] == Packet(data)


def test_any_line_of_monitor_is_answered() -> None:
    with Host() as host:
        guest = host.boot(FOR_EVER, smp=2)
        inspector = Inspector(guest, PlainTime(guest), lambda: None)
        commands = Commands(inspector)
        heard: list[str] = []

        def human(line: str, vcpu: int) -> str:
            heard.append(line)
            assert vcpu == commands.chosen.id
            return f"{line}\r\n"

        words = (
            "time",
            "reg",
            "R3",
            "TB_OFFSET",
            "99999999999999999999",
            "-1",
            "memory",
            "real",
            "effective",
        )
        more = ("endian", "little", "big", "help", "?", "info", "registers", "\x00", "é")

        @given(st.lists(st.sampled_from((*words, *more)), max_size=4), st.sampled_from((None, human)))
        def ask(line: list[str], other: Callable[[str, int], str] | None) -> None:
            heard.clear()
            said = MonitorConsole(inspector, commands, lambda: 0, other).answer(" ".join(line)).decode()
            assert said.endswith("\n")
            assert "\r" not in said
            ours = not line or line[0] in ("time", "reg", "memory", "endian")
            if other is not None and not ours and (line[0] not in ("help", "?") or len(line) > 2):
                assert heard == [" ".join(line)]

        ask()


def test_any_request_is_answered() -> None:
    with Host() as host:
        guest = host.boot(FOR_EVER, smp=2)
        commands = Commands(Inspector(guest, PlainTime(guest), lambda: None))
        letters = st.sampled_from([bytes((letter,)) for letter in b"gGpPmMXHTzZqQ"])
        words = st.sampled_from(
            (
                *(
                    b"Xfer:features:read:target.xml:",
                    b"ThreadExtraInfo,",
                    b"qemu.PhyMemMode:",
                    b"g",
                    b"0,",
                ),
                *(b"10000,", b",", b"-1", b":", b";", b"=", b"8", b"2,20000,8", b"ffffffffffffffff,", b"1"),
                *(b"fThreadInfo", b"00" * 40),
            )
        )
        answered = 0

        @given(letters, st.lists(st.one_of(words, st.binary(max_size=6)), max_size=4))
        def ask(letter: bytes, rest: list[bytes]) -> None:
            nonlocal answered
            answer = commands.answer(letter + b"".join(rest))
            assert len(answer) <= PACKET_SIZE
            answered += answer != b"" and not answer.startswith(b"E")

        ask()
        assert answered
        assert guest.end is None


def test_a_client_whose_machine_is_gone_is_found_out() -> None:
    door = at(ANY_PORT)
    host, port = door.address.split(":")
    with socket.create_connection((host, int(port))), door.accept() as client:
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    door.close()


def test_where_debuggers_connect(tmp_path: Path) -> None:
    with Host() as host:
        guest = host.boot(FOR_EVER)
        path = tmp_path / "gdb"
        with debugged(guest, at(f"unix:{path}")) as server:
            assert server.address == str(path)
            assert path.stat().st_mode & 0o777 == 0o600
            with pytest.raises(MachineError, match="in use"):
                at(f"unix:{path}")
        assert not path.exists()
        with debugged(guest) as server, pytest.raises(MachineError, match="in use"):
            at(server.address)
    for address in ("0.0.0.0:1234", "nowhere", "1.2.3.4:70000", "", "unix:" + "x" * 200, "unix:/tmp/gdb"):
        with pytest.raises(MachineError, match=r"--gdb|address"):
            at(address)
    with pytest.raises(MachineError, match=re.escape("write [HOST:]PORT, tls:HOST:PORT or unix:PATH")):
        at("tls")
    with pytest.raises(MachineError, match="--tls-credentials"):
        at("tls:127.0.0.1:1234")
