"""One gdb at a guest: from its connection, which stops the guest, to its end, which lets the guest go on."""

from __future__ import annotations

import binascii
import contextlib
import select
import socket
from collections.abc import Callable, Iterable
from typing import Final

from chronovisor.kvm.errors import KvmError
from chronovisor.machine.debugger.gdb_commands import BAD_REQUEST, OK, UNKNOWN, Commands, thread_number
from chronovisor.machine.debugger.gdb_protocol import (
    ACKNOWLEDGED,
    INTERRUPT,
    NOT_ACKNOWLEDGED,
    PACKET_SIZE,
    Damaged,
    Interrupt,
    Packet,
    Reader,
    Repeat,
    frame,
)
from chronovisor.machine.debugger.inspector import Inspector, Stopped
from chronovisor.machine.debugger.monitor_console import MonitorConsole
from chronovisor.machine.debugger.past import Arrival, Why
from chronovisor.machine.errors import MachineError
from chronovisor.memory import Watchpoint

_TRAP: Final = 5
"""SIGTRAP, by gdb's numbers: a breakpoint or a step."""
_INTERRUPTED: Final = 2
"""SIGINT: it was stopped from outside."""
_EXPEDITED: Final = (1, 64, 67)
"""The registers that gdb asks for at once at each stop: the stack pointer, pc, lr."""
_PIECE: Final = 1 << 16
_LONGEST_OUTPUT: Final = PACKET_SIZE // 4
"""Bytes in one packet of what a line of `monitor` says."""
_BETWEEN_TRIES: Final = 0.2
"""Seconds until a guest that could not be stopped is stopped again."""
_SEND_PATIENCE: Final = 10.0
"""Seconds for a debugger to take an answer."""


def _ready(sockets: list[socket.socket], seconds: float | None) -> list[socket.socket]:
    """Those from which something can be read, after at most so many seconds (None: no limit)."""
    # Not `select.select`: it takes no descriptor from 1,024 on, which a process with many guests has.
    poll = select.poll()
    for one in sockets:
        poll.register(one, select.POLLIN)
    found = {descriptor for descriptor, _ in poll.poll(None if seconds is None else 1000 * seconds)}
    return [one for one in sockets if one.fileno() in found]


class Gone(Exception):
    """The debugger has gone away."""


