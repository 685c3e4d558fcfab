"""`chronovisor-qemu`: what QEMU's options become, and what is refused as QEMU refuses it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "machine"))
from elf_files import POWER_OFF, program

from chronovisor.cli.qemu import main
from chronovisor.cli.qemu.command import translate
from chronovisor.cli.qemu.option import QemuOptionError
from chronovisor.cli.qemu.options import BY_NAME

COMMAND = [
    sys.executable,
    "-c",
    "import sys; from chronovisor.cli.qemu import main; sys.exit(main())",
]
SOCKET = "server=on,wait=off"

#: QEMU's options, and what they become beside `--kernel=k` and the memory of 512 MB.
TAKEN = {
    "": "",
    "-m 1g -initrd i": "--memory=1G --initrd=i",
    "-m size=300 -smp 8,threads=4": "--memory=300M --smp=8,threads=4",
    "-smp cpus=4,sockets=2,cores=2": "--smp=4",
    "-smp sockets=2,cores=2,threads=2": "--smp=8,threads=2",
    "-M pseries-7.2,cap-cfpc=broken,accel=tcg -cpu POWER9_v2.0": "--provider=embedded --cpu=power9",
    "-machine pseries,cap-ccf-assist=off -machine x-vof=on -accel kvm": "--provider=linux",
    "-enable-kvm -cpu host": "--provider=linux --cpu=auto",
    "-nographic": "--escape=^ax",
    "-display none": "--console=none",
    "-nographic -serial file:x": "--console=file:x",
    "-serial mon:stdio": "--escape=^ax --console=stdio",
    f"-serial unix:/s,{SOCKET}": "--console=unix:/s",
    "-serial tcp::4444,server,nowait": "--console=tcp:127.0.0.1:4444",
    "-serial null -monitor none": "--console=none",
    f"-chardev socket,id=m,path=/a,,b,{SOCKET} -mon chardev=m,id=mo,mode=control": "--qmp=unix:/a,b --stay",
    f"-chardev socket,id=m,host=h,port=1,tls-creds=t,{SOCKET} -mon m,mode=control "
    "-object tls-creds-x509,id=t,dir=d,endpoint=server": "--qmp=tls:h:1 --stay --tls-credentials=d "
    "--object=tls-creds-x509,id=t,dir=d,endpoint=server",
    f"-object tls-creds-x509,id=c,dir=d -qmp unix:/q,{SOCKET} "
    "-object tls-creds-x509,id=s,dir=e,endpoint=server": "--qmp=unix:/q --stay "
    "--object=tls-creds-x509,id=c,dir=d --object=tls-creds-x509,id=s,dir=e,endpoint=server",
    "-object tls-creds-x509,id=c,dir=d,endpoint=client": "",
    f"-object tls-creds-x509,dir=d,id=t,verify-peer=yes,endpoint=server -qmp tcp::1,tls-creds=t,{SOCKET} "
    f"-serial tcp::2,tls-creds=t,{SOCKET}": "--qmp=tls:127.0.0.1:1 --stay --console=tls:127.0.0.1:2 "
    "--tls-credentials=d --object=tls-creds-x509,dir=d,id=t,verify-peer=yes,endpoint=server",
    "-chardev file,id=f,path=x -serial chardev:f": "--console=file:x",
    f"-qmp unix:/q,{SOCKET} -S -s": "--qmp=unix:/q --stay --paused --gdb=1234",
    "-gdb tcp:localhost:99": "--gdb=localhost:99",
    "-rtc base=2006-06-17,clock=host": "--rtc=base=2006-06-17",
    "-icount shift=5": "--clock=virtual --ticks-per-instruction=16",
    "-no-reboot -name guest=a,debug-threads=on": "--no-reboot --name=a",
    "-pidfile p -daemonize": "--pidfile=p --detach",
    "-nodefaults -no-user-config -vga none -parallel none -net none -nic none": "",
    "-bios /dev/null -append --x": "--append=--x",
    f"-incoming defer -qmp unix:/q,{SOCKET}": "receive defer --once --qmp=unix:/q --stay",
    "-hda a -drive file=b,,c,format=raw,readonly=on d": "--disk=a --disk=b,,c,format=raw,ro --disk=d",
    "-drive file=a,if=none,id=d -device spapr-vscsi -device scsi-hd,drive=d": "--disk=a",
    "-netdev user,id=n -device spapr-vlan,netdev=n,mac=02::1": "--net=passt,mac=02::1",
    "-nic tap,ifname=t0,script=no": "--net=tap=t0",
    "-netdev user,id=n,hostfwd=tcp::2222-:22,hostfwd=udp:127.0.0.2:5-:6 -device spapr-vlan,netdev=n": (
        "--net=passt,tcp=2222:22,udp=127.0.0.2/5:6"
    ),
    "-nic user,hostfwd=tcp:[::1]:80-:8080,mac=02::1": "--net=passt,tcp=::1/80:8080,mac=02::1",
    "-net nic,model=ibmveth,macaddr=02::1 -net user,hostfwd=tcp::1-:2": "--net=passt,tcp=1:2,mac=02::1",
    "-net tap,ifname=t0,script=no -net nic": "--net=tap=t0",
    "-action reboot=shutdown,panic=shutdown": "--no-reboot",
    "-action reboot=reset": "",
    "-d unimp,guest_errors -D l": "--log=unimp,guest_errors --log-file=l",
    "-D l": "",
    "-incoming unix:/i -smp 2 -m 1g": "receive unix:/i --once --memory-limit=1G",
    "-incoming tcp:127.0.0.1:4444 -append x -no-reboot": "receive tcp:127.0.0.1:4444 --once",
}  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours"), TAKEN.items())
def test_what_becomes_what(theirs: str, ours: str) -> None:
    command, *words = translate([*theirs.split(), "-kernel", "k"])
    expected = ours.split()
    memory = "--memory=" if command == "run" else "--memory-limit="
    if memory not in ours:
        expected.append(f"{memory}512M")
    if command == "receive":
        assert [command, *words[:2]] == expected[:3]
        words, expected = words[2:], expected[3:]
    if command == "run" or "-no-reboot" not in theirs:
        expected.append("--kernel=k")
    assert sorted(words) == sorted(expected)


def test_each_option_is_tried() -> None:
    tried = {word.lstrip("-") for theirs in TAKEN for word in theirs.split() if word.startswith("-")}
    assert set(BY_NAME) - tried == {"kernel"}


REFUSED = (
    *("-nosuch", "--nosuch", "-kernel", "-m foo", "-accel nosuch", "-serial bogus:1", "-icount shift=99"),
    *("-name a=b", "-display nosuch", "-chardev bogus,id=x", "-nographic -daemonize", "-monitor nosuch"),
    "-qmp bogus",
)
ONLY_OURS = {
    "-vnc :1": "-vnc: invalid option",
    "-net nic": "a card and its network belong together",
    "-kernel k -net user": "a card and its network belong together",
    "-net nic,model=e1000": "model can be spapr-vlan alone",
    "-netdev tap,id=n,ifname=t,hostfwd=tcp::1-:2": "hostfwd is for user alone",
    "-nic user,hostfwd=tcp::1-10.0.2.15:2": "the guest has one address",
    "-action panic=pause": "panic can be shutdown",
    "-action watchdog=none": "'watchdog' is not available",
    "-object rng-random,id=r": "'qom-type' does not accept value 'rng-random'",
    "-object tls-creds-x509,id=t,dir=d,endpoint=x": "'endpoint' does not accept value 'x'",
    "-kernel k -qmp tcp::1,server,tls-creds=t -object tls-creds-x509,id=t,dir=d": "for a server endpoint",
    "-object tls-creds-x509,id=t,dir=d,endpoint=server,verify-peer=no": "verify-peer can be on alone",
    "-object tls-creds-x509,id=t,dir=d,endpoint=server,priority=NORMAL": "'priority' is unexpected",
    "-object tls-creds-x509,id=t,endpoint=server": "Missing 'dir' property value",
    "-object tls-creds-x509,dir=d": "'id' is missing",
    "-kernel k -qmp tcp::1,server,tls-creds=t": "No TLS credentials with id 't'",
    "-qmp unix:/q,server,tls-creds=t": "not for a unix socket",
    "-qmp tcp::1,server,tls-creds=t,tls-authz=a": "'tls-authz' is not available",
    "-drive file=x,if=virtio": "if=virtio is not available",
    "-drive file=x,if=none,id=d -kernel k": "'d' has no -device",
    "-drive if=scsi": "'file' is missing",
    "-device virtio-net-pci": "'virtio-net-pci' is not available",
    "-device scsi-hd,drive=d": "no drive 'd'",
    "-device spapr-vlan,netdev=n": "no network 'n'",
    "-netdev bridge,id=n": "'bridge' is not available",
    "-nic user,model=e1000": "model can be spapr-vlan alone",
    "disk.img": "give -kernel FILE",
    "-d int": "-d int: 'int' is not logged; there are unimp, guest_errors",
    "-d unimp,exec": "'exec' is not logged",
    "-incoming unix:/x -d unimp": "-incoming does not go with what becomes --log",
    "-M powernv": "-M powernv: unsupported machine type",
    "-M pseries,cap-htm=on": "cap-htm can be off alone",
    "-cpu power10": "unable to find CPU model 'power10'",
    "-smp 2,maxcpus=4": "maxcpus",
    "-smp 3,threads=2": "Invalid CPU topology",
    "-m 1G,slots=2": "'slots' is not available",
    "-serial pty": "'pty' is not available",
    "-serial unix:/x": "server=on",
    "-serial stdio -serial null": "there can be only one",
    "-icount auto": "expects a number",
    "-bios /nowhere": "Could not find LPAR firmware '/nowhere'",
    "-incoming exec:cat": "a guest can come to tcp:",
    "-incoming unix:/x -s": "-incoming does not go with what becomes --gdb",
    "-append x": "give -kernel FILE",
    "-kernel /_NO_FILE_": "could not load kernel: /_NO_FILE_",
}


@pytest.mark.parametrize(("theirs", "words"), ONLY_OURS.items())
def test_what_is_refused(theirs: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(theirs.split()) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("chronovisor-qemu: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err


@pytest.mark.oracle
@pytest.mark.skipif(shutil.which("qemu-system-ppc64") is None, reason="needs Debian's qemu-system-ppc")
@pytest.mark.parametrize("theirs", REFUSED)
def test_it_is_refused_as_qemu_does(theirs: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status, and of the line what stands before the reason."""
    display = [] if "-display" in theirs or "-nographic" in theirs else ["-display", "none"]
    qemu = subprocess.run(
        ["qemu-system-ppc64", *display, *theirs.split()], capture_output=True, text=True, timeout=60
    )
    assert main(theirs.split()) == qemu.returncode == 1
    ours = capsys.readouterr().err
    # Debian's warns of interfaces that are not installed.
    said = next(line for line in qemu.stderr.splitlines() if line.startswith("qemu-system-ppc64: "))
    # QEMU does not quote what else belongs to an option, as the size of `-m`.
    before = (
        f"{theirs}: " if theirs + ": " in said else said.removeprefix("qemu-system-ppc64: ").split(":")[0]
    )
    assert ours.startswith(f"chronovisor-qemu: {before}"), said


