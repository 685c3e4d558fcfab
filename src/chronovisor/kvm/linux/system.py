"""The kernel's KVM HV on a Power host, through `/dev/kvm`."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.ids import KVM_API_VERSION, ONE_REG_BY_NAME, Cap, VmType
from chronovisor.kvm.interface import HostFacts, HostOptions
from chronovisor.kvm.linux.breakpoints_trial import ends_at_breakpoint
from chronovisor.kvm.linux.clock import Timebase, timebase_reader
from chronovisor.kvm.linux.device import ask
from chronovisor.kvm.linux.layouts import Ioctl
from chronovisor.kvm.linux.vcpu import KICK_SIGNAL
from chronovisor.kvm.linux.vm import LinuxVm
from chronovisor.timebase.clock import HostClock, RealTime
from chronovisor.timebase.types import FREQUENCY

DEVICE: Final = Path("/dev/kvm")
_CPUS: Final = Path("/proc/device-tree/cpus")
_NEEDED: Final = (Cap.USER_MEMORY, Cap.ONE_REG, Cap.ENABLE_CAP, Cap.PPC_PAPR, Cap.IMMEDIATE_EXIT)
_CHECKED: Final = ("TB_OFFSET", "DEC_EXPIRY")
"""Registers without which no guest's time can be moved; DEC_EXPIRY came last, with Linux 4.16."""


class LinuxSystem:
    """`kvm.interface.System`: the machine that Python runs on.

    Of `options` a real host can fulfil what it is anyway; how many cores and threads it has is not asked,
    since KVM itself refuses a guest's topology that it cannot have. Raises KvmError, which names what is
    missing and what to do: ENOSYS, ENOENT, EACCES or EPERM if KVM cannot be used, EINVAL for options.
    """

    def __init__(self, options: HostOptions) -> None:
        reason = unfulfillable(options)
        if reason is not None:
            raise KvmError(errno.EINVAL, reason)
        read = timebase_reader()
        self._kvm = open_device(DEVICE)
        self._vms: list[LinuxVm] = []
        self._has_breakpoints: bool | None = None
        """Not known before somebody asks."""
        try:
            check_kernel(self._kvm)
            self._shared_size = ask(self._kvm, Ioctl.GET_VCPU_MMAP_SIZE)
            self.clock = HostClock(Timebase(read))
            self.host = self._facts()
            _let_kicks_interrupt()
        except BaseException:
            self.close()
            raise

    def check_extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION."""
        return ask(self._kvm, Ioctl.CHECK_EXTENSION, cap)

    def create_vm(self, vm_type: int = VmType.HV) -> LinuxVm:
        """KVM_CREATE_VM."""
        descriptor = ask(self._kvm, Ioctl.CREATE_VM, vm_type, f"making a virtual machine of kind {vm_type}")
        vm = LinuxVm(descriptor, self._shared_size, self._check_breakpoints)
        self._vms.append(vm)
        return vm

    def close(self) -> None:
        """Give up every machine, and the device."""
        for vm in self._vms:
            vm.close()
        self._vms.clear()
        if self._kvm >= 0:
            os.close(self._kvm)
            self._kvm = -1

    def _facts(self) -> HostFacts:
        frequency = _tree_number("timebase-frequency")
        if frequency != FREQUENCY:
            raise KvmError(
                errno.ENOSYS,
                f"this machine's timebase counts {frequency} Hz; all that is done here is for {FREQUENCY} Hz",
            )
        with self._trial() as (vm, version):
            return HostFacts(
                provider="linux",
                pvr=version,
                frequency=frequency,
                cores=ask(self._kvm, Ioctl.CHECK_EXTENSION, Cap.NR_VCPUS),
                threads_per_core=vm.check_extension(Cap.PPC_SMT),
                # A kernel that runs in HV mode on a processor without TBU40 does not have the register.
                has_tbu40=True,
                dec_bits=_tree_number("ibm,dec-bits", 32),
                page_size=mmap.PAGESIZE,
            )

    def _check_breakpoints(self) -> None:
        """EOPNOTSUPP if KVM_RUN does not end at a breakpoint. KVM gives the interrupt to the guest if the
        machine does not say which instruction caused it (HEIR, which QEMU emulates since 8.1).
        """
        if self._has_breakpoints is None:
            with self._trial() as (vm, _):
                self._has_breakpoints = ends_at_breakpoint(vm)
        if not self._has_breakpoints:
            raise KvmError(
                errno.EOPNOTSUPP,
                "breakpoints and steps: on this machine the kernel's KVM ends no run at them (under QEMU "
                "before 8.1 it cannot)",
            )

    @contextlib.contextmanager
    def _trial(self) -> Iterator[tuple[LinuxVm, int]]:
        """A machine with a vCPU and the version of its processor, to see what this kernel's have."""
        vm = LinuxVm(_make_machine(self._kvm), self._shared_size, lambda: None)
        try:
            vcpu = vm.create_vcpu(0)
            for name in _CHECKED:
                try:
                    vcpu.get_one_reg(ONE_REG_BY_NAME[name].id)
                except KvmError as error:
                    raise KvmError(
                        errno.ENOSYS,
                        f"this kernel's KVM has no register {name} ({error}); take Linux 4.16 or newer",
                    ) from None
            yield vm, vcpu.get_sregs().pvr
        finally:
            vm.close()


