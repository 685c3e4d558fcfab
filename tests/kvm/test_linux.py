"""The linux provider, as far as a machine without KVM can show it: layouts, and what it says is missing."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.ids import Cap
from chronovisor.kvm.interface import HostOptions
from chronovisor.kvm.linux import system as linux
from chronovisor.kvm.linux.clock import Timebase, timebase_reader
from chronovisor.kvm.linux.layouts import (
    DirtyLogRequest,
    EnableCap,
    GuestDebug,
    GuestDebugControl,
    InterruptLevel,
    Ioctl,
    KvmRun,
    MemoryRegion,
    OneRegister,
    Registers,
    SpecialRegisters,
)
from chronovisor.kvm.provider import open_system, settled
from chronovisor.timebase.clock import RealTime, VirtualTime

COMPILER = "powerpc64le-linux-gnu-gcc"
STRUCTURES: dict[str, tuple[type[ctypes.Structure], dict[str, str]]] = {
    "struct kvm_one_reg": (OneRegister, {}),
    "struct kvm_regs": (Registers, {"sprg": "sprg0"}),
    "struct kvm_sregs": (
        SpecialRegisters,
        {"sdr1": "u.s.sdr1", "slb": "u.s.ppc64.slb", "other_processors": "u.s.ppc32.sr"},
    ),
    "struct kvm_userspace_memory_region": (MemoryRegion, {}),
    "struct kvm_dirty_log": (DirtyLogRequest, {"padding": "padding1"}),
    "struct kvm_enable_cap": (EnableCap, {"padding": "pad"}),
    "struct kvm_guest_debug": (GuestDebug, {}),
    "struct kvm_run": (KvmRun, {"exit": "hw"}),
}
"""Ours for each of theirs, and the fields that have another name there."""
EXITS = {
    "papr_hcall": ("nr", "ret", "args"),
    "debug": ("arch",),
    "mmio": ("phys_addr", "data", "len", "is_write"),
    "fail_entry": ("hardware_entry_failure_reason",),
    "internal": ("suberror", "ndata", "data"),
    "system_event": ("type", "ndata", "data"),
}


def theirs(expressions: list[str], scratch: Path) -> list[int]:
    """What the compiler for Power makes of these constants, with the kernel's headers."""
    source = scratch / "constants.c"
    source.write_text(
        "#include <linux/kvm.h>\n#include <stddef.h>\n"
        f"const unsigned long long constants[] = {{ {', '.join(expressions)} }};\n"
    )
    subprocess.run([COMPILER, "-c", source, "-o", scratch / "constants.o"], check=True)
    with (scratch / "constants.o").open("rb") as file:
        data = ELFFile(file).get_section_by_name(".rodata").data()
    return list(struct.unpack(f"<{len(expressions)}Q", data))


@pytest.mark.oracle
@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="needs Debian's Power cross compiler")
def test_layouts_and_numbers_are_those_of_the_kernels_headers(tmp_path: Path) -> None:
    ours: dict[str, int] = {}
    for name, (structure, others) in STRUCTURES.items():
        if structure is not KvmRun:
            ours[f"sizeof({name})"] = ctypes.sizeof(structure)
        for field in structure._fields_:
            known = others.get(field[0], field[0])
            ours[f"offsetof({name}, {known})"] = getattr(structure, field[0]).offset
    for reason, fields in EXITS.items():
        for field in fields:
            inside = getattr(_kind(reason), field).offset
            ours[f"offsetof(struct kvm_run, {reason}.{field})"] = KvmRun.exit.offset + inside
    ours |= {f"KVM_{ioctl.name}": ioctl for ioctl in Ioctl}
    ours |= {f"KVM_GUESTDBG_{flag.name}": flag for flag in GuestDebugControl}
    ours |= {f"(unsigned)KVM_INTERRUPT_{level.name}": level for level in InterruptLevel}
    expected = theirs(list(ours), tmp_path)
    assert dict(zip(ours, expected, strict=True)) == ours