def test_it_says_what_scripts_look_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-version"]) == main(["--help"]) == main(["-machine", "?"]) == main(["-d", "help"]) == 0
    first, *_ = lines = capsys.readouterr().out.splitlines()
    assert first.startswith("QEMU emulator version 7.2.")
    assert any(line.startswith("-nographic") for line in lines)
    assert any(line.startswith("pseries ") for line in lines)
    assert any(line.startswith("guest_errors ") for line in lines)


@pytest.mark.oracle
@pytest.mark.skipif(shutil.which("qemu-system-ppc64") is None, reason="qemu-system-ppc64 is not installed")
@pytest.mark.parametrize(
    ("option", "lines"), [("accel", 3), ("device", 5), ("netdev", 3), ("chardev", 5), ("object", 2)]
)
def test_lists_are_parts_of_qemus(option: str, lines: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"-{option}", "help"]) == 0
    ours = capsys.readouterr().out.splitlines()
    assert len(ours) == lines
    theirs = subprocess.run(
        ["qemu-system-ppc64", f"-{option}", "help"], capture_output=True, text=True
    ).stdout
    # On a machine that is none of Power, QEMU has no `kvm` for it.
    assert {line.rstrip() for line in ours} <= {*map(str.rstrip, theirs.splitlines()), "kvm"}


