"""`run --gdb` and `chronovisor gdb` as commands."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from certificates import Authority
from processes import Machine
from test_monitor_oracle import Client

from chronovisor.cli.status import ExitStatus
from chronovisor.machine.debugger.gdb_protocol import PACKET_SIZE
from chronovisor.machine.elf import read_image
from chronovisor.machine.files import SHIPPED

needs_gdb = pytest.mark.skipif(shutil.which("gdb-multiarch") is None, reason="needs Debian's gdb-multiarch")


def gdb(address: str, *commands: str) -> str:
    words = [
        "gdb-multiarch",
        "-nx",
        "-batch",
        # Of itself it gives an answer up after two seconds.
        *("-l", "60"),
        str(SHIPPED / "demo-le.elf"),
        "-ex",
        f"target remote {address}",
    ]
    for command in commands:
        words += ["-ex", command]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    return done.stdout


@needs_gdb
def test_a_running_guest_is_debugged_and_its_time_stands_still_meanwhile(
    machine: Machine, tmp_path: Path
) -> None:
    guest = machine.run("alice")
    _, before, _ = guest.timebase()
    place = str(tmp_path / "gdb")
    status, out, _ = machine.does("gdb", "alice", "--at", f"unix:{place}")
    assert (status, out) == (ExitStatus.OK, f"target remote {place}\n")
    # Asked again, it is where it is.
    assert machine.asks("gdb", "alice", "--at", "1")["address"] == place
    said = gdb(place, "shell sleep 1", "monitor time", "shell sleep 1", "monitor time", "detach")
    first, second = (int(found, 16) for found in re.findall(r"guest timebase +(0x\w+)", said))
    assert first == second > before, said
    earlier, later = (int(found, 16) for found in re.findall(r"host timebase +(0x\w+)", said))
    assert later - earlier > 500_000_000
    _, after, now = guest.timebase()
    # However long gdb took to leave. The rounding of the offset is less than the second.
    assert after - first <= now - later + (1 << 24), "the second in which it was stopped counts"
    assert after > first
    assert machine.state("alice") == "running"


def test_a_guest_waits_for_its_debugger(machine: Machine) -> None:
    machine.fails(ExitStatus.USAGE, "--gdb", "run", "hello-le.elf", "--wait")
    machine.fails(ExitStatus.USAGE, "or say --insecure", "run", "hello-le.elf", "--gdb", "0.0.0.0:1234")
    machine.fails(ExitStatus.USAGE, "no guest named", "gdb", "nobody")
    waiting = machine.start_waiting("bob", "--gdb", "0", "--wait")
    found = re.fullmatch(r"chronovisor: gdb can connect: target remote (\S+)\n", waiting.error_line())
    assert found is not None, waiting.errors
    assert machine.state("bob") == "paused"
    machine.fails(ExitStatus.USAGE, "continue it there", "resume", "bob")
    said = gdb(found[1], "continue") if shutil.which("gdb-multiarch") else ""
    if said:
        assert "exited normally" in said
        assert waiting.ends() == ExitStatus.OK


def without_values(registers: str) -> list[str]:
    """The lines of `info registers` without what they say of the registers."""
    return [re.sub(r"[0-9a-f]{8,}|DECR \d+|\[.*\]", "", line).rstrip() for line in registers.splitlines()]


@needs_gdb
def test_gdb_s_monitor_takes_the_lines_of_the_human_monitor(machine: Machine, tmp_path: Path) -> None:
    """The same answers as a client of QMP has, and QMP's events tell of what was done in gdb."""
    qmp = f"unix:{tmp_path}/qmp"
    guest = machine.run("alice", "--smp", "2", "--qmp", qmp)
    place = machine.asks("gdb", "alice", "--at", "0")["address"]
    with Client(tmp_path / "qmp") as client:
        client.ask("qmp_capabilities")
        said = gdb(
            place,
            *("monitor help", "echo --\\n", "monitor info status", "monitor info name", "thread 2"),
            *("monitor info cpus", "echo --\\n", "monitor info registers", "monitor xp /512xg 0x10000"),
            *("echo --\\n", "monitor help time", "monitor help stop", "monitor stop", "monitor cont"),
            *("monitor nonsense", "monitor stop now", "monitor system_reset", "monitor system_powerdown"),
            *("monitor time now", "thread 1", "monitor reg PC", "x/1xw 0x10000", "monitor x/1xw $pc"),
            *("monitor p/x $nip", "detach"),
        )
        helped, status, registers, rest = said.split("--\n")
        assert {"time", "reg", "memory", "endian"} <= set(re.findall(r"^(\w+) ", helped, re.M)), said
        assert client.ask("human-monitor-command", **{"command-line": "help"}).replace("\r", "") in helped
        cpus = client.ask("human-monitor-command", **{"command-line": "info cpus", "cpu-index": 1})
        assert "VM status: paused\nalice\n" in status, said
        assert cpus.replace("\r", "") in status, said
        # More than a packet holds: nothing is lost.
        lines = ("info registers", "xp /512xg 0x10000")
        shown = "".join(
            client.ask("human-monitor-command", **{"command-line": line, "cpu-index": 1}) for line in lines
        )
        assert len(shown) > PACKET_SIZE // 4
        assert without_values(registers) == without_values(shown), said
        for expected in (
            *("time -- the host's and the guest's timebase", "stop|s  -- stop emulation"),
            *("Error: alice was stopped by a debugger: continue it there", "unknown command: 'nonsense'"),
            "stop|s: extraneous characters at the end of line",
        ):
            assert expected in rest, said
        begins_at = read_image(str(SHIPPED / "demo-le.elf")).entry
        assert f"PC {begins_at:#018x}\n" in rest, said
        # In the order of the guest's bytes, as gdb does.
        by_gdb, by_monitor = re.findall(r"^0x0*10000.*:\s+(0x\w{8})|^0{11}10000: (0x\w{8})$", rest, re.M)
        assert by_gdb[0] == by_monitor[1] != "0x00000000", said
        assert "\n0x10000\n" in rest, said
        assert "watching" in guest.line()
        gdb(place, "monitor quit")
        while client.events[-1:] != ["SHUTDOWN"]:
            client.hear()
        assert client.events == ["STOP", "RESET", "POWERDOWN", "RESUME", "STOP", "SHUTDOWN"]
        assert client.said[-1]["data"] == {"guest": False, "reason": "host-qmp-quit"}
    assert guest.ends() == ExitStatus.OK


