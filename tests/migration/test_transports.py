"""Moves over unix sockets and under TLS; who cannot prove who it is gives and takes no guest."""

from __future__ import annotations

import contextlib
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import Authority

from chronovisor.machine import Console, EndReason, Guest, Host
from chronovisor.machine.errors import MachineError
from chronovisor.migration.address import Address, Place, UnixAddress
from chronovisor.migration.arrival import MAXIMUM_CONNECTIONS, Arrivals, Terms
from chronovisor.migration.credentials import Credentials
from chronovisor.migration.departure import Departure
from chronovisor.migration.errors import MoveCancelledError, MoveError
from chronovisor.migration.outcomes import RememberedOutcomes
from chronovisor.migration.precopy import MoveLimits
from chronovisor.migration.stream import Header
from chronovisor.migration.tcp import TimeLimits
from chronovisor.timebase.types import Ticks

LIMITS = TimeLimits(60, 60, start=0)
LOOPBACK = Address("localhost", 0, tls=True)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def guest() -> Iterator[Guest]:
    with Host(tb_origin=12_345_678, engine="concrete") as host:
        guest = host.boot("demo-le.elf", "2M", console=Console())
        assert guest.run_until("watching")
        guest.resume()
        yield guest


class Waiting:
    """A destination that waits for a guest."""

    def __init__(
        self,
        at: Place,
        credentials: Credentials | None = None,
        limits: TimeLimits = LIMITS,
        allowed: frozenset[str] = frozenset(),
    ) -> None:
        self.told: list[str] = []
        self._heard = threading.Semaphore(0)
        self.console = Console()

        def host_for(header: Header) -> Host:
            return Host(tb_origin=1 << 60, engine="concrete")

        terms = Terms(
            host_for,
            self.console,
            RememberedOutcomes(),
            64 << 20,
            limits,
            self._tell,
            credentials=credentials,
            allowed=allowed,
        )
        self.arrivals = Arrivals(at, terms)

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self.arrivals.close()

    def _tell(self, line: str) -> None:
        self.told.append(line)
        self._heard.release()

    def hears(self) -> None:
        """Wait for a line about a guest that was not taken; it is told on another thread."""
        assert self._heard.acquire(timeout=60)

    def takes_it(self) -> None:
        came = self.arrivals.wait(60)
        assert came is not None
        with came.host:
            guest = came.destination.start(running=True)
            self.console.type("r")
            assert guest.run_until("memory=intact", Ticks(120 * 512_000_000))
            assert " back=0 " in self.console.text


