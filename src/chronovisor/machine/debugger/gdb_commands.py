"""What gdb asks of a stopped guest, answered: registers, memory, breakpoints, threads.

A vCPU is a thread; the thread's number is the vCPU's id plus 1, as 0 means "any" in gdb's protocol.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import Final, Literal

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.interface import Vcpu
from chronovisor.kvm.registers import RegisterError, read_register
from chronovisor.machine.debugger.gdb_protocol import PACKET_SIZE
from chronovisor.machine.debugger.guest_addresses import NoAddressError
from chronovisor.machine.debugger.inspector import Inspector, Watching, byte_order
from chronovisor.machine.debugger.target_description import (
    CORE,
    FPU,
    described_registers,
    target_description,
)
from chronovisor.machine.errors import MachineError

OK: Final = b"OK"
UNKNOWN: Final = b""
"""The answer to what is not there."""
BAD_REQUEST: Final = b"E16"
"""EINVAL, in hexadecimal digits as all that follow."""
_NO_ADDRESS: Final = b"E0e"
_FEATURES: Final = b"PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+" % PACKET_SIZE
_REVERSE: Final = b";ReverseStep+;ReverseContinue+"
_MOST_READ: Final = (PACKET_SIZE - 16) // 2
"""Bytes of memory in one answer."""


_BREAKPOINTS: Final = (0, 1)
"""The types of Z packets: software and hardware breakpoints, which are the same here."""
_WATCHPOINTS: Final = {2: Watching.STORES, 3: Watching.LOADS, 4: Watching.ALL}


class Commands:
    """Answers requests of one session."""

    def __init__(self, inspector: Inspector) -> None:
        self.inspector = inspector
        self._chosen = inspector.vcpus[0].id
        self.continued: int | None = None
        """The vCPU that is to go on, by its id; None for any."""
        self.registers = described_registers(self.chosen)
        self._by_number = {register.number: register for register in self.registers}
        self._in_g = [register for register in self.registers if register.feature in (CORE, FPU)]
        self._description = target_description(self.registers)
        self.order: Literal["little", "big"] = byte_order(inspector.guest)

    @property
    def chosen(self) -> Vcpu:
        """The vCPU that registers and memory are asked of."""
        return self.inspector.vcpu(self._chosen)

    @chosen.setter
    def chosen(self, vcpu: Vcpu) -> None:
        self._chosen = vcpu.id

    def answer(self, request: bytes) -> bytes:
        """The answer to a request: UNKNOWN for one that is not there, an error for nonsense."""
        name, rest = request[:1], request[1:]
        plain = {
            b"g": self._read_all,
            b"G": self._write_all,
            b"p": self._read_one,
            b"P": self._write_one,
            b"m": self._read_memory,
            b"M": self._write_memory,
            b"X": self._write_binary,
            b"H": self._choose,
            b"T": self._is_alive,
            b"z": self._remove,
            b"Z": self._insert,
            b"q": self._query,
            b"Q": self._set,
        }
        try:
            return plain[name](rest) if name in plain else UNKNOWN
        except NoAddressError:
            return _NO_ADDRESS
        except (ValueError, KeyError, IndexError, RegisterError, MachineError, KvmError) as error:
            is_past = isinstance(error, MachineError) and self.inspector.in_the_past
            return b"E." + str(error).encode() if is_past else BAD_REQUEST

    # Registers

    def _read_all(self, rest: bytes) -> bytes:
        return b"".join(self.value(register.number) for register in self._in_g)

    def value(self, number: int) -> bytes:
        """A register of the chosen vCPU, in hexadecimal digits."""
        register = self._by_number[number]
        return binascii.hexlify(register.encode(read_register(self.chosen, register.kvm_name), self.order))

    def _write_all(self, rest: bytes) -> bytes:
        data = binascii.unhexlify(rest)
        place = 0
        for register in self._in_g:
            size = register.bits // 8
            if place + size > len(data):
                return BAD_REQUEST
            self._write(register.number, data[place : place + size])
            place += size
        return OK

    def _read_one(self, rest: bytes) -> bytes:
        return self.value(int(rest, 16))

    def _write_one(self, rest: bytes) -> bytes:
        number, _, digits = rest.partition(b"=")
        self._write(int(number, 16), binascii.unhexlify(digits))
        return OK

    def _write(self, number: int, data: bytes) -> None:
        register = self._by_number[number]
        if len(data) != register.bits // 8:
            raise ValueError(f"{len(data)} bytes for {register.name}")
        value = int.from_bytes(data, self.order)
        before = read_register(self.chosen, register.kvm_name)
        after = register.changed(before, value)
        if after != before:
            self.inspector.write(self.chosen, register.kvm_name, after)

    # Memory and breakpoints

    def _read_memory(self, rest: bytes) -> bytes:
        address, size = (int(part, 16) for part in rest.split(b","))
        return binascii.hexlify(self.inspector.read_memory(self.chosen, address, min(size, _MOST_READ)))

    def _write_memory(self, rest: bytes) -> bytes:
        return self._write_at(rest, binascii.unhexlify)

    def _write_binary(self, rest: bytes) -> bytes:
        return self._write_at(rest, bytes)

    def _write_at(self, rest: bytes, decode: Callable[[bytes], bytes]) -> bytes:
        place, _, data = rest.partition(b":")
        address, size = (int(part, 16) for part in place.split(b","))
        if len(decoded := decode(data)) != size:
            return BAD_REQUEST
        self.inspector.write_memory(self.chosen, address, decoded)
        return OK

    def _insert(self, rest: bytes) -> bytes:
        kind, address, size = _place(rest)
        if kind in _BREAKPOINTS:
            self.inspector.add_breakpoint(self.chosen, address)
        elif kind in _WATCHPOINTS:
            self.inspector.add_watchpoint(self.chosen, address, size, _WATCHPOINTS[kind])
        else:
            return UNKNOWN
        return OK

    def _remove(self, rest: bytes) -> bytes:
        kind, address, size = _place(rest)
        if kind in _BREAKPOINTS:
            self.inspector.remove_breakpoint(address)
        elif kind in _WATCHPOINTS:
            self.inspector.remove_watchpoint(address, size, _WATCHPOINTS[kind])
        else:
            return UNKNOWN
        return OK

    # Threads

    def _choose(self, rest: bytes) -> bytes:
        named = rest[1:] not in (b"0", b"-1")
        if rest[:1] == b"g" and named:
            self.chosen = self.thread(rest[1:])
        elif rest[:1] == b"c":
            self.continued = self.thread(rest[1:]).id if named else None
        return OK

    def thread(self, number: bytes) -> Vcpu:
        """The vCPU of a thread's number in hexadecimal digits; MachineError if there is none."""
        return self.inspector.vcpu(int(number, 16) - 1)

    def _is_alive(self, rest: bytes) -> bytes:
        self.thread(rest)
        return OK

    # Questions

    def _query(self, rest: bytes) -> bytes:
        name, separator, argument = rest.partition(b":")
        if not separator:
            name, _, argument = rest.partition(b",")
        if rest.startswith(b"Supported"):
            return _FEATURES if self.inspector.past is None else _FEATURES + _REVERSE
        match name:
            case b"Xfer":
                return self._transfer(argument)
            case b"C":
                return b"QC" + thread_number(self.chosen)
            case b"fThreadInfo":
                return b"m" + b",".join(thread_number(vcpu) for vcpu in self.inspector.vcpus)
            case b"sThreadInfo":
                return b"l"
            case b"ThreadExtraInfo":
                vcpu = self.thread(argument)
                stopped = ", not started" if self.inspector.guest.is_stopped(vcpu.id) else ""
                return binascii.hexlify(f"vCPU {vcpu.id}{stopped}".encode())
            case b"Attached":
                return b"1"
            case b"qemu.PhyMemMode":
                return b"1" if self.inspector.real_addresses else b"0"
            case _:
                return UNKNOWN

    def _transfer(self, argument: bytes) -> bytes:
        kind, annex, place = argument.split(b":")[0], argument.split(b":")[-2], argument.split(b":")[-1]
        if kind != b"features" or annex != b"target.xml":
            return UNKNOWN if kind != b"features" else b"E00"
        start, size = (int(part, 16) for part in place.split(b","))
        piece = self._description[start : start + min(size, PACKET_SIZE // 2)]
        return (b"l" if start + len(piece) >= len(self._description) else b"m") + piece

    def _set(self, rest: bytes) -> bytes:
        if rest in (b"qemu.PhyMemMode:0", b"qemu.PhyMemMode:1"):
            self.inspector.real_addresses = rest.endswith(b"1")
            return OK
        return UNKNOWN


def _place(rest: bytes) -> tuple[int, int, int]:
    """Kind, address and size of a break- or watchpoint. ValueError."""
    kind, address, size = rest.split(b";")[0].split(b",")
    return int(kind, 16), int(address, 16), int(size, 16)


def thread_number(vcpu: Vcpu) -> bytes:
    """A vCPU's number as a thread, in hexadecimal digits."""
    return b"%x" % (vcpu.id + 1)