def test_a_guest_by_qemus_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for `cont`, is on a socket's console, and ends with QEMU's status."""
    monkeypatch.setenv("CHRONOVISOR_RUN_DIR", str(tmp_path / "run"))
    qmp, serial, pid = tmp_path / "qmp", tmp_path / "serial", tmp_path / "pid"
    options = (
        "-M",
        "pseries",
        "-m",
        "2",
        "-display",
        "none",
        "-S",
        "-kernel",
        "demo-le",
        "-pidfile",
        str(pid),
    )
    devices = ("-qmp", f"unix:{qmp},{SOCKET}", "-serial", f"unix:{serial},{SOCKET}")
    process = subprocess.Popen(
        [*COMMAND, *options, *devices, "-icount", "shift=0", "-daemonize"], stdout=subprocess.PIPE
    )
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"runs in the background" in told
    with socket.socket(socket.AF_UNIX) as monitor, socket.socket(socket.AF_UNIX) as console:
        for one, path in ((monitor, qmp), (console, serial)):
            one.settimeout(60)
            one.connect(str(path))
        lines = monitor.makefile("rwb", buffering=0)
        assert "QMP" in json.loads(lines.readline())
        lines.write(b'{"execute":"qmp_capabilities"}{"execute":"query-status"}{"execute":"cont"}')
        answers = [json.loads(lines.readline()) for _ in range(2)]
        assert answers[1]["return"]["status"] == "prelaunch"
        printed = console.makefile("rb")
        assert b"watching" in printed.readline()
        assert f"process {int(pid.read_text())};" in told.decode()
        console.sendall(b"q")
        assert b"guest: readings" in printed.readline()
        # The console ends with the guest.
        assert printed.readline() == b""
        while line := lines.readline():
            if b"SHUTDOWN" in line:
                break
        assert json.loads(line)["data"] == {"guest": True, "reason": "guest-shutdown"}


def test_what_does_not_go_together() -> None:
    with pytest.raises(QemuOptionError, match="only one"):
        translate(["-m", "1G", "-m", "2G", "-kernel", "k"])


VAIN: Final = program(f"li r3,0x3fc; sc 1; li r3,0x58; li r4,7; li r5,0; sc 1; {POWER_OFF}")
"""A hypercall that there is not, and one for a terminal that there is not."""


def test_calls_in_vain_are_logged(tmp_path: Path) -> None:
    (tmp_path / "vain.elf").write_bytes(VAIN)
    words = [*COMMAND, "-display", "none", "-kernel", str(tmp_path / "vain.elf"), "-d", "unimp,guest_errors"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    first, second = done.stderr.splitlines()
    assert first == "vCPU 0: unimplemented hypercall 0x3fc"
    assert second.startswith("vCPU 0: H_PUT_TERM_CHAR(0x7, 0x0, ")
    done = subprocess.run(
        [*words, "-D", str(tmp_path / "log-%d")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    (log,) = tmp_path.glob("log-*")
    assert log.name.removeprefix("log-").isdigit()
    assert log.read_text().splitlines() == [first, second]
    done = subprocess.run([*words, "-D", str(tmp_path / "none" / "log")], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"chronovisor-qemu: {tmp_path}/none/log: No such file")