def test_a_guest_goes_over_a_unix_socket(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "way"
    with Waiting(UnixAddress(str(path))) as waiting:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(MachineError, match="cannot be listened at"):
            Waiting(UnixAddress(str(path)))
        Departure(guest).migrate(waiting.arrivals.address, LIMITS)
        waiting.takes_it()
    assert not path.exists()
    with pytest.raises(MoveError, match="nobody listens there"):
        _migrate_another(path)


def test_who_has_closed_leaves_the_path_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "way"
    with Waiting(UnixAddress(str(path))) as one:
        one.arrivals.close()
        with Waiting(UnixAddress(str(path))):
            one.arrivals.close()
            assert path.is_socket()
        assert not path.exists()


def _migrate_another(path: Path) -> None:
    with Host(engine="concrete") as host:
        guest = host.boot("demo-le.elf", "2M")
        guest.resume()
        Departure(guest).migrate(UnixAddress(str(path)), LIMITS)


def test_what_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "way"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with Waiting(UnixAddress(str(path))):
        pass
    path.write_text("a file of somebody's")
    with pytest.raises(MachineError, match="in use"):
        Waiting(UnixAddress(str(path)))
    assert path.read_text() == "a file of somebody's"


def test_a_guest_goes_under_tls(guest: Guest, authority: Authority) -> None:
    directory = authority.directory("pki")
    with Waiting(LOOPBACK, Credentials.in_directory(directory, "server")) as waiting:
        assert str(waiting.arrivals.address).startswith("tls:localhost:")
        report = Departure(guest).migrate(
            waiting.arrivals.address, LIMITS, credentials=Credentials.in_directory(directory, "client")
        )
        assert report.transfer.rounds >= 2
        waiting.takes_it()


def test_what_goes_under_tls_is_not_to_be_read(guest: Guest, authority: Authority) -> None:
    """Somebody in between hears no magic, no name, and nothing of the guest's memory."""
    directory = authority.directory("pki")
    heard = bytearray()
    with Waiting(LOOPBACK, Credentials.in_directory(directory, "server")) as waiting:
        assert isinstance(waiting.arrivals.address, Address)
        listener = socket.create_server(("localhost", 0))
        threading.Thread(
            target=_listen_in, args=(listener, waiting.arrivals.address.port, heard), daemon=True
        ).start()
        between = replace(waiting.arrivals.address, port=listener.getsockname()[1])
        Departure(guest).migrate(between, LIMITS, credentials=Credentials.in_directory(directory, "client"))
        waiting.takes_it()
        listener.close()
    assert len(heard) > 1 << 14
    assert b"CHRONO" not in heard
    assert b"demo-le.elf" not in heard
    assert b"readings=" not in heard


def _listen_in(listener: socket.socket, port: int, heard: bytearray) -> None:
    source, _ = listener.accept()
    destination = socket.create_connection(("localhost", port))

    def forth() -> None:
        while data := source.recv(1 << 16):
            heard.extend(data)
            destination.sendall(data)
        destination.shutdown(socket.SHUT_WR)

    threading.Thread(target=forth, daemon=True).start()
    with contextlib.suppress(OSError):
        while data := destination.recv(1 << 16):
            source.sendall(data)


@pytest.mark.parametrize("who", ["a stranger's server", "another host's server", "a stranger's client"])
def test_who_cannot_prove_who_it_is_gets_no_guest_and_gives_none(
    guest: Guest, authority: Authority, tmp_path: Path, who: str
) -> None:
    good = authority.directory("good")
    (tmp_path / "strange").mkdir()
    stranger = Authority(tmp_path / "strange")
    server = client = good
    if who == "a stranger's server":
        server = stranger.directory("bad", trusts=authority)
    elif who == "another host's server":
        server = authority.directory("bad", host="other.example")
    else:
        client = stranger.directory("bad", trusts=authority)
    with Waiting(LOOPBACK, Credentials.in_directory(server, "server")) as waiting:
        with pytest.raises(MoveError, match="goes on here") as caught:
            Departure(guest).migrate(
                waiting.arrivals.address, LIMITS, credentials=Credentials.in_directory(client, "client")
            )
        assert "\n" not in str(caught.value)
        assert guest.running
        assert waiting.arrivals.wait(0) is None
        waiting.hears()
    assert all("\n" not in line for line in waiting.told)
    if client == good:
        assert "not one to trust" in str(caught.value)
    assert len(waiting.told) == 1


def test_of_those_whom_the_authority_knows_only_some_may_send(guest: Guest, authority: Authority) -> None:
    directory = authority.directory("pki")
    server, client = (Credentials.in_directory(directory, role) for role in ("server", "client"))
    with Waiting(LOOPBACK, server, allowed=frozenset({"other.example"})) as waiting:
        with pytest.raises(MoveError, match=r"for source\.example, which --allow does not name"):
            Departure(guest).migrate(waiting.arrivals.address, LIMITS, credentials=client)
        waiting.hears()
        assert "127.0.0.1: its certificate is for source.example" in waiting.told[0].replace(
            "::1", "127.0.0.1"
        )
    with Waiting(LOOPBACK, server, allowed=frozenset({"other.example", "source.example"})) as waiting:
        Departure(guest).migrate(waiting.arrivals.address, LIMITS, credentials=client)
        waiting.takes_it()


def test_who_speaks_no_tls_and_who_shows_no_certificate_are_hung_up_on(
    guest: Guest, authority: Authority
) -> None:
    directory = authority.directory("pki")
    with Waiting(LOOPBACK, Credentials.in_directory(directory, "server")) as waiting:
        address = waiting.arrivals.address
        assert isinstance(address, Address)
        with pytest.raises(MoveError, match="goes on here"):
            Departure(guest).migrate(replace(address, tls=False), LIMITS)
        anonymous = ssl.create_default_context(cafile=f"{directory}/ca-cert.pem")
        with pytest.raises(OSError, match=r"certificate required|hung up|EOF|reset|[Bb]roken pipe"):
            _talk(anonymous, address.port)
        Departure(guest).migrate(address, LIMITS, credentials=Credentials.in_directory(directory, "client"))
        waiting.takes_it()
        waiting.hears()
        waiting.hears()
    assert len(waiting.told) == 2
    said = " ".join(waiting.told)
    assert "does not speak TLS" in said
    assert "showed no certificate" in said


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_certificate_that_was_taken_back(guest: Guest, authority: Authority, role: str) -> None:
    """As QEMU's, a directory can have a list of such certificates: each side looks at its own."""
    good, other, bad = (authority.directory(name) for name in ("good", "other", "bad"))
    authority.revoke("bad", role, told="good")
    ours, theirs = (good, bad) if role == "client" else (bad, good)
    with Waiting(LOOPBACK, Credentials.in_directory(ours, "server")) as waiting:
        address = waiting.arrivals.address
        with pytest.raises(MoveError, match="goes on here") as failed:
            Departure(guest).migrate(address, LIMITS, credentials=Credentials.in_directory(theirs, "client"))
        waiting.hears()
        told = str(failed.value) if role == "server" else waiting.told[0]
        assert "certificate revoked" in told
        Departure(guest).migrate(address, LIMITS, credentials=Credentials.in_directory(other, "client"))
        waiting.takes_it()


def test_a_list_of_certificates_that_is_none(authority: Authority) -> None:
    directory = authority.directory("pki")
    (Path(directory) / "ca-crl.pem").write_text("none")
    with pytest.raises(MachineError, match=r"ca-crl\.pem: no list of revoked certificates"):
        Waiting(LOOPBACK, Credentials.in_directory(directory, "server"))


def _talk(context: ssl.SSLContext, port: int) -> None:
    raw = socket.create_connection(("localhost", port), timeout=60)
    with raw, context.wrap_socket(raw, server_hostname="localhost") as peer:
        peer.sendall(Header().encode())
        while peer.recv(1 << 10):
            pass
    raise ConnectionResetError("it was hung up")


def test_certificates_that_are_not_there_are_missed_before_anything_is_sent(
    guest: Guest, authority: Authority, tmp_path: Path
) -> None:
    with pytest.raises(MachineError, match="--tls-credentials"):
        Waiting(LOOPBACK)
    with pytest.raises(MachineError, match="--tls-credentials"):
        Departure(guest).migrate(replace(LOOPBACK, port=1), LIMITS)
    with pytest.raises(MachineError, match=r"ca-cert.pem: no authority"):
        Waiting(LOOPBACK, Credentials.in_directory(str(tmp_path), "server"))
    directory = Path(authority.directory("pki"))
    (directory / "server-key.pem").write_text("no key")
    with pytest.raises(MachineError, match="no certificate and its key"):
        Waiting(LOOPBACK, Credentials.in_directory(str(directory), "server"))
    assert guest.running


def test_a_move_can_be_cancelled_until_commit(guest: Guest) -> None:
    departure = Departure(guest)
    with pytest.raises(MachineError, match="not on its way"):
        departure.cancel()
    # A destination that accepts the connection and never says a word.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address("127.0.0.1", silent.getsockname()[1])
        failures: list[BaseException] = []

        def go() -> None:
            try:
                departure.migrate(address, TimeLimits(60, 60))
            except MoveError as error:
                failures.append(error)

        thread = threading.Thread(target=go)
        thread.start()
        connection, _ = silent.accept()
        assert connection.recv(8) == Header().encode()[:8]
        assert len(departure.cancel()) == 16
        thread.join(60)
        connection.close()
    assert [type(failure) for failure in failures] == [MoveCancelledError]
    assert departure.state == "running"


def test_a_move_can_be_cancelled_in_the_middle_of_its_rounds(guest: Guest) -> None:
    guest.memory.write(1 << 20, b"x" * (1 << 20))
    departure = Departure(guest)
    with Waiting(Address("127.0.0.1", 0)) as waiting:
        failures: list[BaseException] = []

        def go() -> None:
            slow = MoveLimits(bandwidth=1 << 18)
            try:
                departure.migrate(waiting.arrivals.address, LIMITS, slow)
            except MoveError as error:
                failures.append(error)

        thread = threading.Thread(target=go)
        thread.start()
        while (progress := departure.progress) is None or not progress.sent_bytes:
            thread.join(0.01)
        assert guest.running
        assert departure.state == "moving"
        departure.cancel()
        thread.join(60)
        waiting.hears()
        assert "given up" in waiting.told[-1]
    assert [type(failure) for failure in failures] == [MoveCancelledError]
    assert guest.running
    assert guest.end is None
    guest.console.type("r")
    assert guest.run_until("memory=intact", Ticks(120 * 512_000_000))


def test_a_cancel_that_comes_behind_commit_is_too_late(guest: Guest) -> None:
    departure = Departure(guest)
    with Waiting(Address("127.0.0.1", 0)) as waiting:
        late: list[str] = []
        told = departure._settle

        def settle(attempt: object, channel: object) -> object:
            report = told(attempt, channel)  # type: ignore[arg-type]
            try:
                departure.cancel()
            except MachineError as error:
                late.append(str(error))
            return report

        departure._settle = settle  # type: ignore[method-assign, assignment]
        departure.migrate(waiting.arrivals.address, LIMITS)
        waiting.takes_it()
    assert ["too late" in line for line in late] == [True]
    assert guest.end is not None
    assert guest.end.reason is EndReason.MOVED


def test_a_move_that_takes_longer_than_the_destination_allows_is_given_up(guest: Guest) -> None:
    guest.memory.write(1 << 20, b"x" * (1 << 20))
    with Waiting(Address("127.0.0.1", 0), limits=TimeLimits(60, 60, whole_move=0.5)) as waiting:
        with pytest.raises(MoveError, match="goes on here"):
            Departure(guest).migrate(waiting.arrivals.address, LIMITS, MoveLimits(bandwidth=1 << 18))
        waiting.hears()
        assert "longer than it may" in waiting.told[-1]
    assert guest.running


def test_of_very_many_peers_some_are_hung_up_on_and_a_guest_comes_when_they_are_gone(guest: Guest) -> None:
    with Waiting(Address("127.0.0.1", 0)) as waiting:
        address = waiting.arrivals.address
        assert isinstance(address, Address)
        idle = [socket.create_connection((address.host, address.port)) for _ in range(MAXIMUM_CONNECTIONS)]
        for each in idle:
            # It is being heard: the destination answers its header.
            each.settimeout(60)
            each.sendall(Header().encode())
            assert each.recv(1)
        with socket.create_connection((address.host, address.port)) as one_more:
            one_more.settimeout(60)
            assert one_more.recv(1) == b""
        for each in idle:
            each.close()
        while True:
            try:
                Departure(guest).migrate(address, LIMITS)
                break
            except MoveError:
                assert guest.running
        waiting.takes_it()
