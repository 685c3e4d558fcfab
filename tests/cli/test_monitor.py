"""QMP over sockets: its own client from PyPI, clients that misbehave, and a move."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import ssl
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "machine"))
from certificates import CLIENT, Authority
from checked_client import CheckedClient
from elf_files import program
from faulty_way import Fault
from processes import NO_GUEST_FOR_EVER, Machine, Process
from qemu.qmp import ExecuteError

from chronovisor.cli.monitor import Monitor
from chronovisor.cli.status import ExitStatus
from chronovisor.machine.qmp.server import MOST_CLIENTS
from chronovisor.machine.rtas import tokens
from chronovisor.machine.run_directory import is_listened_to
from chronovisor.migration.credentials import Credentials

PANIC = """
    lis r3,0; ori r3,r3,0xf000
    lis r4,block@h; ori r4,r4,block@l
    sc 1
    b .
block: .byte 0,0,0x20,TOKEN, 0,0,0,1, 0,0,0,1
    .byte (text >> 24) & 255, (text >> 16) & 255, (text >> 8) & 255, text & 255
    .space 4
text: .byte 0x68, 0x69, 0
""".replace("TOKEN", hex(tokens()["ibm,os-term"] & 0xFF))
NEGOTIATE = b'{"execute":"qmp_capabilities"}'


class RawClient:
    """A socket, and what comes from it."""

    def __init__(self, place: Path | int) -> None:
        self.socket = socket.socket(socket.AF_INET if isinstance(place, int) else socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", place) if isinstance(place, int) else str(place))
        self._lines = self.socket.makefile("rb")

    def hear(self) -> Any:
        line = self._lines.readline()
        return json.loads(line) if line else None

    def say(self, data: bytes) -> Any:
        self.socket.sendall(data)
        return self.hear()

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


async def heard(client: CheckedClient, last: str) -> list[dict[str, Any]]:
    """The events up to `last`, without their timestamps."""
    events: list[dict[str, Any]] = []
    while not events or events[-1]["event"] != last:
        event = dict(await asyncio.wait_for(client.events.get(), 60))
        client.check_event(event)
        assert abs(event.pop("timestamp")["seconds"] - time.time()) < 60
        events.append(event)
    return events


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_guest_under_its_own_client(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    process = machine.run("one", "--qmp", f"unix:{path},server=on,wait=off")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    misbehave(path)

    async def control() -> None:
        client = CheckedClient("test")
        await client.connect(str(path))
        assert client.greeting is not None
        assert (await client.execute("query-status"))["status"] == "running"
        assert await client.execute("query-name") == {"name": "one"}
        (vcpu,) = await client.execute("query-cpus-fast")
        assert Path(f"/proc/{process.pid}/task/{vcpu['thread-id']}").exists()
        commands = {command["name"] for command in await client.execute("query-commands")}
        queries = {command for command in commands if command.startswith("query-")}
        for command in queries:
            await client.execute(command)
        assert (len(queries), "stop" in commands) == (13, True)
        for command in ("stop", "stop", "query-status"):
            status: Any = await client.execute(command)
        assert (status["status"], status["running"]) == ("paused", False)
        assert await human(client, "info status") == "VM status: paused\r\n"
        assert "\nNIP " in await human(client, "info registers")
        for command in ("memsave", "pmemsave"):
            saved = {"val": 0x10000, "size": 0x2001, "filename": str(tmp_path / command)}
            await client.execute(command, saved)
            with pytest.raises(ExecuteError, match="Invalid addr"):
                await client.execute(command, saved | {"val": 2 << 20})
            with pytest.raises(ExecuteError, match="expects 0 to"):
                await client.execute(command, saved | {"size": -1})
        memory = (tmp_path / "memsave").read_bytes()
        assert memory == (tmp_path / "pmemsave").read_bytes()
        words = re.findall("0x(\\w{8})", await human(client, "xp /2048xw 0x10000"))
        assert b"".join(int(word, 16).to_bytes(4, "little") for word in words) == memory[:0x2000]
        assert machine.state("one") == "paused"
        machine.asks("resume", "one")
        assert await client.execute("cont") == {}
        for command, reason in (("nope", "CommandNotFound"), ("migrate-incoming", "GenericError")):
            with pytest.raises(ExecuteError) as caught:
                await client.execute(command)
            assert caught.value.error_class == reason
        # It does not listen.
        assert await client.execute("system_powerdown") == {}
        core = tmp_path / "core"
        await client.execute("dump-guest-memory", {"paging": False, "protocol": f"file:{core}"})
        assert core.read_bytes()[:6] == b"\x7fELF\2\1"
        for refused in ({"paging": True, "protocol": f"file:{core}"}, {"paging": False, "protocol": "fd:x"}):
            with pytest.raises(ExecuteError, match="a dump"):
                await client.execute("dump-guest-memory", refused)
        with pytest.raises(ExecuteError, match="loopback"):
            await client.execute("migrate", {"uri": "tcp:192.0.2.1:4444"})
        await client.execute("stop")
        await client.execute("system_reset")
        await client.execute("cont")
        assert "watching" in await asyncio.to_thread(process.line)
        assert await client.execute("quit") == {}
        told = await heard(client, "SHUTDOWN")
        asked = {"event": "RESET", "data": {"guest": False, "reason": "host-qmp-system-reset"}}
        stop, resume = {"event": "STOP"}, {"event": "RESUME"}
        end = {"event": "SHUTDOWN", "data": {"guest": False, "reason": "host-qmp-quit"}}
        result = {"status": "completed", "completed": 2 << 20, "total": 2 << 20}
        dump = [stop, {"event": "DUMP_COMPLETED", "data": {"result": result}}, resume]
        assert told == [stop, resume, {"event": "POWERDOWN"}, *dump, stop, asked, resume, end]
        assert client.checked > 20
        # The process may be gone already.
        with contextlib.suppress(EOFError):
            await client.disconnect()

    asyncio.run(asyncio.wait_for(control(), 250))
    assert process.ends() == ExitStatus.OK
    assert not path.exists()


def migration(status: str) -> dict[str, Any]:
    return {"event": "MIGRATION", "data": {"status": status}}


async def end_of_move(client: CheckedClient) -> list[dict[str, Any]]:
    """The events of a move, up to the last one."""
    told: list[dict[str, Any]] = []
    while not told or told[-1]["data"]["status"] not in ("failed", "cancelled", "completed"):
        told += await heard(client, "MIGRATION")
    return told


async def human(client: CheckedClient, line: str) -> str:
    return str(await client.execute("human-monitor-command", {"command-line": line}))


def misbehave(path: Path) -> None:
    """Clients that send rubbish, leave at once, or are too many; the monitor goes on."""
    for rubbish in (b"\0\xff\n", b'{"a":' * 1000 + b"\n", b"x" * (1 << 20) + b"\n"):
        client = RawClient(path)
        assert "QMP" in client.hear()
        assert client.say(rubbish)["error"]["class"] == "GenericError"
        assert client.say(NEGOTIATE) == {"return": {}}
        client.socket.sendall(b'{"execute":"query-qmp-schema"}' * 50)
        client.close()
    two = [RawClient(path), RawClient(path)]
    for client in two:
        client.hear()
        assert client.say(NEGOTIATE) == {"return": {}}
    answer = two[0].say(b'{"execute":"query-status","id":{"a":1}}')
    assert answer["id"] == {"a": 1}
    assert two[1].say(b'{"execute":"query-status"}')["return"] == answer["return"]
    for client in two:
        client.close()
    many = [RawClient(path) for _ in range(MOST_CLIENTS)]
    assert all("QMP" in client.hear() for client in many)
    waiting = RawClient(path)
    waiting.socket.settimeout(0.1)
    with pytest.raises(TimeoutError):
        waiting.socket.recv(1)
    many.pop().close()
    waiting.socket.settimeout(60)
    assert waiting.socket.recv(6) == b'{"QMP"'
    for client in [*many, waiting]:
        client.close()


def test_a_panic_is_told_before_the_end(machine: Machine, tmp_path: Path) -> None:
    """As QEMU tells that a kernel has called `ibm,os-term`."""
    image = tmp_path / "panics.elf"
    image.write_bytes(program(PANIC))
    machine.processes.append(
        process := Process("run", str(image), "--name", "one", "--paused", "--qmp", f"unix:{tmp_path}/qmp")
    )
    while not is_listened_to(tmp_path / "qmp"):
        time.sleep(0.02)
    client = RawClient(tmp_path / "qmp")
    assert "QMP" in client.hear()
    assert client.say(NEGOTIATE) == {"return": {}}
    client.socket.sendall(b'{"execute":"cont"}')
    told = [client.hear() for _ in range(4)]
    assert {"return": {}} in told
    events = [(said["event"], said.get("data")) for said in told if "event" in said]
    end = ("SHUTDOWN", {"guest": True, "reason": "guest-panic"})
    assert events == [("RESUME", None), ("GUEST_PANICKED", {"action": "poweroff"}), end]
    client.close()
    assert process.ends() == ExitStatus.PANIC


def test_a_move_by_the_monitor(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    process = machine.run("one", "--qmp", f"unix:{path}")
    _, address = machine.receive("two")

    async def control() -> None:
        client = CheckedClient("test")
        await client.connect(str(path))
        assert await client.execute("query-migrate") == {}
        assert await client.execute("migrate_cancel") == {}
        events = {"capability": "events", "state": True}
        await client.execute("migrate-set-capabilities", {"capabilities": [events]})
        await client.execute("migrate-set-parameters", {"downtime-limit": 200})
        await client.execute("migrate", {"uri": f"unix:{tmp_path}/nobody"})
        while (failed := await client.execute("query-migrate"))["status"] == "setup":
            await asyncio.sleep(0.01)
        assert failed["status"] == "failed"  # type: ignore[index]
        assert "nobody" in failed["error-desc"]  # type: ignore[index]
        broken = machine.way(address, Fault(True, "State", "cut"))
        await client.execute("migrate", {"uri": str(broken.address)})
        told = await heard(client, "RESUME")
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.settimeout(60)
            await client.execute("migrate", {"uri": f"tcp:127.0.0.1:{silent.getsockname()[1]}"})
            taken, _ = await asyncio.to_thread(silent.accept)
        with pytest.raises(ExecuteError, match="There's a migration process in progress"):
            await client.execute("migrate", {"uri": address})
        # Nor does a move that somebody else asks for change what is told of this one.
        machine.fails(ExitStatus.USAGE, "on its way to", "migrate", "one", address)
        await client.execute("migrate_cancel")
        told += await end_of_move(client)
        taken.close()
        while True:
            await client.execute("migrate", {"uri": address})
            last = await end_of_move(client)
            if last[-1] == migration("completed"):
                break
            # The destination has not yet seen the end of the broken move.
            assert last == [migration("setup"), migration("failed")]
        told += last
        statuses = [event.get("data", {}).get("status", event["event"]) for event in told]
        expected = [
            *("setup", "failed"),
            *("setup", "active", "STOP", "device", "failed", "RESUME"),
            *("setup", "cancelling", "cancelled"),
            *("setup", "active", "STOP", "device", "completed"),
        ]
        assert statuses == expected
        done: Any = await client.execute("query-migrate")
        assert done["ram"]["total"] == 2 << 20
        assert done["downtime"] == round(done["x-chronovisor"]["downtime_ns"] / 1e6)
        assert (await client.execute("query-status"))["status"] == "postmigrate"
        with pytest.raises(ExecuteError):
            await client.execute("cont")
        await client.execute("quit")
        # The process may be gone already.
        with contextlib.suppress(EOFError):
            await client.disconnect()

    asyncio.run(asyncio.wait_for(control(), 250))
    assert process.ends() == ExitStatus.OK
    assert machine.state("two") == "running"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp:192.0.2.1:4444", "loopback"),
        ("tcp:127.0.0.1:0", "ports are 1 to"),
        ("tls:127.0.0.1:4444", "--tls-credentials"),
        ("tcp:0.0.0.0:4444", "use tls:0.0.0.0:4444, or say --insecure"),
        ("unix:/nowhere/at/all", "cannot be listened at"),
        ("unix:/tmp/qmp", "directory of your own"),
        ("vc", "write tcp:"),
        ("tcp:127.0.0.1:0,telnet=on", "QEMU's options"),
    ],
)
def test_addresses_that_are_refused(machine: Machine, address: str, words: str) -> None:
    machine.fails(ExitStatus.USAGE, words, "run", "hello-le.elf", "--engine", "concrete", "--qmp", address)


def test_a_socket_in_use_and_one_that_was_left(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        machine.fails(ExitStatus.USAGE, "in use", "run", "hello-le.elf", "--qmp", f"unix:{path}")
    assert machine.does("run", "hello-le.elf", "--engine", "concrete", "--qmp", f"unix:{path}")[0] == 0
    assert not os.path.lexists(path)


def test_a_client_that_comes_early_finds_the_guest(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, attach = tmp_path / "qmp", Monitor.attach
    answers: list[Any] = []

    def attach_late(monitor: Monitor, *its: Any) -> None:
        time.sleep(0.5)
        attach(monitor, *its)

    def control() -> None:
        while not is_listened_to(path):
            time.sleep(0.01)
        client = RawClient(path)
        answers.extend([client.hear(), client.say(NEGOTIATE)])
        answers.append(client.say(b'{"execute":"query-status"}'))
        client.say(b'{"execute":"quit"}')
        client.close()

    monkeypatch.setattr(Monitor, "attach", attach_late)
    controlling = threading.Thread(target=control)
    controlling.start()
    paused = ("--paused", "--engine", "concrete", *NO_GUEST_FOR_EVER)
    assert machine.does("run", "hello-le.elf", *paused, "--qmp", f"unix:{path}")[0] == 0
    controlling.join()
    assert answers[2]["return"]["status"] == "prelaunch"


def test_a_restored_guest_has_a_monitor_too(machine: Machine, tmp_path: Path) -> None:
    saved = str(tmp_path / "saved")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    machine.run("one")
    machine.asks("snapshot", "one", saved)
    machine.processes.append(
        process := Process("restore", saved, "--name", "two", "--qmp", f"tcp:localhost:{port}")
    )
    assert "two goes on" in process.error_line()
    client = RawClient(port)
    client.hear()
    assert client.say(NEGOTIATE) == {"return": {}}
    assert client.say(b'{"execute":"query-name"}') == {"return": {"name": "two"}}
    # It was given nothing to start again with.
    client.socket.sendall(b'{"execute":"system_reset"}')
    while "event" not in (told := client.hear()):
        assert told == {"return": {}}
    assert (told["event"], told["data"]) == ("SHUTDOWN", {"guest": False, "reason": "host-qmp-system-reset"})
    client.close()
    assert process.ends() == ExitStatus.REBOOT


def test_a_guest_comes_to_where_the_monitor_says(machine: Machine, tmp_path: Path) -> None:
    """As QEMU's `-incoming defer`: one guest, after which nobody listens at the address."""
    machine.fails(ExitStatus.USAGE, "give --qmp", "receive", "defer")
    machine.fails(ExitStatus.USAGE, "give --once", "receive", "defer", "--qmp", f"unix:{tmp_path}/q")
    source = machine.run("one", "--qmp", f"unix:{tmp_path}/one", "--stay")
    process, _ = machine.receive("two", "--qmp", f"unix:{tmp_path}/two", at="defer")
    door = tmp_path / "door"

    async def control() -> None:
        here, there = CheckedClient("one"), CheckedClient("two")
        await here.connect(str(tmp_path / "one"))
        await there.connect(str(tmp_path / "two"))
        assert (await there.execute("query-status"))["status"] == "inmigrate"
        assert await there.execute("query-name") == {}
        with pytest.raises(ExecuteError, match="no guest has come yet"):
            await there.execute("stop")
        with pytest.raises(ExecuteError, match="waits for no guest"):
            await here.execute("migrate-incoming", {"uri": f"unix:{door}"})
        for address in ("tcp:192.0.2.1:4444", "vc"):
            with pytest.raises(ExecuteError):
                await there.execute("migrate-incoming", {"uri": address})
        events = {"capability": "events", "state": True}
        await there.execute("migrate-set-capabilities", {"capabilities": [events]})
        await there.execute("migrate-incoming", {"uri": f"unix:{door}"})
        at = {"type": "unix", "path": str(door)}
        assert await there.execute("query-migrate") == {"socket-address": [at]}
        with pytest.raises(ExecuteError, match="waited for already"):
            await there.execute("migrate-incoming", {"uri": f"unix:{door}"})
        await here.execute("migrate", {"uri": f"unix:{door}"})
        # As QEMU's, in its order.
        assert await end_of_move(there) == [
            *(migration("setup"), migration("active"), {"event": "RESUME"}, migration("completed"))
        ]
        assert await there.execute("query-migrate") == {"status": "completed"}
        assert (await there.execute("query-status"))["status"] == "running"
        assert await there.execute("query-name") == {"name": "two"}
        while (await here.execute("query-migrate"))["status"] != "completed":
            await asyncio.sleep(0.01)
        await here.disconnect()
        deadline = time.monotonic() + 60
        while door.exists():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        # It stays although it had no client for a while.
        await here.connect(str(tmp_path / "one"))
        assert (await here.execute("query-status"))["status"] == "postmigrate"
        for client in (here, there):
            await client.execute("quit")
            # The process may be gone already.
            with contextlib.suppress(EOFError):
                await client.disconnect()

    asyncio.run(asyncio.wait_for(control(), 250))
    assert (source.ends(), process.ends()) == (ExitStatus.OK, ExitStatus.OK)


