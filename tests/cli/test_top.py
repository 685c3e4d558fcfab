"""`chronovisor top`."""

from __future__ import annotations

from processes import Machine
from test_keys import OnTerminal

from chronovisor.cli.status import ExitStatus


def test_a_look_at_the_guests(machine: Machine) -> None:
    assert machine.asks("top") == []
    alice = machine.run("alice", "--tb-offset", "0x5000000")
    (first,) = machine.asks("top")
    for _ in range(3):
        alice.timebase()
    (second,) = machine.asks("top")
    assert (second["name"], second["state"], second["tb_offset"]) == ("alice", "running", 0x5000000)
    assert second["instructions"]["total"] > first["instructions"]["total"] > 0
    assert second["instructions"]["concrete"] == second["instructions"]["total"]
    # Each number, and its line's end.
    assert second["exits"]["H_PUT_TERM_CHAR"] >= first["exits"]["H_PUT_TERM_CHAR"] + 3
    assert second["clock_error_ticks"] == 0
    assert "stolen_ticks" in second
    status, out, _ = machine.does("top", "--once")
    assert status == ExitStatus.OK
    assert "alice" in out
    assert "0x5000000" in out
    machine.fails(ExitStatus.USAGE, "interval", "top", "--interval", "0")


def test_it_renews_itself_until_ctrl_c(machine: Machine) -> None:
    machine.run("alice")
    terminal = OnTerminal("top", "--interval", "0.1")
    for _ in range(2):
        terminal.until(b"alice")
    terminal.press(b"\x03")
    assert terminal.process.wait(60) == ExitStatus.OK
    terminal.close()
