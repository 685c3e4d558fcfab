"""Inside the machine: its first process, which takes requests from the console and answers there.

A request is a line of JSON, `{"call": "module:function", "arguments": [...]}`; an answer one that begins with
`MARK`: `{"answer": ...}`, or `{"failed": TEXT}` with the traceback. Whatever else is on the console is for
people.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import termios
import time
import traceback
import tty
from importlib import import_module
from pathlib import Path
from typing import Any, Final

MARK: Final = "@@answer "
READY: Final = "ready"
_REBOOT_POWER_OFF: Final = 0x4321_FEDC
_FINIT_MODULE: Final = 353
"""The system call's number on powerpc."""
_MODULES: Final = ("kvm", "kvm-hv", "ibmveth")
_INTERFACE: Final = b"eth0"
ADDRESS: Final = "10.0.2.15"
"""What QEMU's own network calls its guest."""
_GATEWAY: Final = "10.0.2.2"
_SIOCADDRT, _SIOCSIFADDR, _SIOCSIFFLAGS, _SIOCSIFNETMASK = 0x890B, 0x8916, 0x8914, 0x891C
_IFF_UP_RUNNING: Final = 0x41

libc = ctypes.CDLL(None, use_errno=True)


def begin() -> None:
    """Be the first process: never returns."""
    try:
        _set_up()
        _serve()
    except BaseException:
        traceback.print_exc()
    _power_off()


def _set_up() -> None:
    for kind, at in (("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp")):
        libc.mount(kind.encode(), at.encode(), kind.encode(), 0, None)
    os.environ |= {"HOME": "/root", "PATH": "/usr/bin:/bin:/usr/local/bin", "TERM": "dumb"}
    os.environ |= {"CHRONOVISOR_RUN_DIR": "/tmp/chronovisor", "PYTHONPATH": ":".join(sys.path[:3])}
    os.makedirs("/root", exist_ok=True)
    for name in _MODULES:
        load_module(name)
    # A console of bytes: nothing that comes is echoed or waited for by lines, and Ctrl-C is a character.
    tty.setraw(sys.stdin.fileno(), termios.TCSANOW)
    _say({"answer": READY, "python": sys.version.split()[0], "uptime": uptime()})


def load_module(name: str) -> int:
    """Load a kernel module; the errno, 0 where it went in."""
    descriptor = os.open(f"/lib/mod/{name}.ko", os.O_RDONLY)
    try:
        failed = libc.syscall(_FINIT_MODULE, descriptor, b"", 0)
        error = ctypes.get_errno() if failed else 0
    finally:
        os.close(descriptor)
    if error:
        print(f"module {name}: {os.strerror(error)}", flush=True)
    return error


def uptime() -> float:
    """Seconds since the kernel began."""
    return float(Path("/proc/uptime").read_text().split()[0])


def _serve() -> None:
    pending = b""
    while True:
        pending += os.read(sys.stdin.fileno(), 4096)
        *lines, pending = pending.split(b"\n")
        for line in lines:
            request: dict[str, Any] = json.loads(line)
            if request["call"] == "power_off":
                return
            try:
                module, function = request["call"].split(":")
                answer = getattr(import_module(module), function)(*request["arguments"])
                _say({"answer": answer})
            except BaseException:
                _say({"failed": traceback.format_exc()})


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.flush()
    print(f"\n{MARK}{json.dumps(answer)}", flush=True)


def _power_off() -> None:
    sys.stdout.flush()
    # What was printed last is still on its way through the console.
    termios.tcdrain(sys.stdout.fileno())
    time.sleep(0.1)
    libc.reboot(_REBOOT_POWER_OFF)


def run_command(*command: str, limit: float = 120.0) -> dict[str, Any]:
    """Run a command as on any machine, without this project on Python's path: its status and output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    begun = time.monotonic()
    ended = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        cwd="/",
        timeout=limit,
        check=False,
    )
    return {
        "status": ended.returncode,
        "out": ended.stdout,
        "err": ended.stderr,
        "seconds": time.monotonic() - begun,
    }


def network() -> str:
    """Give this machine the address that QEMU's network expects, and return it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for name in (b"lo", _INTERFACE):
            address = "127.0.0.1" if name == b"lo" else ADDRESS
            for request, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.0")):
                wanted = struct.pack("16sH2x4s8x8x", name, socket.AF_INET, socket.inet_aton(value))
                fcntl.ioctl(control, request, wanted)
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name, _IFF_UP_RUNNING))
    return ADDRESS
