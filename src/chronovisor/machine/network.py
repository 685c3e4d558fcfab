"""What is at the other end of a guest's network: passt, or a tap device of the machine.

passt is a process without privileges that gives its guest the machine's own network: the guest's connections
become connections of passt's. It speaks over a unix socket, each frame behind its length in 4 bytes (the
protocol of QEMU's `-netdev stream`). A tap device is a network card of the machine's, for bridges and routes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import ipaddress
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chronovisor.machine.errors import MachineError

LARGEST_FRAME: Final = 65535 + 18
"""Bytes: the longest packet, behind a header with a VLAN's tag."""
_LENGTH: Final = struct.Struct(">I")
_CHUNK: Final = 1 << 18
"""Bytes that are read at once."""
_WINDOW: Final = 8 << 20
"""Bytes that may wait in the socket to passt, on either side."""
MTU: Final = 65512
"""What passt tells guests of their card: the largest that Linux's driver takes is 65,513 bytes."""
_SO_SNDBUFFORCE: Final = 32
_TUNSETIFF: Final = 0x4004_54CA
_TAP_WITHOUT_HEADER: Final = 0x1002
"""IFF_TAP and IFF_NO_PI (the kernel's Documentation/networking/tuntap.rst)."""
_INTERFACE: Final = struct.Struct("16sH22x")
_LONGEST_NAME: Final = 15
_MAC: Final = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_NUMBER: Final = re.compile(r"\d{1,5}", re.ASCII)
_PORT_OPTIONS: Final = {"tcp": "--tcp-ports", "udp": "--udp-ports"}
"""passt's options, by ours."""
_OWN_PREFIX: Final = bytes((0x52, 0x54, 0x00))
"""How addresses of virtual cards begin, as QEMU's do."""


@dataclass(frozen=True, slots=True)
class NetworkOption:
    """A network as a user names it."""

    tap: str = ""
    """A tap device's name; passt if there is none."""
    mac: bytes = b""
    """The card's address; a random one if there is none."""
    ports: tuple[tuple[str, str], ...] = ()
    """What of this machine's ports leads to the guest, for passt: "tcp" or "udp", and ADDRESS/PORT:PORT."""

    @classmethod
    def parse(cls, text: str) -> NetworkOption | None:
        """Read `passt|tap=NAME|none[,mac=ADDRESS][,tcp|udp=[ADDRESS/]PORT[:PORT]…]`, ports for passt alone.

        None for no network, MachineError for something else.
        """
        kind, *options = text.split(",")
        mac, ports = b"", list[tuple[str, str]]()
        for option in options:
            key, _, value = option.partition("=")
            if key == "mac" and _MAC.fullmatch(value) and not int(value[:2], 16) & 1:
                mac = bytes.fromhex(value.replace(":", ""))
            elif key in _PORT_OPTIONS and kind == "passt" and (port := _port(value)):
                ports.append((key, port))
            else:
                raise MachineError(
                    f"net {text!r}: {option!r} is no option: write mac=52:54:00:12:34:56 or, for passt, "
                    "tcp=[ADDRESS/]PORT:PORT of the guest"
                )
        name, given, tap = kind.partition("=")
        if kind == "none" and not options:
            return None
        if kind == "passt":
            return cls("", mac, tuple(ports))
        if name == "tap" and given and 0 < len(tap.encode()) <= _LONGEST_NAME:
            return cls(tap, mac)
        raise MachineError(f"net {text!r}: write passt, tap=NAME or none")

    def check(self) -> None:
        """MachineError if there is no such network here."""
        if self.tap and not _is_there(self.tap):
            raise MachineError(
                f"net tap={self.tap}: there is no such device: make it with "
                f"`ip tuntap add {self.tap} mode tap user $USER`"
            )
        if not self.tap and shutil.which("passt") is None:
            raise MachineError(
                "net passt: there is no program of that name here: install Debian's package passt"
            )

    def open(self) -> Link:
        """Return the open link; MachineError if there is none."""
        self.check()
        return Tap(self.tap) if self.tap else Passt(self.ports)

    def address(self) -> bytes:
        """Return the card's address."""
        return self.mac or _OWN_PREFIX + os.urandom(3)