class Session:
    """The talk with one debugger, on the thread that calls `run`.

    `wake` becomes readable if the guest stops itself, and when the guest's process is about to end.
    """

    def __init__(
        self,
        connection: socket.socket,
        wake: socket.socket,
        inspector: Inspector,
        guest_time: Callable[[], int],
        human: Callable[[str, int], str] | None = None,
    ) -> None:
        self._connection = connection
        self._wake = wake
        self._inspector = inspector
        self._guest_time = guest_time
        self._human = human
        self._commands: Commands
        self._console: MonitorConsole
        self._reader = Reader()
        self._acknowledges = True
        self._last = b""
        self._runs = self._closing = False
        self._through = range(0)
        """The addresses through which steps go on by themselves."""
        self._unheeded: Stopped | None = None
        """What has stopped the guest while it moved away."""
        self._stop_reply = b""

    def run(self) -> None:
        """Serve the debugger until it leaves, kills the guest or vanishes, or the guest ends."""
        self._connection.settimeout(_SEND_PATIENCE)
        self._inspector.stop()
        try:
            self._commands = Commands(self._inspector)
            self._console = MonitorConsole(self._inspector, self._commands, self._guest_time, self._human)
            self._stopped_by(_INTERRUPTED)
            with contextlib.suppress(Gone, OSError):
                while self._inspector.guest.end is None:
                    self._wait()
                self._send(self._how_it_ended())
        finally:
            if not self._closing:
                self._inspector.leave()

    def _wait(self) -> None:
        patience = None if self._unheeded is None else _BETWEEN_TRIES
        ready = _ready([self._connection, self._wake], patience)
        if self._wake in ready and not self._wake.recv(_PIECE):
            self._closing = True
            if self._inspector.guest.end is None:
                raise Gone
        self._look_for_stop()
        if self._connection in ready:
            received = self._connection.recv(_PIECE)
            if not received:
                raise Gone
            for event in self._reader.feed(received):
                self._take(event)

    def _take(self, event: Packet | Interrupt | Repeat | Damaged) -> None:
        match event:
            case Interrupt():
                if self._runs:
                    self._interrupt()
            case Repeat():
                self._connection.sendall(self._last)
            case Damaged():
                if self._acknowledges:
                    self._connection.sendall(NOT_ACKNOWLEDGED)
            case Packet(data):
                if self._acknowledges:
                    self._connection.sendall(ACKNOWLEDGED)
                # A debugger that asks while the guest runs has lost count: nothing is answered.
                if not self._runs:
                    self._answer(data)

    def _send(self, data: bytes) -> None:
        self._last = frame(data)
        self._connection.sendall(self._last)

    # Requests

    def _answer(self, request: bytes) -> None:
        if request == b"?":
            self._send(self._stop_reply)
        elif request == b"QStartNoAckMode":
            self._send(OK)
            self._acknowledges = False
        elif request[:1] == b"D" or request[:6] == b"vDetach":
            self._send(OK)
            raise Gone
        elif request == b"k" or request.startswith(b"vKill;"):
            if request != b"k":
                self._send(OK)
            self._inspector.guest.stop()
            raise Gone
        elif request in (b"bs", b"bc"):
            self._go_back(request == b"bs")
        elif request.startswith(b"qRcmd,"):
            self._answer_line(request[6:])
        elif request == b"vCont?":
            self._send(b"vCont;c;C;s;S;t;r")
        elif request.startswith(b"vCont;"):
            self._continue(request[6:].split(b";"))
        elif request[:1] in (b"c", b"C", b"s", b"S"):
            # The address that may follow is one that gdb has not sent for decades.
            self._continue([request[:1] + b":" + thread_number(self._commands.chosen), b"c"])
        else:
            self._send(self._commands.answer(request))

    def _continue(self, actions: Iterable[bytes]) -> None:
        """Let threads go on as vCont's actions say: for each the first that names it, or names no thread."""
        decided: dict[int, bytes] = {}
        through = range(0)
        everyone = [vcpu.id for vcpu in self._inspector.vcpus]
        try:
            for action in actions:
                what, _, whose = action.partition(b":")
                named = everyone if whose in (b"", b"-1") else [self._commands.thread(whose).id]
                for vcpu in named:
                    decided.setdefault(vcpu, what[:1].lower())
                if what[:1] == b"r":
                    first, end = (int(part, 16) for part in what[1:].split(b","))
                    through = range(first, end)
            run = [vcpu for vcpu, what in decided.items() if what == b"c"]
            step = [vcpu for vcpu, what in decided.items() if what in (b"s", b"r")]
            if self._inspector.in_the_past:
                chosen = step[0] if step else self._commands.chosen.id
                self._arrive(self._inspector.go_on(chosen, bool(step), self._is_interrupted), False)
                return
            self._inspector.resume(run, step)
        except (ValueError, MachineError, KvmError) as error:
            self._send(UNKNOWN if isinstance(error, ValueError) else b"E." + str(error).encode())
            return
        self._runs, self._through = True, through

    def _answer_line(self, digits: bytes) -> None:
        """Answer a line of gdb's `monitor`: what is said, in as many packets as that takes, and OK."""
        try:
            said = self._console.answer(binascii.unhexlify(digits).decode(errors="replace"))
        except ValueError:
            self._send(BAD_REQUEST)
            return
        for at in range(0, len(said), _LONGEST_OUTPUT):
            self._send(b"O" + binascii.hexlify(said[at : at + _LONGEST_OUTPUT]))
        self._send(OK)

    # The past

    def _go_back(self, step: bool) -> None:
        inspector, vcpu = self._inspector, self._commands.continued
        chosen = self._commands.chosen.id if vcpu is None else vcpu
        go = inspector.step_back if step else inspector.run_back
        try:
            self._arrive(go(chosen, self._is_interrupted), True)
        except MachineError as error:
            self._send(b"E." + str(error).encode())

    def _arrive(self, arrival: Arrival, backwards: bool) -> None:
        """Report the arrival to the debugger."""
        why = b""
        if arrival.why is Why.BEGINNING or arrival.why is Why.PRESENT:
            why = b"replaylog:%s;" % (b"begin" if backwards else b"end")
        elif arrival.watchpoint is not None:
            why = self._watched(arrival.watchpoint)
        self._commands.chosen = self._inspector.vcpu(arrival.vcpu)
        self._tell_stop(_INTERRUPTED if arrival.why is Why.INTERRUPTED else _TRAP, why)

    def _is_interrupted(self) -> bool:
        """Whether the debugger wants no more of what it has asked for, or is gone."""
        if not _ready([self._connection], 0):
            return False
        came = self._connection.recv(1, socket.MSG_PEEK)
        if came == bytes((INTERRUPT,)):
            return bool(self._connection.recv(1))
        return not came

    # Stops

    def _interrupt(self) -> None:
        try:
            self._inspector.stop()
        except MachineError as error:
            # It is on its way to another host. It stays under way.
            self._send(b"O" + binascii.hexlify(f"{error}\n".encode()))
            return
        self._tell_stop(_INTERRUPTED)

    def _look_for_stop(self) -> None:
        if not self._runs:
            return
        stopped = self._unheeded or self._inspector.take_stop()
        if stopped is None:
            return
        try:
            if self._is_on_its_way(stopped):
                self._inspector.step_on()
                return
            self._inspector.stop()
        except MachineError:
            # It is on its way to another host, and stands still. If it stays here, this is told later.
            self._unheeded = stopped
            return
        self._commands.chosen = self._inspector.vcpu(stopped.vcpu)
        hit = stopped.exit.watchpoint
        self._tell_stop(_TRAP, b"" if hit is None else self._watched(hit))

    def _watched(self, hit: Watchpoint) -> bytes:
        address, what = self._inspector.watched_address(hit)
        return b"%s:%x;" % (what.value.encode(), address)

    def _is_on_its_way(self, stopped: Stopped) -> bool:
        """Whether a single step was one of many through a line of source, and none has come to its end."""
        address = stopped.exit.address
        is_inside = stopped.exit.stepped and address in self._through
        return is_inside and not self._inspector.is_breakpoint(address)

    def _tell_stop(self, signal: int, why: bytes = b"") -> None:
        self._runs, self._unheeded = False, None
        if self._inspector.guest.end is None:
            self._stopped_by(signal, why)
            self._send(self._stop_reply)

    def _stopped_by(self, signal: int, why: bytes = b"") -> None:
        values = b"".join(b"%x:%s;" % (number, self._commands.value(number)) for number in _EXPEDITED)
        self._stop_reply = b"T%02x%sthread:%s;%s" % (
            signal,
            why,
            thread_number(self._commands.chosen),
            values,
        )

    def _how_it_ended(self) -> bytes:
        end = self._inspector.guest.end
        assert end is not None
        return b"W%02x" % (not end.ok)
