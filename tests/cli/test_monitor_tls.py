"""Moves under TLS, driven by QMP's own client as under QEMU: objects, parameters, and who is not let in."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from certificates import CLIENT, Authority
from checked_client import CheckedClient
from processes import Machine
from qemu.qmp import ExecuteError

from chronovisor.cli.status import ExitStatus

CREDENTIALS = {"qom-type": "tls-creds-x509", "id": "x", "endpoint": "client", "verify-peer": False}


class Side(CheckedClient):
    """A client of one side's monitor."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._heard = 0

    @classmethod
    async def at(cls, path: Path) -> Side:
        side = cls(path.name)
        await side.connect(str(path))
        await side.execute(
            "migrate-set-capabilities", {"capabilities": [{"capability": "events", "state": True}]}
        )
        return side

    async def add(self, name: str, directory: str, endpoint: str, **more: object) -> None:
        given = {"qom-type": "tls-creds-x509", "id": name, "dir": directory, "endpoint": endpoint}
        await self.execute("object-add", given | more)

    async def protect(self, **parameters: str | None) -> None:
        given = {f"tls-{name}": value for name, value in parameters.items()}
        await self.execute("migrate-set-parameters", given)
        told = await self.execute("query-migrate-parameters")
        assert {name: told[name] for name in given} == {name: value or "" for name, value in given.items()}

    async def move(self, uri: str) -> dict[str, Any]:
        """Move the guest; what `query-migrate` says when the move is over."""
        await self.execute("migrate", {"uri": uri})
        while True:
            told: dict[str, Any] = await self.execute("query-migrate")
            if told["status"] in ("completed", "failed"):
                return told
            await asyncio.sleep(0.02)

    def statuses(self) -> list[str]:
        """The events that have come since this was asked last: those of moves by their status."""
        told = self.events.history[self._heard :]
        self._heard += len(told)
        for event in told:
            self.check_event(event)
        return [event.get("data", {}).get("status", event["event"]) for event in told]

    async def leave(self) -> None:
        await self.execute("quit")
        with contextlib.suppress(EOFError):
            await self.disconnect()


async def refused(side: Side, command: str, words: str, **arguments: object) -> None:
    with pytest.raises(ExecuteError, match=words):
        await side.execute(command, arguments)