def test_a_receiver_that_is_told_to_quit_after_a_move_that_failed(machine: Machine, tmp_path: Path) -> None:
    machine.run("one")
    process, address = machine.receive("two", "--qmp", f"unix:{tmp_path}/two")
    client = RawClient(tmp_path / "two")
    client.hear()
    assert client.say(NEGOTIATE) == {"return": {}}
    client.socket.sendall(
        b'{"execute":"migrate-set-capabilities",'
        b'"arguments":{"capabilities":[{"capability":"events","state":true}]}}'
    )
    assert client.hear() == {"return": {}}
    broken = machine.way(address, Fault(True, "State", "cut"))
    machine.fails(ExitStatus.FAILED, "goes on here", "migrate", "one", str(broken.address))
    assert [client.hear()["data"]["status"] for _ in range(2)] == ["active", "failed"]
    assert client.say(b'{"execute":"query-migrate"}')["return"]["status"] == "failed"
    client.socket.sendall(b'{"execute":"quit"}')
    told = [client.hear(), client.hear()]
    assert {"return": {}} in told
    client.close()
    assert process.ends() == ExitStatus.OK


def test_qmp_under_tls(machine: Machine, tmp_path: Path) -> None:
    """A client of QEMU's library controls a guest; whoever has no certificate changes nothing."""
    authority = Authority(tmp_path)
    directory = authority.directory("good")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"tls:127.0.0.1:{port}"
    machine.fails(ExitStatus.USAGE, "--tls-credentials", "run", "demo-le.elf", "--qmp", address)
    machine.fails(
        *(ExitStatus.USAGE, "no authority's certificate", "run", "demo-le.elf", "--engine", "concrete"),
        *("--qmp", address, "--tls-credentials", str(tmp_path)),
    )
    process = machine.run("one", "--qmp", address, "--tls-credentials", directory, "--allow", CLIENT)
    refused = f"--qmp {address}: a client was not let in from 127.0.0.1: "
    plain = RawClient(port)
    with contextlib.suppress(ConnectionError):
        plain.say(NEGOTIATE)
    assert refused + "it does not speak TLS" in process.error_line()
    plain.close()
    (tmp_path / "others").mkdir()
    strange = Authority(tmp_path / "others").credentials("client", "client", trusts=authority).client()
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        strange.wrap_socket(raw, server_hostname="localhost") as stranger,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        stranger.recv(1)
    assert refused + "its certificate is not one to trust" in process.error_line()
    assert machine.state("one") == "running"

    async def control() -> None:
        client = CheckedClient("one")
        context = Credentials.in_directory(directory, "client").client()
        # The library says the address for the name that the certificate has to be for.
        context.check_hostname = False
        await client.connect(("127.0.0.1", port), context)
        await client.execute("stop")
        assert (await client.execute("query-status"))["status"] == "paused"
        await client.execute("quit")
        assert [event["event"] for event in await heard(client, "SHUTDOWN")] == ["STOP", "SHUTDOWN"]
        with contextlib.suppress(EOFError):
            await client.disconnect()

    asyncio.run(asyncio.wait_for(control(), 250))
    assert process.ends() == ExitStatus.OK


def test_a_console_under_tls(machine: Machine, tmp_path: Path) -> None:
    directory = Authority(tmp_path).directory("good")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = ("--console", f"tls:localhost:{port}", "--tls-credentials", directory)
    process = Process("run", "demo-le.elf", "--memory", "2M", "--name", "one", *place)
    machine.processes.append(process)
    deadline = time.monotonic() + 60
    with socket.socket() as there:
        while there.connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline, process.errors
            time.sleep(0.05)
    context = Credentials.in_directory(directory, "client").client()
    with (
        socket.create_connection(("localhost", port), 60) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as client,
        client.makefile("rw") as lines,
    ):
        assert "watching" in lines.readline()
        for key in "tq":
            lines.write(key)
            lines.flush()
            last = lines.readline()
        assert last.endswith("memory=intact\n")
    assert process.ends() == ExitStatus.OK
