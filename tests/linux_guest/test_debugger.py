"""A Linux guest with two vCPUs under gdb, with the kernel's symbols, and a program in one with its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from chronovisor.cli.debugging import ANY_PORT, debugger_socket
from chronovisor.cli.protection import Protection
from chronovisor.machine import EndReason, Host
from chronovisor.machine.debugger.core_dump import write_core
from chronovisor.machine.debugger.gdb_server import GdbServer
from chronovisor.machine.guest import Guest
from chronovisor.timebase.types import Ticks
from linux_guest.guests import OWN, THREE_LINES, busybox

pytestmark = pytest.mark.oracle
GDB = "gdb-multiarch"
COMPILER = "powerpc64le-linux-gnu-gcc"
PROGRAM = """
long total;

__attribute__((noinline)) static long added(long number)
{
    total += number;
    return total;
}

void _start(void)
{
    long number;

    added(0);
    register long call asm("r0") = 158; /* sched_yield */
    asm volatile("sc" : "+r"(call) : : "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "cr0",
                 "memory");
    for (number = 1;; number++)
        added(number);
}
"""
"""A first process. It uses all of its pages, tells the kernel that it is there, and adds numbers for ever."""


class PlainTime:
    """Stops a guest and lets it go on; its clock goes on."""

    def __init__(self, guest: Guest) -> None:
        self.stop, self.go_on, self.step_on = guest.pause, guest.resume, guest.resume


def gdb(kernel: Path, server: GdbServer, *commands: str) -> str:
    words = [
        GDB,
        "-nx",
        "-batch",
        # Of itself it gives an answer up after two seconds.
        *("-l", "60"),
        "-ex",
        "set width 0",
        str(kernel),
        "-ex",
        f"target remote {server.address}",
    ]
    for command in commands:
        words += ["-ex", command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    return done.stdout + done.stderr


@pytest.mark.skipif(shutil.which(GDB) is None, reason=f"needs Debian's {GDB}")
def test_the_kernel_with_its_symbols_and_two_vcpus(tmp_path: Path) -> None:
    kernel = OWN.vmlinux()
    with Host(cores=2) as host:
        guest = host.boot(kernel, "512M", smp=2, append="console=hvc0 quiet")
        server = GdbServer(
            guest,
            debugger_socket(ANY_PORT, "--gdb", Protection()).open(),
            PlainTime(guest),
            lambda: guest.timebase().value,
        )
        said = gdb(
            kernel,
            server,
            # Set in real mode, hit in translated mode.
            *("break start_kernel", "continue", "bt 2", "p/x $msr & 0x30", "stepi", "info symbol $pc"),
            *("break start_secondary", "continue", "info threads", "bt 2", "delete"),
            *("break decrementer_set_next_event", "continue", "info symbol $pc", "x/s (char *)&linux_banner"),
            # The other vCPU may come to the breakpoint during a step.
            *("delete", "stepi", "stepi", "info symbol $pc", "monitor time", "kill"),
        )
        end = guest.run(100, paused=True)
        server.close()
        # The same moment in a file.
        with open(tmp_path / "core", "wb") as file:
            write_core(guest, file)
    # Either vCPU may have come to the breakpoint.
    stacks = "thread apply all bt 2"
    looks = ("info threads", stacks, "x/s (char *)&linux_banner", "thread 2", "info symbol $pc")
    commands = [word for look in looks for word in ("-ex", look)]
    dumped = subprocess.run(
        [GDB, "-nx", "-batch", kernel, tmp_path / "core", *commands],
        capture_output=True,
        text=True,
        timeout=100,
    ).stdout
    for expected in (
        *("decrementer_set_next_event ()", "clockevents_program_event", '"Linux version '),
        *("[Switching to thread 2", " in section .text"),
    ):
        assert expected in dumped, (expected, dumped)
    assert end.reason is EndReason.STOPPED, (end, said)
    for expected in (
        *("hit Breakpoint 1, 0x", "in start_kernel ()", "in start_here_common ()", "$1 = 0x30\n"),
        *("[Switching to Thread 2]", "Thread 2 hit Breakpoint 2, ", "in start_secondary_prolog ()"),
        *("Thread 1 (vCPU 0) 0x", "decrementer_set_next_event + 12 in section .text", '"Linux version '),
        *("vCPU 1: offset 0x0, DEC ", "decrementer_set_next_event + 20 in section .text", "killed"),
    ):
        assert expected in said, (expected, said)


@pytest.mark.skipif(shutil.which(GDB) is None, reason=f"needs Debian's {GDB}")
@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="needs Debian's Power cross compiler")
def test_a_program_with_its_symbols(tmp_path: Path) -> None:
    """gdb knows the kernel and the program. A breakpoint in the program can be set once its page is there."""
    kernel = OWN.vmlinux()
    (tmp_path / "adding.c").write_text(PROGRAM)
    program = tmp_path / "adding"
    subprocess.run(
        [COMPILER, "-g", "-O1", "-static", "-nostdlib", "-o", program, tmp_path / "adding.c"], check=True
    )
    initrd = busybox("#!/bin/sh\nexec /bin/adding\n", {"adding": program.read_bytes()})
    with Host(cores=1) as host:
        guest = host.boot(kernel, "512M", append="console=hvc0 cryptomgr.notests quiet", initrd=initrd)
        server = GdbServer(
            guest,
            debugger_socket(ANY_PORT, "--gdb", Protection()).open(),
            PlainTime(guest),
            lambda: guest.timebase().value,
        )
        said = gdb(
            kernel,
            server,
            *(f"add-symbol-file {program}", "break sys_sched_yield", "continue", "bt", "delete"),
            *("break added", "continue", "print number", "bt", "print/x $msr & 0x4000"),
            *("delete", "watch total", "continue", "continue", "print total", "info source", "delete"),
            *("finish", "info symbol $pc", "kill"),
        )
        end = guest.run(100, paused=True)
        server.close()
    assert end.reason is EndReason.STOPPED, (end, said)
    for expected in (
        *("in sys_sched_yield ()", "system_call_common"),
        *("Breakpoint 2, added (number=", "$1 = 1\n", "in _start () at ", "$2 = 0x4000\n"),
        *("Old value = 0\nNew value = 1\n", "Old value = 1\nNew value = 3\n", "$3 = 3\n"),
        *("adding.c", "_start + ", "killed"),
    ):
        assert expected in said, (expected, said)


@pytest.mark.skipif(shutil.which(GDB) is None, reason=f"needs Debian's {GDB}")
@pytest.mark.soak
def test_interrupted_again_and_again() -> None:
    """Ctrl-C at any moment, registers and memory of both vCPUs looked at, steps of one of them."""
    kernel = OWN.vmlinux()
    with Host(cores=2) as host:
        guest = host.boot(
            kernel, "512M", smp=2, append="console=hvc0 quiet", initrd=busybox(THREE_LINES), reboots=False
        )
        server = GdbServer(
            guest,
            debugger_socket(ANY_PORT, "--gdb", Protection()).open(),
            PlainTime(guest),
            lambda: guest.timebase().value,
        )
        for turn in range(20):
            guest.run_for(Ticks.from_ns(50_000_000))
            if guest.end is not None:
                break
            said = gdb(
                kernel, server, "info threads", "x/2i $pc", "stepi", "thread 2", "info registers", "detach"
            )
            assert "lpcr_64" in said, (turn, said)
            guest.pause()
        end = guest.run(200) if guest.end is None else guest.end
        server.close()
    assert end.ok
    assert "init: running" in guest.console_text