def _kind(reason: str) -> type[ctypes.Structure]:
    kinds = dict(KvmRun._fields_)["exit"]._fields_  # type: ignore[attr-defined]
    return dict(kinds)[reason]


# What is missing


def said(call: Callable[[], object], code: int) -> str:
    """The one line that the call is refused with."""
    with pytest.raises(KvmError) as raised:
        call()
    assert raised.value.errno == code
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.skipif(os.uname().machine in ("ppc64le", "ppc64"), reason="this is a Power machine")
def test_another_machine_is_named() -> None:
    message = said(lambda: open_system(HostOptions(RealTime()), "linux"), errno.ENOSYS)
    assert os.uname().machine in message
    assert "Power" in message
    assert linux.obstacle() is not None
    assert settled(HostOptions(RealTime()), "auto") == "embedded"


def test_no_device(tmp_path: Path) -> None:
    assert "modprobe kvm_hv" in said(lambda: linux.open_device(tmp_path / "kvm"), errno.ENOENT)


def test_no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert "group" in said(lambda: linux.open_device(Path("/dev/kvm")), errno.EACCES)


class Kernel:
    """Answers ioctls of `/dev/kvm` as a kernel that lacks something would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lacks: Cap | None = None, hv: bool = True) -> None:
        self.lacks, self.hv, self.version = lacks, hv, 12
        monkeypatch.setattr("fcntl.ioctl", self.ioctl)

    def ioctl(self, descriptor: int, request: int, argument: int = 0) -> int:
        match request:
            case Ioctl.GET_API_VERSION:
                return self.version
            case Ioctl.CREATE_VM:
                if not self.hv and argument == 1:
                    raise OSError(errno.EINVAL, "Invalid argument")
                return os.open(os.devnull, os.O_RDONLY)
            case Ioctl.CHECK_EXTENSION:
                return int(argument != self.lacks)
        raise AssertionError(hex(request))


def test_kvm_pr_instead_of_hv(monkeypatch: pytest.MonkeyPatch) -> None:
    Kernel(monkeypatch, hv=False)
    message = said(lambda: linux.check_kernel(0), errno.ENOSYS)
    assert "KVM PR" in message
    assert "kvm_hv" in message


@pytest.mark.parametrize("cap", [Cap.ONE_REG, Cap.PPC_PAPR, Cap.IMMEDIATE_EXIT])
def test_a_kernel_without_a_capability(monkeypatch: pytest.MonkeyPatch, cap: Cap) -> None:
    Kernel(monkeypatch, lacks=cap)
    assert cap.name in said(lambda: linux.check_kernel(0), errno.ENOSYS)


def test_another_version_of_the_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    Kernel(monkeypatch).version = 13
    assert "13" in said(lambda: linux.check_kernel(0), errno.ENOSYS)


def test_what_no_real_host_can_be() -> None:
    fine = HostOptions(RealTime())
    assert linux.unfulfillable(fine) is None
    for changed in (
        replace(fine, source=VirtualTime()),
        replace(fine, tb_origin=1),
        replace(fine, observer=lambda event: None),
        replace(fine, engine="regions"),
        replace(fine, cpu_model="power8"),
    ):
        reason = linux.unfulfillable(changed)
        assert reason is not None
        assert "embedded" in reason
        assert said(lambda changed=changed: open_system(changed, "linux"), errno.EINVAL).startswith(reason)  # type: ignore[misc]


# The clock


@pytest.mark.skipif(os.uname().machine == "ppc64le", reason="this machine has a timebase")
def test_no_timebase_to_read() -> None:
    assert os.uname().machine in said(timebase_reader, errno.ENOSYS)


def test_a_timebase_that_wraps_goes_on() -> None:
    readings = iter([2**64 - 10, 2**64 - 4, 3, 3, 8])
    clock = Timebase(lambda: next(readings))
    assert [clock.ticks() for _ in range(4)] == [2**64 - 4, 2**64 + 3, 2**64 + 3, 2**64 + 8]
