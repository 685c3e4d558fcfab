"""Moves between real processes: `run`, `receive`, `migrate`, `ps` and `reg`, as people use them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import trustme
from processes import COMMAND, LIMIT, ORIGIN, Fault, Machine

from chronovisor.cli import dtl, history, main, pause, reg, resume
from chronovisor.cli.status import ExitStatus
from chronovisor.migration.address import parse_address
from chronovisor.migration.transfer import Transfer
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import GRANULE


def test_a_guest_moves_to_and_fro_and_keeps_its_time(machine: Machine) -> None:
    here = machine.run("here-0", "--tb-origin", str(ORIGIN))
    uncertain = 0
    for hop in range(3):
        there, address = machine.receive(f"here-{hop + 1}", "--tb-origin", hex(hop * 0x1234_5678_9ABC_DEF1))
        record = machine.asks("migrate", f"here-{hop}", address)
        assert set(record) == set(MoveRecord.__dataclass_fields__) | set(Transfer.__dataclass_fields__)
        assert abs(record["error_ticks"]) <= record["error_bound_ticks"]
        assert abs(record["rounding_ticks"]) <= GRANULE // 2
        uncertain += record["error_bound_ticks"] - abs(record["error_ticks"])
        assert here.ends() == 0
        assert f"the guest went to {address}" in here.errors
        here = there
        # Seen from outside: what it prints lies between the stamps of this process, but for the rounding.
        before, guest, after = here.timebase()
        assert before - GRANULE // 2 - uncertain <= guest - ORIGIN <= after + GRANULE // 2 + uncertain
    here.type("q")
    assert " back=0 " in (report := here.line())
    assert report.endswith("memory=intact\n")
    assert here.ends() == 0


def test_a_guest_that_does_not_suspend_itself_goes_on_and_can_still_move(machine: Machine) -> None:
    guest = machine.run("one")
    there, address = machine.receive("two", once=False)
    status, out, err = machine.does("migrate", "one", address, "--cooperative", "--suspend-limit", "0.2")
    assert (status, out) == (ExitStatus.FAILED, "")
    asked, failed = err.splitlines()
    assert "to /sys/kernel/mobility/migration in one" in asked
    assert "the guest did not suspend itself within 0.2 s, and goes on here" in failed
    assert machine.state("one") == "running"
    guest.timebase()
    machine.asks("migrate", "one", address)
    there.timebase()


def test_what_runs_is_listed_and_its_registers_shown_and_set(machine: Machine) -> None:
    machine.run("one", "--tb-origin", str(ORIGIN))
    machine.receive("two")
    one, two = machine.asks("ps")
    assert (one["name"], one["state"], one["vcpus"], one["memory"]) == ("one", "running", 1, 2 << 20)
    assert one["guest_tb"] == one["host_tb"] + one["tb_offset"]
    assert (two["name"], two["state"], two["guest_tb"]) == ("two", "waiting", None)
    assert machine.asks("reg", "one", "TB_OFFSET=0x3000001") == {"TB_OFFSET": 0x400_0000}
    before, guest, after = machine.processes[0].timebase()
    assert before <= guest - ORIGIN - 0x400_0000 <= after
    everything = machine.asks("reg", "one")
    assert everything["TB_OFFSET"] == 0x400_0000
    assert {"R0", "PC", "MSR", "DEC_EXPIRY", "VSR31"} <= set(everything)
    assert machine.does("reg", "one", "tb_offset")[1] == "TB_OFFSET    0x0000000004000000\n"
    assert "running  1      2M" in machine.does("ps")[1]
    for words, arguments in {
        "no register 'R32'": ("reg", "one", "R32"),
        "does not fit R3": ("reg", "one", "R3=0x1ffffffffffffffff"),
        "no number": ("reg", "one", "R3=many"),
        "no vCPU 1": ("reg", "one", "R3", "--vcpu", "1"),
        "no guest named three": ("reg", "three"),
        "cannot reg now": ("reg", "two"),
        "loopback": ("migrate", "one", "tcp:192.0.2.7:80"),
        "write tcp:HOST:PORT": ("migrate", "one", "elsewhere"),
        "one of ADDRESS": ("migrate", "one"),
        "no move": ("migrate", "one", "--resolve"),
        "cannot migrate now": ("migrate", "two", "tcp:127.0.0.1:80"),
        "name '../x'": ("reg", "../x"),
        "named one runs already": ("run", "hello-le.elf", "--name", "one", "--engine", "concrete"),
        "named two runs already": ("receive", "tcp:127.0.0.1:0", "--name", "two"),
        "say --clock virtual": ("receive", "tcp:127.0.0.1:0", "--record", "1M"),
        "--trace of receive": ("receive", "tcp:127.0.0.1:0", "--clock", "virtual", "--trace", "t"),
    }.items():
        machine.fails(ExitStatus.USAGE, words, *arguments)


def test_nobody_is_told_to_write_in_a_guest_that_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "nobody", "tcp:127.0.0.1:1", "--cooperative"]) == ExitStatus.USAGE
    said = capsys.readouterr().err
    assert said.startswith("chronovisor: no guest named nobody runs here")
    assert said.count("\n") == 1


def test_what_a_killed_process_left_is_cleared_away(machine: Machine) -> None:
    killed = machine.run("one")
    killed.kill()
    socket = Path(os.environ["CHRONOVISOR_RUN_DIR"]) / "one.sock"
    assert socket.exists()
    assert machine.asks("ps") == []
    assert not socket.exists()
    machine.run("one").kill()
    again = machine.run("one")
    again.type("q")
    assert again.ends() == 0
    assert not socket.exists()


def test_a_destination_killed_before_commit_leaves_the_guest(machine: Machine) -> None:
    here = machine.run("here", "--tb-origin", str(ORIGIN))
    there, address = machine.receive("there")
    machine.fails(ExitStatus.USAGE, "cannot be listened at", "receive", address, "--name", "other")
    way = machine.way(address, Fault(False, "Ready", "silence"))
    threading.Thread(target=lambda: (way.struck.wait(60), there.kill())).start()
    machine.fails(
        ExitStatus.FAILED, "goes on here", "migrate", "here", str(way.address), "--time-limit", "20"
    )
    assert machine.state("here") == "running"
    before, guest, after = here.timebase()
    assert before <= guest - ORIGIN <= after


def test_a_source_killed_before_commit_is_given_up(machine: Machine) -> None:
    here = machine.run("here")
    there, address = machine.receive("there")
    way = machine.way(address, Fault(True, "State", "silence"))
    threading.Thread(target=lambda: (way.struck.wait(60), here.kill())).start()
    status, _, _ = machine.does("migrate", "here", str(way.address), "--time-limit", "20")
    assert status == ExitStatus.USAGE
    assert "the move was given up, and the guest does not run here" in there.error_line()
    again = machine.run("again")
    machine.asks("migrate", "again", address)
    assert again.ends() == 0


def test_a_destination_killed_after_commit_is_asked_for_the_outcome(machine: Machine) -> None:
    here = machine.run("here", "--tb-origin", str(ORIGIN))
    there, address = machine.receive("there")
    way = machine.way(address, Fault(True, "Commit", "silence"))
    threading.Thread(target=lambda: (way.struck.wait(60), there.kill())).start()
    machine.fails(
        ExitStatus.UNDECIDED, "stays paused", "migrate", "here", str(way.address), "--time-limit", "20"
    )
    assert machine.state("here") == "undecided"
    machine.fails(ExitStatus.USAGE, "--resolve", "migrate", "here", address)
    machine.fails(ExitStatus.UNDECIDED, "stays paused", "migrate", "here", "--resolve")
    # Another process of that host knows that it was offered and never committed.
    _, address = machine.receive("there")
    way.target = parse_address(address)
    machine.fails(ExitStatus.FAILED, "goes on here", "migrate", "here", "--resolve")
    assert machine.state("here") == "running"
    before, guest, after = here.timebase()
    assert before <= guest - ORIGIN <= after
    machine.asks("migrate", "here", address)
    assert here.ends() == 0


def test_an_answer_that_was_lost_is_found_later(machine: Machine) -> None:
    here = machine.run("here")
    there, address = machine.receive("there")
    way = machine.way(address, Fault(False, "Acknowledged", "cut"), open_again=False)
    machine.fails(ExitStatus.UNDECIDED, "stays paused", "migrate", "here", str(way.address))
    assert machine.state("here") == "undecided"
    while machine.state("there") != "running":
        # It has recorded the outcome and lets the guest go just now.
        time.sleep(0.05)
    way.open_again = True
    record = machine.asks("migrate", "here", "--resolve")
    assert record["to_origin"] == 0
    assert here.ends() == 0
    there.type("q")
    assert there.line().endswith("memory=intact\n")
    assert there.ends() == 0


def test_the_operators_word(machine: Machine) -> None:
    here = machine.run("here")
    there, address = machine.receive("there")
    way = machine.way(address, Fault(False, "Acknowledged", "cut"), open_again=False)
    machine.fails(ExitStatus.UNDECIDED, "stays paused", "migrate", "here", str(way.address))
    there.kill()
    assert machine.asks("migrate", "here", "--force-resume")["resumed"] == "here"
    assert machine.state("here") == "running"
    here.type("q")
    assert here.line().endswith("memory=intact\n")
    assert here.ends() == 0


def test_two_moves_at_once(machine: Machine) -> None:
    here = machine.run("here")
    _, address = machine.receive("there")
    way = machine.way(address, Fault(False, "Accepted", "silence"))
    first = threading.Thread(target=main, args=(["migrate", "here", str(way.address), *LIMIT],))
    first.start()
    assert way.struck.wait(60)
    assert machine.state("here") == "moving"
    machine.fails(ExitStatus.USAGE, "on its way to", "migrate", "here", address)
    machine.fails(ExitStatus.USAGE, "on its way to", "reg", "here")
    way.close()
    first.join()
    here.type("q")
    assert here.line().endswith("memory=intact\n")


def test_a_guest_goes_over_a_unix_socket_and_under_tls(machine: Machine, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca-cert.pem")
    for role in ("server", "client"):
        certificate = authority.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(tmp_path / f"{role}-key.pem")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / f"{role}-cert.pem")
        (tmp_path / f"{role}-key.pem").chmod(0o600)
    here = machine.run("here")
    one, address = machine.receive("one", at=f"unix:{tmp_path}/way")
    assert address == f"unix:{tmp_path}/way"
    machine.asks("migrate", "here", address)
    assert here.ends() == 0
    two, address = machine.receive("two", "--tls-credentials", str(tmp_path), at="tls:localhost:0")
    machine.fails(ExitStatus.USAGE, "--tls-credentials", "migrate", "one", address)
    machine.fails(
        ExitStatus.USAGE, "all three", "migrate", "one", address, "--tls-ca", str(tmp_path / "ca-cert.pem")
    )
    (tmp_path / "client-key.pem").chmod(0o640)
    status, _, warned = machine.does(
        *("migrate", "one", address, "--tls-ca", str(tmp_path / "ca-cert.pem")),
        *("--tls-cert", str(tmp_path / "client-cert.pem"), "--tls-key", str(tmp_path / "client-key.pem")),
    )
    assert status == 0
    assert "client-key.pem: others can read this private key (mode 640)" in warned
    assert one.ends() == 0
    two.type("q")
    assert two.line().endswith("memory=intact\n")
    assert two.ends() == 0


def test_a_destination_is_no_one_elses_by_accident(machine: Machine) -> None:
    machine.fails(ExitStatus.USAGE, "--insecure", "receive", "tcp:0.0.0.0:0")
    machine.fails(ExitStatus.USAGE, "certificates", "receive", "tls:0.0.0.0:0")
    there, address = machine.receive("there", "--insecure", at="tcp:0.0.0.0:0")
    here = machine.run("here")
    machine.asks("migrate", "here", address.replace("0.0.0.0", "127.0.0.1"))
    assert here.ends() == 0
    there.type("q")
    assert there.line().endswith("memory=intact\n")


def test_a_guest_that_writes_all_the_time_does_not_converge_where_no_downtime_is_allowed(
    machine: Machine,
) -> None:
    here = machine.run("here", "--tb-origin", str(ORIGIN))
    there, address = machine.receive("there")
    # Slow enough for the guest to write something in every round.
    never = ("migrate", "here", address, "--downtime-limit", "0ms", "--bandwidth-limit", "256K")
    machine.fails(ExitStatus.FAILED, "does not converge, and the guest goes on here", *never)
    assert machine.state("here") == "running"
    before, guest, after = here.timebase()
    assert before <= guest - ORIGIN <= after
    assert "given up" in there.error_line()


def test_a_slow_move_says_how_far_it_is_and_can_be_cancelled(machine: Machine) -> None:
    here = machine.run("here", "--tb-origin", str(ORIGIN))
    there, address = machine.receive("there")
    slow = ("--bandwidth-limit", "256K")
    machine.fails(ExitStatus.USAGE, "the least is", "migrate", "here", address, "--bandwidth-limit", "1")
    machine.fails(ExitStatus.USAGE, "downtime limit", "migrate", "here", address, "--downtime-limit", "x")
    status, out, err = machine.does("migrate", "here", address, *slow, "--json", "--progress")
    assert (status, err) == (0, "")
    *steps, report = [json.loads(line) for line in out.splitlines()]
    assert steps
    assert all(set(step["progress"]) == {"round", "sent_bytes", "remaining_bytes", "rate"} for step in steps)
    assert report["rounds"] >= 2
    assert report["sent_bytes"] >= steps[-1]["progress"]["sent_bytes"]
    assert here.ends() == 0
    other, address = machine.receive("other")
    failed: list[int] = []

    def go() -> None:
        command = [*COMMAND, "migrate", "there", address, *slow]
        failed.append(subprocess.run(command, capture_output=True, check=False).returncode)

    machine.fails(ExitStatus.USAGE, "not on its way", "migrate", "there", "--cancel")
    thread = threading.Thread(target=go)
    thread.start()
    while machine.state("there") != "moving":
        time.sleep(0.01)
    assert machine.asks("migrate", "there", "--cancel")["cancelled"] == "there"
    thread.join()
    assert failed == [ExitStatus.FAILED]
    assert machine.state("there") == "running"
    before, guest, after = there.timebase()
    assert before - GRANULE <= guest - ORIGIN <= after + GRANULE
    # The second line is of a source that was stopped before it made its offer.
    assert re.search("the move was given up|a guest was not taken", other.error_line())


def test_ending_a_run_gives_its_name_back(machine: Machine) -> None:
    here = machine.run("here")
    os.kill(here.pid, signal.SIGTERM)
    assert here.ends() == 128 + signal.SIGTERM
    assert list(Path(os.environ["CHRONOVISOR_RUN_DIR"]).glob("*.sock")) == []


def test_a_run_directory_that_others_can_enter_is_refused(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    monkeypatch.setenv("CHRONOVISOR_RUN_DIR", str(open_to_all))
    machine.fails(ExitStatus.USAGE, "others can enter it", "ps")


def test_a_run_directory_behind_a_link_is_refused(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    monkeypatch.setenv("CHRONOVISOR_RUN_DIR", str(tmp_path / "link"))
    machine.fails(ExitStatus.USAGE, "no directory but a link", "ps")


def test_a_process_that_is_stopped_is_not_waited_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine.run("here")
    os.kill(here.pid, signal.SIGSTOP)
    for module in (reg, dtl, history, pause, resume):
        monkeypatch.setattr(module, "PATIENCE", 0.2)
    for command in ("reg", "dtl", "history", "pause", "resume"):
        machine.fails(ExitStatus.USAGE, "has not answered for 0.2 s", command, "here")
    os.kill(here.pid, signal.SIGCONT)