def _port(text: str) -> str | None:
    """Return a port as passt takes it, one of the loopback if there is no address; None if it is none."""
    address, slash, numbers = text.rpartition("/")
    here, colon, there = numbers.partition(":")
    if not all(
        _NUMBER.fullmatch(port) and 0 < int(port) < 1 << 16 for port in (here, there if colon else "1")
    ):
        return None
    try:
        found = ipaddress.ip_address(address if slash else "127.0.0.1")
    except ValueError:
        return None
    return f"{found}/{numbers}"


def _is_there(device: str) -> bool:
    """Whether this process's network namespace has the device. (/sys shows those of whoever mounted it.)"""
    try:
        socket.if_nametoindex(device)
    except OSError:
        return False
    return True


def _timer() -> int:
    """Return the descriptor of a timer (timerfd), which is not set."""
    descriptor: int = ctypes.CDLL(None, use_errno=True).timerfd_create(
        time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC
    )
    if descriptor < 0:
        raise MachineError(f"net: there is no timer: {os.strerror(ctypes.get_errno())}")
    return descriptor


class LinkEndedError(Exception):
    """The other end is gone; the text says how."""


class Link(ABC):
    """The way to the other end. One thread sends, another receives."""

    prefixed = False
    """Whether each frame is sent behind its length, in 4 bytes."""
    in_memory = False
    """Whether frames only go through this machine's memory: they need no checksums of TCP, and may be larger
    than what the guest takes for its network's largest.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        """What frames are written to. It does not wait."""
        self._called = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._call = select.poll()
        self._call.register(self._called, select.POLLIN)
        self._ready = select.epoll()
        self.alarm = _timer()
        """The descriptor of a timer that makes `await_frames` look for frames."""
        for one in (descriptor, self._called, self.alarm):
            self._ready.register(one, select.EPOLLIN)

    @property
    def watch(self) -> int:
        """The descriptor of the epoll instance by which `await_frames` waits."""
        return self._ready.fileno()

    def await_frames(self, seconds: float | None = None) -> bool:
        """Wait for frames; False after `interrupt`, or after so many seconds."""
        found = [descriptor for descriptor, _ in self._ready.poll(seconds)]
        if self.alarm in found:
            with contextlib.suppress(BlockingIOError):
                os.read(self.alarm, 8)
        if self._called in found:
            os.eventfd_read(self._called)
            return False
        return bool(found)

    def listen(self) -> None:
        """Have `await_frames` end as soon as frames come: an idle vCPU may have taken that over."""
        self._ready.modify(self.descriptor, select.EPOLLIN)

    def wait(self, seconds: float | None = None) -> None:
        """Wait for `interrupt` as `await_frames` does, and leave frames at the other end."""
        if self._call.poll(None if seconds is None else seconds * 1000):
            os.eventfd_read(self._called)

    def interrupt(self) -> None:
        """Have `await_frames` or `wait` return, now or when it is called next. From any thread."""
        os.eventfd_write(self._called, 1)

    @property
    def at_rest(self) -> bool:
        """Whether nothing of what `send` has begun is left to be sent."""
        return True

    @property
    def begins_with_size(self) -> bool:
        """Whether the next that can be read from the descriptor is a frame behind its size in 4 bytes."""
        return False

    @abstractmethod
    def read(self) -> Sequence[memoryview]:
        """Return frames that are there, valid up to the next call. LinkEndedError if none can come."""

    @abstractmethod
    def send(self, frame: Sequence[memoryview]) -> bool:
        """Send a frame, which lies in pieces; False if it is lost because the other end is slow, or gone."""

    def close(self) -> None:
        """End it. No other method is called then."""
        self._ready.close()
        os.close(self.alarm)
        os.close(self._called)


class Passt(Link):
    """A passt process of this guest's own."""

    prefixed = True
    in_memory = True

    def __init__(self, ports: Sequence[tuple[str, str]] = ()) -> None:
        forwarded = [word for kind, port in ports for word in (_PORT_OPTIONS[kind], port)]
        self._socket, other = socket.socketpair()
        for end in (self._socket, other):
            _enlarge(end)
        said, say = os.pipe()
        # Whatever it says: it must never wait for us to read that.
        os.set_blocking(say, False)
        os.set_blocking(said, False)
        self._said = said
        try:
            self._process = subprocess.Popen(
                [
                    "passt",
                    "--foreground",
                    "--quiet",
                    "--mtu",
                    str(MTU),
                    "--fd",
                    str(other.fileno()),
                    *forwarded,
                ],
                pass_fds=(other.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=say,
                # Keys that end this process must not end passt first.
                start_new_session=True,
            )
        except OSError as error:
            self._socket.close()
            os.close(said)
            raise MachineError(f"net passt: it cannot be started: {error.strerror}") from None
        finally:
            other.close()
            os.close(say)
        self._socket.setblocking(False)
        super().__init__(self._socket.fileno())
        self._received = memoryview(bytearray(_CHUNK + _LENGTH.size + LARGEST_FRAME))
        """What came last, and room behind it."""
        self._begin = self._end = 0
        """Where it has what was not returned yet: less than a frame."""
        self._unsent = b""

    def read(self) -> Sequence[memoryview]:
        """Return the whole frames that passt has sent."""
        received, left = self._received, self._end - self._begin
        received[:left] = received[self._begin : self._end]
        self._begin, self._end = 0, left
        try:
            count = self._socket.recv_into(received[left : left + _CHUNK])
        except BlockingIOError:
            return ()
        except OSError as error:
            raise LinkEndedError(self._how_it_ended(error.strerror or "")) from None
        if not count:
            raise LinkEndedError(self._how_it_ended(""))
        at, end, frames = 0, left + count, []
        while end - at >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(received, at)
            if size > LARGEST_FRAME:
                raise LinkEndedError(f"passt sent a frame of {size} bytes")
            if end - at - _LENGTH.size < size:
                break
            at += _LENGTH.size
            frames.append(received[at : at + size])
            at += size
        self._begin, self._end = at, end
        return frames

    @property
    def begins_with_size(self) -> bool:
        """Whether a frame's size is what comes next: no part of a frame has been read."""
        return self._begin == self._end

    @property
    def at_rest(self) -> bool:
        """Whether nothing of a frame is left to be sent."""
        return not self._unsent

    def _how_it_ended(self, reason: str) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._process.wait(1)
            reason = reason or f"with status {status}"
        with contextlib.suppress(OSError):
            lines = os.read(self._said, _CHUNK).decode(errors="replace").splitlines()
            # Without a system log it complains about that for each line.
            if told := [line for line in lines if line.strip() and "syslog" not in line]:
                reason += f", saying {told[-1].strip()!r}"
        return f"passt has ended {reason}"

    def send(self, frame: Sequence[memoryview]) -> bool:
        """Send a frame; what is begun is finished before the next."""
        try:
            if self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
                if self._unsent:
                    return False
            head = _LENGTH.pack(sum(len(piece) for piece in frame))
            sent = self._socket.sendmsg([head, *frame])
        except OSError:
            return False
        if sent < _LENGTH.size + sum(len(piece) for piece in frame):
            self._unsent = b"".join((head, *frame))[sent:]
        return True

    def close(self) -> None:
        """End passt, too."""
        super().close()
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._said)