def unfulfillable(options: HostOptions) -> str | None:
    """Return which of the options no real host can have; None if it can have all."""
    if options.source.is_virtual:
        return "a real host has no virtual clock; take the real one, or the embedded provider"
    if options.tb_origin:
        return (
            "a real host's timebase began when it did; leave the origin away, or take the embedded provider"
        )
    if options.observer is not None:
        return "the kernel does not tell its steps at an entry; leave them, or take the embedded provider"
    if options.engine != "auto":
        return f"a real host has no engine {options.engine!r}; leave it away, or take the embedded provider"
    if options.cpu_model != "auto":
        return (
            f"a real host is the processor that it is, not to be chosen as {options.cpu_model!r}; "
            "leave it away, or take the embedded provider"
        )
    return None


def obstacle() -> KvmError | None:
    """Return why KVM cannot be used on this machine, None if it can. It is opened and closed again."""
    try:
        LinuxSystem(HostOptions(source=RealTime())).close()
    except KvmError as error:
        return error
    return None


def open_device(path: Path) -> int:
    """Open `/dev/kvm`; KvmError that says what to do."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise KvmError(
            errno.ENOENT, f"there is no {path}: load the kernel's module with `modprobe kvm_hv`"
        ) from None
    except PermissionError:
        raise KvmError(
            errno.EACCES, f"{path} may not be opened: join the group that owns it (kvm), or be root"
        ) from None
    except OSError as error:
        raise KvmError(error.errno or 0, f"{path} cannot be opened: {error.strerror}") from None


def check_kernel(kvm: int) -> None:
    """Look whether this KVM is one that keeps guests' time; KvmError, naming what is not there."""
    version = ask(kvm, Ioctl.GET_API_VERSION)
    if version != KVM_API_VERSION:
        raise KvmError(
            errno.ENOSYS, f"{DEVICE} speaks version {version} of KVM's interface, not {KVM_API_VERSION}"
        )
    os.close(_make_machine(kvm))
    for cap in _NEEDED:
        if not ask(kvm, Ioctl.CHECK_EXTENSION, cap):
            raise KvmError(
                errno.ENOSYS, f"this kernel's KVM lacks the capability {cap.name}; take Linux 4.16 or newer"
            )


def _make_machine(kvm: int) -> int:
    try:
        return ask(kvm, Ioctl.CREATE_VM, VmType.HV)
    except KvmError as error:
        if error.errno != errno.EINVAL:
            raise
        raise KvmError(
            errno.ENOSYS,
            "this kernel's KVM makes no HV machines (KVM PR alone, which keeps no timebase offset): "
            "load kvm_hv, on a host in hypervisor mode or a guest with nested HV",
        ) from None


def _tree_number(name: str, default: int | None = None) -> int:
    """A number that the device tree says of the first processor."""
    for path in sorted(_CPUS.glob(f"*/{name}")):
        return int.from_bytes(path.read_bytes(), "big")
    if default is None:
        raise KvmError(errno.ENOENT, f"this machine's device tree says no {name} ({_CPUS} has none)")
    return default


def _let_kicks_interrupt() -> None:
    """Have the signal of a kick interrupt a system call; what Python does with it later is nothing."""
    if signal.getsignal(KICK_SIGNAL) not in (signal.SIG_DFL, signal.SIG_IGN, None):
        return
    if threading.current_thread() is not threading.main_thread():
        raise KvmError(
            errno.EINVAL,
            "the first host on the kernel's KVM is to be opened by the main thread, which handles signals",
        )
    signal.signal(KICK_SIGNAL, _nothing)


def _nothing(number: int, frame: object) -> None:
    """Be a handler, so that the signal is not ignored."""
