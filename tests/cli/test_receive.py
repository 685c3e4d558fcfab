"""`receive` as people use it: it takes guests one after another, and only from those who may send."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from processes import ORIGIN, Machine, ticks

from chronovisor.cli import main
from chronovisor.cli.status import ExitStatus
from chronovisor.migration.address import Address, parse_address
from chronovisor.timebase.types import GRANULE


def test_what_was_typed_before_a_guest_comes_is_for_nobody(machine: Machine) -> None:
    source = machine.run("alice")
    process, address = machine.receive("bob")
    # It would end the guest.
    process.type("q")
    while not process.has_read():
        time.sleep(0.01)
    machine.asks("migrate", "alice", address)
    process.timebase()
    process.type("q")
    assert (source.ends(), process.ends()) == (ExitStatus.OK, ExitStatus.OK)


def test_it_takes_guests_one_after_another_and_outlives_those_who_send_none(machine: Machine) -> None:
    there, text = machine.receive("there", once=False)
    address = parse_address(text)
    assert isinstance(address, Address)
    for rubbish in (b"", b"GET / HTTP/1.1\r\n\r\n"):
        with socket.create_connection((address.host, address.port)) as peer:
            peer.sendall(rubbish)
        assert "a guest was not taken from 127.0.0.1" in there.error_line()
    for number in range(2):
        here = machine.run(f"here-{number}")
        machine.asks("migrate", f"here-{number}", text)
        assert here.ends() == 0
        assert f"here-{number} came" in there.error_line()
        other = machine.run("other")
        machine.fails(ExitStatus.FAILED, "another guest has come", "migrate", "other", text)
        other.kill()
        there.type("q")
        assert there.line().endswith("memory=intact\n")
        assert "waits for the next guest" in there.error_line()
        assert machine.state("there") == "waiting"


def test_a_source_has_to_show_the_token(machine: Machine, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("open sesame\n")
    there, address = machine.receive("there", "--token-file", str(secret))
    here = machine.run("here")
    for words, options in {
        "shows no token": (),
        "shows another token": ("--token", "open sesam"),
    }.items():
        machine.fails(ExitStatus.FAILED, words, "migrate", "here", address, *options)
        assert words in there.error_line()
    (tmp_path / "empty").write_text("\n")
    for words, options in {
        "one of --token": ("--token", "x", "--token-file", str(secret)),
        "no token in it": ("--token-file", str(tmp_path / "empty")),
        "the most is 1000": ("--token", "x" * 1001),
    }.items():
        machine.fails(ExitStatus.USAGE, words, "migrate", "here", address, *options)
    machine.asks("migrate", "here", address, "--token", "open sesame")
    assert here.ends() == 0


def test_names_that_may_send_are_for_tls_alone(machine: Machine) -> None:
    machine.fails(
        ExitStatus.USAGE,
        "--allow does nothing without a tls: address",
        "receive",
        "tcp:127.0.0.1:0",
        "--allow",
        "me",
    )


def test_a_paused_guest_arrives_paused_and_its_pause_does_not_count(machine: Machine) -> None:
    here = machine.run("here", "--tb-origin", str(ORIGIN))
    there, address = machine.receive("there", "--tb-origin", "0x123456789abcdef")
    asleep = ticks()
    stopped = machine.asks("pause", "here")["guest_tb"]
    record = machine.asks("migrate", "here", address)
    assert record["rounds"] == 1
    assert here.ends() == 0
    assert "came and is paused" in there.error_line()
    (listed,) = machine.asks("ps")
    assert (listed["state"], listed["guest_tb"]) == ("paused", stopped)
    there.type("t")
    time.sleep(0.2)
    hop = machine.asks("resume", "there")
    assert hop["guest_tb_before"] == stopped
    assert 0 <= hop["guest_tb_after"] - stopped <= 2 * GRANULE
    assert ticks() - asleep - hop["elapsed_ticks"] >= 0
    # What was typed while it was paused is answered now, at a time not far behind the pause's beginning.
    assert 0 <= int(there.line(), 16) - stopped <= ticks() - asleep - 0.2 * 512_000_000
    there.type("q")
    assert " back=0 " in (report := there.line())
    assert report.endswith("memory=intact\n")
    assert there.ends() == 0


def test_a_moving_guest_shows_its_time_while_it_runs(machine: Machine) -> None:
    machine.run("here", "--tb-origin", str(ORIGIN))
    _, address = machine.receive("there")
    slow = machine.start("migrate", "here", address, "--bandwidth-limit", "256K", "--downtime-limit", "0ms")
    while machine.state("here") != "moving":
        assert slow.poll() is None
    seen = []
    while not seen:
        before = ticks()
        (guest,) = (found for found in machine.asks("ps") if found["name"] == "here")
        assert guest["state"] == "moving"
        if guest["guest_tb"] is not None:
            seen.append(before <= guest["guest_tb"] - ORIGIN <= ticks())
            assert guest["guest_tb"] == guest["host_tb"] + guest["tb_offset"]
    assert seen == [True]
    machine.asks("migrate", "here", "--cancel")
    assert slow.wait(60) == ExitStatus.FAILED


@pytest.mark.parametrize("command", [("receive", "unix:x"), ("restore", "x")], ids=["receive", "restore"])
def test_what_a_guest_begins_with_after_a_reboot_is_read_before_it_comes(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for options, reason in {
        ("--kernel", "nowhere"): "nowhere: No such file or directory",
        ("--kernel", "hello-le", "--initrd", "nowhere"): "nowhere: No such file or directory",
        ("--append", "quiet"): "--append does nothing without --kernel",
    }.items():
        assert main([*command, *options]) in (ExitStatus.USAGE, ExitStatus.BAD_IMAGE)
        assert reason in capsys.readouterr().err
