"""A guest moves, and is saved and restored, while its network and its disk are busy."""

from __future__ import annotations

import random
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from chronovisor.machine.console import Console
from chronovisor.machine.ending import EndReason
from chronovisor.machine.host import Host
from chronovisor.machine.network import Link, NetworkOption, Passt
from chronovisor.machine.vio.attachments import Attachments
from chronovisor.machine.vio.lan import NetworkAdapter
from chronovisor.migration.move import move
from chronovisor.migration.snapshot import snapshot
from chronovisor.migration.snapshot_restore import restore
from linux_guest.guests import BOOT_SECONDS, COMPLAINTS, Lines
from linux_guest.test_devices import QuietHandler, boot, disk

__all__ = ["disk"]
pytestmark = pytest.mark.oracle
DATA = random.Random(2).randbytes(8 << 20)
CHUNK = 64 << 10
PAUSE = 0.004
"""Seconds behind each chunk: all of them take half a second."""
MOVES = 3


class SlowHandler(QuietHandler):
    """Sends DATA, slowly enough for a guest to move meanwhile."""

    def __init__(self, asked: list[str], *args: object) -> None:
        self.asked = asked
        # The server passes a handler's arguments, whatever they are.
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        try:
            for at in range(0, len(DATA), CHUNK):
                self.wfile.write(DATA[at : at + CHUNK])
                time.sleep(PAUSE)
        except OSError:
            # The guest, or what it was, is gone.
            pass


@pytest.fixture
def asked() -> list[str]:
    """What the server was asked for."""
    return []


@pytest.fixture
def server(asked: list[str]) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SlowHandler, asked)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


class Lent(Link):
    """The way to a passt process that outlives the guest's card, as a tap device does.

    A card that has just been left may read on: the frames that it reads are lost.
    """

    prefixed = in_memory = True

    def __init__(self, passt: Passt, reading: threading.Lock) -> None:
        super().__init__(passt.descriptor)
        self._passt, self._reading = passt, reading

    @property
    def at_rest(self) -> bool:
        return self._passt.at_rest

    def read(self) -> Sequence[memoryview]:
        with self._reading:
            return [memoryview(bytes(frame)) for frame in self._passt.read()]

    def send(self, frame: Sequence[memoryview]) -> bool:
        return self._passt.send(frame)


class Kept(NetworkOption):
    """The same passt process for every host."""

    passt: Passt
    reading = threading.Lock()

    def check(self) -> None:
        """It is there."""

    def open(self) -> Link:
        return Lent(self.passt, self.reading)


FETCHING = """
set_mtu 1500
n=0
until [ -e /tmp/stop ]; do
  n=$((n + 1))
  echo "fetching $n"
  wget -q -O file http://$(cat /tmp/router):PORT/data && sum=$(sha256sum file) && echo "fetched: ${sum%% *}"
  cp file copy
  sync
  echo 3 >/proc/sys/vm/drop_caches
  cmp file copy || echo "differs"
done &
(read line; touch /tmp/stop) </dev/hvc0
wait
netstat -s 2>/dev/null | grep -i retrans
echo "ends"
"""


def has_begun(count: int, text: str) -> bool:
    """Whether the guest has begun to fetch the file so many times."""
    return text.count("fetching") >= count


def test_connections_go_on_over_moves(disk: Path, server: int, asked: list[str]) -> None:
    """Frames that come while the guest is away are lost, and TCP sends them again."""
    lines = Lines()
    hosts = [Host(tb_origin=number << 50) for number in range(2)]
    kept, Kept.passt = Kept(mac=b"\x52\x54\x00abc"), Passt()
    for host in hosts:
        host.attachments = replace(Attachments.parse([str(disk)]), network=kept)
    guest = boot(hosts[0], server, lines, FETCHING)
    for number in range(MOVES):
        seen = lines.text.count("fetching")
        assert guest.run_until(partial(has_begun, seen + 1)), f"{guest.end}\n{lines.text}"
        guest.resume()
        time.sleep(0.2)
        assert lines.text.count("fetching") == seen + 1, "the file came before the guest moved"
        guest, _ = move(guest, hosts[1 - number % 2])
        card = guest.platform.vio.devices[-1]
        assert isinstance(card, NetworkAdapter)
        assert card._receiver.merges
    guest.console.type(b"stop\n")
    end = guest.run(BOOT_SECONDS)
    assert end.reason is EndReason.POWER_OFF, lines.text
    for host in hosts:
        host.close()
    Kept.passt.close()
    # The guest's terminal echoes what is typed, in the middle of a line maybe.
    text = re.sub(r"stop\r?\n", "", lines.text)
    fetched = re.findall(r"fetched: (\w+)", text)
    assert len(fetched) == len(asked) >= MOVES
    assert set(fetched) == {sha256(DATA).hexdigest()}
    assert "differs" not in lines.text
    assert not COMPLAINTS.search(lines.text)


def test_a_guest_is_restored_while_its_devices_are_busy(
    disk: Path, server: int, asked: list[str], tmp_path: Path
) -> None:
    """A connection of the guest's ends with the passt process that knew it; the next ones are as any."""
    lines, saved, copy = Lines(), tmp_path / "saved", tmp_path / "copy"
    with Host() as host:
        host.attachments = Attachments.parse([str(disk)], "passt")
        work = FETCHING.replace("wget", "timeout 3 wget")
        guest = boot(host, server, lines, work)
        assert guest.run_until(partial(has_begun, 3))
        guest.resume()
        time.sleep(0.2)
        guest.pause()
        snapshot(guest, saved)
        subprocess.run(["cp", "--sparse=always", "--preserve=timestamps", disk, copy], check=True)
        guest.console.type(b"stop\n")
        assert guest.run(BOOT_SECONDS).reason is EndReason.POWER_OFF, lines.text
    expect_whole(lines)
    again = Lines()
    with Host(tb_origin=5 << 50) as host:
        host.attachments = Attachments.parse([str(copy)], "passt")
        guest, _ = restore(saved, host, Console(again))
        asked.clear()
        assert guest.run_until(lambda text: text.count("fetched") > 1)
        guest.console.type(b"stop\n")
        assert guest.run(BOOT_SECONDS).reason is EndReason.POWER_OFF, again.text
    expect_whole(again)
    subprocess.run(["e2fsck", "-fn", str(copy)], check=True, capture_output=True)


def expect_whole(lines: Lines) -> None:
    # The guest's terminal echoes what is typed, in the middle of a line maybe.
    text = re.sub(r"stop\r?\n", "", lines.text)
    fetched = re.findall(r"fetched: (\w+)", text)
    assert len(fetched) > 1, lines.text
    assert set(fetched) == {sha256(DATA).hexdigest()}
    assert "differs" not in lines.text
    assert "ends" in lines.lines
    assert not COMPLAINTS.search(lines.text)