@needs_gdb
def test_gdb_goes_back_in_virtual_time(machine: Machine) -> None:
    machine.fails(ExitStatus.USAGE, "virtual time", "run", "hello-le.elf", "--record", "1M")
    machine.fails(ExitStatus.USAGE, "is no size", "run", "hello-le.elf", "--gdb", "0", "--record", "much")
    machine.fails(
        ExitStatus.USAGE, "nothing would be kept", "run", "hello-le.elf", "--gdb", "0", "--record", "0"
    )
    machine.fails(ExitStatus.USAGE, "virtual time", "run", "hello-le.elf", "--gdb", "0", "--record", "1M")
    options = ("--gdb", "0", "--wait", "--clock", "virtual", "--record", "64M")
    waiting = machine.start_waiting("carol", *options)
    found = re.fullmatch(r"chronovisor: gdb can connect: target remote (\S+)\n", waiting.error_line())
    assert found is not None, waiting.errors
    # It is recorded already.
    machine.asks("gdb", "carol", "--record", "1M")
    begin, say = 'printf "begin=%lx\\n", $pc', 'printf "pc=%lx\\n", $pc'
    said = gdb(
        *(found[1], begin, "stepi 40", "stepi", say, "reverse-stepi", "monitor info status", "stepi", say),
        *("reverse-continue", say),
    )
    assert "the guest is shown as it was" in said
    (beginning,) = re.findall(r"begin=(\w+)", said)
    stepped, again, back = re.findall(r"pc=(\w+)", said)
    assert (stepped, back) == (again, beginning), said
    assert "No more reverse-execution history" in said
    # Its debugger has left it in the past: it goes on in the present.
    assert waiting.ends() == ExitStatus.OK


@needs_gdb
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl, through which gdb speaks TLS")
def test_gdb_under_tls(machine: Machine, tmp_path: Path) -> None:
    """gdb as people use it: through the command that `chronovisor gdb` prints."""
    authority = Authority(tmp_path)
    directory = authority.directory("good")
    process = machine.run("alice")
    place = ("gdb", "alice", "--at", "tls:localhost:0", "--tls-credentials", directory)
    machine.fails(ExitStatus.USAGE, "--tls-credentials", *place[:4])
    assert re.search("gdb speaks no TLS itself", machine.does(*place, "--attach")[2])
    _, connect, _ = machine.does(*place)
    assert "openssl s_client" in connect
    port = re.findall(r"-connect \S+:(\d+)", connect)[0]
    told = process.error_line()
    assert connect.strip() in told

    def debug(directory: str, *commands: str, connect: str = connect) -> str:
        words = ["gdb-multiarch", "-nx", "-batch", "-l", "60", str(SHIPPED / "demo-le.elf"), "-ex"]
        words += [connect.strip().removesuffix("\n")]
        words += [word for command in commands for word in ("-ex", command)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=directory)
        return done.stdout + done.stderr

    said = debug(directory, "info registers pc", "x/2i $pc", "stepi", "monitor time", "detach")
    assert "guest timebase" in said, said
    assert "detached" in said, said
    assert machine.state("alice") == "running"
    # A certificate that another authority signed; then a gdb without TLS.
    (tmp_path / "others").mkdir()
    stranger = Authority(tmp_path / "others").directory("strange", trusts=authority)
    assert "guest timebase" not in debug(stranger, "monitor time")
    assert "guest timebase" not in gdb(f"localhost:{port}", "monitor time")
    # What listens there has a certificate for another host than gdb's user wants.
    elsewhere = connect.replace("-verify_hostname localhost", "-verify_hostname other.example")
    assert elsewhere != connect
    assert "guest timebase" not in debug(directory, "monitor time", connect=elsewhere)
    assert machine.state("alice") == "running"
    said = debug(directory, "monitor time", "kill")
    assert "guest timebase" in said, said
    assert process.ends() == ExitStatus.ENDED
    for expected in ("a debugger has come", "is not one to trust", "it does not speak TLS"):
        assert expected in process.errors, (expected, process.errors)