def _enlarge(sending: socket.socket) -> None:
    """Let a window of TCP wait in the socket: what cannot be written at once is lost, on both sides."""
    try:
        sending.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _WINDOW)
    except PermissionError:
        # The most that the machine's `net.core.wmem_max` allows.
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _WINDOW)


class Tap(Link):
    """A tap device."""

    def __init__(self, name: str) -> None:
        try:
            descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.ioctl(descriptor, _TUNSETIFF, _INTERFACE.pack(name.encode(), _TAP_WITHOUT_HEADER))
            except OSError:
                os.close(descriptor)
                raise
        except OSError as error:
            reason = "it is no tap device" if error.errno == errno.EINVAL else error.strerror
            raise MachineError(f"net tap={name}: {reason}") from None
        super().__init__(descriptor)
        self._name = name

    def read(self) -> Sequence[memoryview]:
        """Return the next frame."""
        try:
            return (memoryview(os.read(self.descriptor, LARGEST_FRAME)),)
        except BlockingIOError:
            return ()
        except OSError as error:
            raise LinkEndedError(f"{self._name}: {error.strerror}") from None

    def send(self, frame: Sequence[memoryview]) -> bool:
        """Send a frame; the device drops it if it is down."""
        try:
            os.writev(self.descriptor, frame)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the device, which stays."""
        super().close()
        os.close(self.descriptor)