def test_a_move_under_tls_by_the_monitor(machine: Machine, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good = authority.directory("good")
    (tmp_path / "others").mkdir()
    strangers = Authority(tmp_path / "others")
    untrusted = strangers.directory("untrusted", trusts=authority)
    source = machine.run("one", "--qmp", f"unix:{tmp_path}/one", "--stay")
    there, _ = machine.receive("two", "--qmp", f"unix:{tmp_path}/two", "--allow", CLIENT, at="defer")

    async def control() -> None:
        here, two = await Side.at(tmp_path / "one"), await Side.at(tmp_path / "two")
        await refused(here, "migrate", "say with migrate-set-parameters", uri="tls:localhost:1")
        await refused(here, "migrate-set-parameters", "no authorization objects", **{"tls-authz": "a"})
        await two.protect(creds="server")
        await refused(two, "migrate-incoming", "No TLS credentials with id 'server'", uri="tcp:0.0.0.0:0")
        await two.add("server", good, "server", **{"verify-peer": True})
        await two.execute("migrate-incoming", {"uri": "tcp:0.0.0.0:0"})
        told = await two.execute("query-migrate")
        assert "waited for at tls:0.0.0.0:" in await asyncio.to_thread(there.error_line)
        ((address,),) = told.values()
        port = address["port"]
        assert address == {"type": "inet", "host": "0.0.0.0", "port": port}
        way = f"tcp:localhost:{port}"
        # Nothing has begun when what is asked for makes no sense.
        await here.protect(creds="client")
        await refused(here, "migrate", "No TLS credentials with id 'client'", uri=way)
        await refused(here, "object-add", "verify-peer can be true alone", **CREDENTIALS, dir=good)
        await here.add("client", good, "server")
        await refused(here, "migrate", "for a client endpoint", uri=way)
        await refused(here, "migrate", "TLS is for tcp:HOST:PORT", uri=f"unix:{tmp_path}/way")
        await here.execute("object-del", {"id": "client"})
        assert await here.execute("query-migrate") == {}
        # A source without TLS, one of a stranger's, and destinations that are somebody else.
        await here.protect(creds=None)
        failed = [await here.move(way)]
        await here.add("strange", untrusted, "client")
        await here.protect(creds="strange")
        failed.append(await here.move(way))
        await here.add("client", good, "client")
        await here.protect(creds="client", hostname="other.example")
        failed.append(await here.move(way))
        await here.add("mistrusts", strangers.directory("mistrusts"), "client")
        await here.protect(creds="mistrusts", hostname="")
        failed.append(await here.move(way))
        assert [told["status"] for told in failed] == ["failed"] * 4
        reasons = [told["error-desc"] for told in failed]
        words = ("closed the connection", "does not know the authority", "other.example", "not one to trust")
        for reason, expected in zip(reasons, words, strict=True):
            assert expected in reason
        assert (await here.execute("query-status"))["status"] == "running"
        assert (await two.execute("query-status"))["status"] == "inmigrate"
        # As QEMU's: the guest is never stopped, and no move has begun at the destination.
        assert here.statuses() == ["setup", "failed"] * 4
        assert two.statuses() == ["setup"]
        # An address whose certificate is for a name: as under QEMU, `tls-hostname` says it.
        await here.protect(creds="client", hostname="localhost")
        done = await here.move(f"tcp:127.0.0.1:{port}")
        assert done["status"] == "completed"
        assert (await here.execute("query-status"))["status"] == "postmigrate"
        while (await two.execute("query-migrate"))["status"] != "completed":
            await asyncio.sleep(0.02)
        assert await two.execute("query-migrate") == {"status": "completed"}
        assert here.statuses() == ["setup", "active", "STOP", "device", "completed"]
        assert two.statuses() == ["active", "RESUME", "completed"]
        assert (await two.execute("query-status"))["status"] == "running"
        await two.execute("object-del", {"id": "server"})
        await here.leave()
        assert await asyncio.to_thread(source.ends) == ExitStatus.OK
        there.type("t")
        assert int(await asyncio.to_thread(there.line), 16) > 0
        await two.leave()

    asyncio.run(asyncio.wait_for(control(), 250))
    assert there.ends() == ExitStatus.OK


def test_objects_of_the_command_line(machine: Machine, tmp_path: Path) -> None:
    """`-object` of `chronovisor-qemu` and `--object`: what `object-add` makes, from the beginning."""
    directory = Authority(tmp_path).directory("good")
    text = f"tls-creds-x509,id=a,dir={directory}"
    machine.fails(ExitStatus.USAGE, "does nothing without --qmp", "run", "demo-le.elf", "--object", text)
    place = ("--qmp", f"unix:{tmp_path}/one")
    for refused_text, words in (
        (f"{text},endpoint=nope", "'endpoint' does not accept value 'nope'"),
        (f"{text},priority=NORMAL", "'priority' is unexpected"),
        (f"{text},verify-peer=no", "verify-peer can be true alone"),
        (f"{text},verify-peer=perhaps", "expects 'on' or 'off'"),
        (f"tls-creds-x509,id=a,dir={tmp_path}", "Unable to access credentials"),
        ("rng-random,id=a", "'qom-type' does not accept value 'rng-random'"),
    ):
        machine.fails(ExitStatus.USAGE, words, "run", "demo-le.elf", *place, "--object", refused_text)
    twice = (*place, "--object", text, "--object", text)
    machine.fails(ExitStatus.USAGE, "duplicate property 'a'", "run", "demo-le.elf", *twice)
    source = machine.run("one", *place, "--object", f"{text},endpoint=client,verify-peer=on")
    command = ("--allow", CLIENT, "--tls-credentials", directory)
    there, address = machine.receive("two", *command, at="tls:localhost:0")

    async def control() -> None:
        here = await Side.at(tmp_path / "one")
        await refused(here, "object-add", "duplicate property 'a'", **CREDENTIALS | {"id": "a"})
        await here.protect(creds="a")
        assert (await here.move(address))["status"] == "completed"
        await here.leave()

    asyncio.run(asyncio.wait_for(control(), 250))
    assert source.ends() == ExitStatus.OK
    # Now by the command line, to an address that the certificate does not name.
    other, address = machine.receive("three", *command, at="tls:127.0.0.1:0")
    machine.fails(ExitStatus.FAILED, "127.0.0.1", "migrate", "two", address, *command[2:])
    machine.asks("migrate", "two", address, *command[2:], "--tls-hostname", "localhost")
    assert there.ends() == ExitStatus.OK
    other.type("q")
    assert other.line().endswith("memory=intact\n")
    assert other.ends() == ExitStatus.OK
