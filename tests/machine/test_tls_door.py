"""The door for clients under TLS: what is said goes through it, and who may not come in holds nobody up."""

from __future__ import annotations

import queue
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from certificates import CLIENT, Authority

from chronovisor.machine import tls_carrier, tls_door
from chronovisor.machine.door import OpenDoor
from chronovisor.machine.tls_door import MOST_HANDSHAKES, TlsDoor

MUCH = 3 << 20
"""Bytes: more than all buffers on the way hold."""


class Place:
    """A door that listens, and what it tells."""

    def __init__(self, authority: Authority, allowed: frozenset[str] = frozenset()) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.at = listener.getsockname()
        self._told: queue.Queue[str] = queue.Queue()
        self.context = authority.credentials("good client", "client").client()
        server = authority.credentials("server", "server").server()
        self.door = TlsDoor(OpenDoor([listener]), "localhost", server, allowed, self._told.put)

    def told(self) -> str:
        return self._told.get(timeout=60)

    def plain(self) -> socket.socket:
        client = socket.create_connection(self.at)
        client.settimeout(60)
        return client

    def client(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        return (context or self.context).wrap_socket(self.plain(), server_hostname="localhost")

    def pair(self) -> tuple[ssl.SSLSocket, socket.socket]:
        """A client, and its connection behind the door."""
        client = self.client()
        return client, self.door.accept()

    def lets_in(self) -> None:
        client, here = self.pair()
        with client, here:
            here.sendall(b"welcome")
            assert client.recv(64) == b"welcome"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def place(authority: Authority) -> Iterator[Place]:
    made = Place(authority)
    yield made
    made.door.close()
    made.door.finish(60)
    wait_until(lambda: not of_doors())


def of_doors() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name in ("tls", "tls client")]


def wait_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def read_all(connection: socket.socket, pause: float = 0.0) -> bytes:
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
        time.sleep(pause)
    return b"".join(pieces)


def fill(connection: socket.socket) -> None:
    """Send until the other side, which reads nothing, holds all that can be on the way."""
    connection.setblocking(False)
    moved = time.monotonic()
    while time.monotonic() < moved + 1:
        try:
            connection.send(bytes(1 << 14))
            moved = time.monotonic()
        except (BlockingIOError, ssl.SSLWantWriteError):
            time.sleep(0.01)
    connection.setblocking(True)
    connection.settimeout(60)


def test_much_goes_both_ways_at_once_and_ends_arrive(place: Place) -> None:
    client, here = place.pair()
    there, back = random.Random(1).randbytes(MUCH), random.Random(2).randbytes(MUCH)
    read: list[bytes] = []

    talking = threading.Thread(target=here.sendall, args=(back,))
    hearing = threading.Thread(target=lambda: read.append(read_all(here)))
    talking.start()
    hearing.start()
    # The client reads between what it says, slowly at first: an SSL connection is not for two threads.
    heard = bytearray()
    client.setblocking(False)
    left = memoryview(there)
    while left or len(heard) < MUCH:
        try:
            while piece := client.recv(65536):
                heard += piece
        except ssl.SSLWantReadError:
            pass
        try:
            left = left[client.send(left[:50_000]) :] if left else left
        except ssl.SSLWantWriteError:
            time.sleep(0.001)
    assert bytes(heard) == back
    client.setblocking(True)
    socket.socket.shutdown(client, socket.SHUT_WR)
    talking.join(60)
    hearing.join(60)
    assert read == [there]
    client.close()
    here.close()


def test_what_was_said_last_arrives(place: Place) -> None:
    client, here = place.pair()
    fill(client)
    data = random.Random(3).randbytes(MUCH)
    talking = threading.Thread(target=lambda: (here.sendall(data), here.close()))
    talking.start()
    assert read_all(client, 0.001) == data
    talking.join(60)
    client.close()


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_client_that_goes_is_gone_behind_the_door(place: Place, end: str) -> None:
    client, here = place.pair()
    here.settimeout(60)
    if end == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    assert here.recv(1) == b""
    here.close()
    place.lets_in()


def test_a_client_that_reads_nothing_is_left_when_its_server_closes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_carrier, "_PATIENCE", 0.1)
    client, here = place.pair()
    fill(here)
    here.close()
    wait_until(lambda: len(of_doors()) == 1)
    client.close()


def test_one_behind_the_door_that_reads_no_more_may_still_speak(place: Place) -> None:
    client, here = place.pair()
    here.shutdown(socket.SHUT_RD)
    client.sendall(b"more")
    here.sendall(b"an answer")
    assert client.recv(64) == b"an answer"
    here.close()
    assert client.recv(64) == b""
    client.close()


def test_who_cannot_show_who_it_is_stays_outside(place: Place, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    stranger = other.credentials("stranger", "client", trusts=authority).client()
    nameless = ssl.create_default_context(cafile=str(tmp_path / "server" / "ca-cert.pem"))
    for context, why in ((stranger, "its certificate is not one to trust"), (nameless, "no certificate")):
        client = place.client(context)
        assert why in place.told()
        # In TLS 1.3 a client learns of it when it reads.
        with client, pytest.raises((ssl.SSLError, ConnectionResetError)):
            client.recv(1)
    with place.plain() as client:
        client.sendall(b'{"execute":"qmp_capabilities"}\n')
        assert "it does not speak TLS" in place.told()
    with place.plain():
        pass
    assert "it hung up during the handshake" in place.told()
    place.lets_in()


def test_names_in_certificates(authority: Authority, tmp_path: Path) -> None:
    for allowed, comes in ((frozenset({CLIENT}), True), (frozenset({"other.example"}), False)):
        (tmp_path / str(comes)).mkdir()
        place = Place(Authority(tmp_path / str(comes)), allowed)
        if comes:
            place.lets_in()
        else:
            with place.client():
                assert f"for {CLIENT}, which --allow does not name" in place.told()
        place.door.close()


def test_a_handshake_that_never_ends_holds_nobody_up_for_long(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_door, "_HANDSHAKE_PATIENCE", 0.1)
    for said in (b"", b"\x16\x03"):
        with place.plain() as client:
            client.sendall(said)
            assert "it said nothing for too long" in place.told()
            assert client.recv(1) == b""
    monkeypatch.undo()
    place.lets_in()


def test_only_so_many_stand_outside(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_door, "_HANDSHAKE_PATIENCE", 3600.0)
    silent = [place.plain() for _ in range(MOST_HANDSHAKES)]
    wait_until(lambda: len(of_doors()) == MOST_HANDSHAKES + 1)
    with pytest.raises((ssl.SSLError, ConnectionError)), place.client():
        pass
    silent.pop().close()
    assert "it hung up during the handshake" in place.told()
    place.lets_in()
    # The fixture closes the door while the others still stand there.


def test_a_door_that_is_closed_leaves_nobody_behind(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_door, "_HANDSHAKE_PATIENCE", 3600.0)
    place = Place(authority)
    silent, (client, here) = place.plain(), place.pair()
    waiting = place.client()
    wait_until(lambda: len(of_doors()) == 4)
    place.door.close()
    # Who is in stays; who stands outside or waits to be served is hung up on.
    assert silent.recv(1) == b""
    assert waiting.recv(1) == b""
    for _ in range(2):
        with pytest.raises(OSError, match="closed"):
            place.door.accept()
    here.sendall(b"still here")
    assert client.recv(64) == b"still here"
    here.close()
    place.door.finish(60)
    wait_until(lambda: not of_doors())
    for one in (silent, client, waiting):
        one.close()
