"""A vCPU of the kernel's."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import signal
import struct
import threading
from typing import Final, Literal, Protocol

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.exits import (
    Exit,
    HcallExit,
    Interrupted,
    MmioExit,
)
from chronovisor.kvm.ids import ONE_REG_BY_NAME, ExitReason
from chronovisor.kvm.linux import one_register
from chronovisor.kvm.linux.breakpoints import DEBUG_INSTRUCTION, Breakpoints
from chronovisor.kvm.linux.debugged_run import DebuggedRun
from chronovisor.kvm.linux.device import ask, enable_cap, refusal
from chronovisor.kvm.linux.exits import answerless_exit
from chronovisor.kvm.linux.layouts import (
    ARRAYS,
    SCALARS,
    SLB_ENTRIES,
    GuestDebug,
    GuestDebugControl,
    Interrupt,
    InterruptLevel,
    Ioctl,
    KvmRun,
    OneRegister,
    Registers,
    SpecialRegisters,
)
from chronovisor.kvm.linux.successors import Place
from chronovisor.kvm.linux.translation import MSR_DR, MSR_IR
from chronovisor.kvm.structures import Regs, Sregs
from chronovisor.timebase.run_trace import RunTrace
from chronovisor.timebase.types import MASK64

KICK_SIGNAL: Final = signal.SIGURG
"""The signal that makes a thread leave KVM_RUN. Its default action is to do nothing, so it may hit any code.
"""

_RUN: Final = int(Ioctl.RUN)
_GET_ONE_REG: Final = int(Ioctl.GET_ONE_REG)
_SET_ONE_REG: Final = int(Ioctl.SET_ONE_REG)
"""Plain numbers of what is asked most often."""
_PAPR_HCALL: Final = int(ExitReason.PAPR_HCALL)
_HYPERCALL: Final = struct.Struct("11Q")
"""`papr_hcall`: number, answer, arguments."""
_FIRST_RESULT: Final = 4
"""The register of a hypercall's first result, and its first argument."""
_LITTLE_ENDIAN: Final = 1
"""MSR[LE]."""
_DEBUG_INST: Final = ONE_REG_BY_NAME["DEBUG_INST"].id
_PID: Final = ONE_REG_BY_NAME["PID"].id


class Surroundings(Protocol):
    """What a vCPU needs of its machine to be debugged."""

    breakpoints: Breakpoints

    def check_breakpoints(self) -> None:
        """KvmError if this machine's KVM has no breakpoints."""

    def read(self, address: int, size: int) -> bytes | None:
        """The bytes at a guest real address; None if any of them is not there."""

    def real(self, address: int, msr: int, relocate: int, process: int) -> int | None:
        """The guest real address behind an effective one: see `ProcessTables.real`."""


class LinuxVcpu:
    """`kvm.interface.Vcpu` over a vCPU's file and the page that it shares with the kernel.

    It has a lock of its own, taken before the ioctl. Otherwise a thread could block on the kernel's lock
    while it holds the GIL, for which the thread in KVM_RUN waits.
    """

    def __init__(self, descriptor: int, number: int, shared_size: int, machine: Surroundings) -> None:
        self._descriptor = descriptor
        self._number = number
        self._shared = mmap.mmap(descriptor, shared_size, mmap.MAP_SHARED)
        self._run: KvmRun | None = KvmRun.from_buffer(self._shared)
        self._outside = threading.RLock()
        """Held by the thread that is in KVM_RUN or accesses the registers."""
        self._kicking = threading.Lock()
        self._inside: int | None = None
        """The thread that is in KVM_RUN or about to be; a signal is sent under `_kicking` alone."""
        self._unfinished: HcallExit | MmioExit | None = None
        self._value = ctypes.create_string_buffer(one_register.LARGEST)
        self._request = OneRegister(0, ctypes.addressof(self._value))
        self._words: dict[int, ctypes.c_uint32 | ctypes.c_uint64] = {
            4: ctypes.c_uint32.from_buffer(self._value),
            8: ctypes.c_uint64.from_buffer(self._value),
        }
        """The same memory as a register of so many bytes."""
        self._machine = machine
        self._debugged = DebuggedRun(self, machine.breakpoints)
        self._debug_control = GuestDebugControl(0)
        """What the kernel was last told by KVM_SET_GUEST_DEBUG."""

    @property
    def id(self) -> int:
        """The id it was made with."""
        return self._number

    # Running

    def run(self) -> Exit:
        """KVM_RUN; more than one of them for a vCPU that a debugger looks at."""
        with self._outside:
            if self._debugged.needed or self._debug_control:
                self._tell_debugged()
            return self._debugged.run() if self._debug_control else self.enter()

    def enter(self) -> Exit:
        """KVM_RUN, once."""
        with self._outside:
            shared = self._page()
            self._answer(shared)
            while True:
                self._inside = threading.get_ident()
                try:
                    fcntl.ioctl(self._descriptor, _RUN)
                except OSError as error:
                    if error.errno != errno.EINTR:
                        raise refusal(error, f"vCPU {self._number}: KVM_RUN") from None
                    if not shared.immediate_exit:
                        # A signal that was not a kick's, or one whose kick the last EINTR has spent.
                        continue
                    shared.immediate_exit = 0
                    return Interrupted()
                finally:
                    with self._kicking:
                        self._inside = None
                return self._exit(shared)

    def kick(self) -> None:
        """Make `run()` return: the flag first, for a thread that is not in KVM_RUN yet; then the signal, for
        one that is.
        """
        with self._kicking:
            if self._run is None:
                return
            self._run.immediate_exit = 1
            if self._inside is not None:
                signal.pthread_kill(self._inside, KICK_SIGNAL)

    def bind(self) -> None:
        """Nothing: real time needs no turns."""

    def unbind(self) -> None:
        """Nothing, either."""

    # Registers

    def get_one_reg(self, register_id: int) -> int:
        """KVM_GET_ONE_REG."""
        register = one_register.find(register_id)
        with self._outside:
            self._request.id = register_id
            try:
                fcntl.ioctl(self._open(), _GET_ONE_REG, self._request)
            except OSError as error:
                raise refusal(error, f"reading {register.name}") from None
            if register.size in self._words:
                return self._words[register.size].value
            return one_register.from_memory(register, self._value.raw[: register.size])

    def set_one_reg(self, register_id: int, value: int) -> None:
        """KVM_SET_ONE_REG."""
        register = one_register.find(register_id)
        if not 0 <= value < 1 << (8 * register.size):
            raise KvmError(
                errno.EINVAL, f"{value:#x} does not fit {register.name}, which has {register.size} bytes"
            )
        with self._outside:
            if register.size in self._words:
                self._words[register.size].value = value
            else:
                ctypes.memmove(self._value, one_register.to_memory(register, value), register.size)
            self._request.id = register_id
            try:
                fcntl.ioctl(self._open(), _SET_ONE_REG, self._request)
            except OSError as error:
                raise refusal(error, f"setting {register.name} to {value:#x}") from None

    def get_regs(self) -> Regs:
        """KVM_GET_REGS."""
        kept = Registers()
        with self._outside:
            ask(self._open(), Ioctl.GET_REGS, kept)
        scalars = {name: getattr(kept, name) for name in SCALARS}
        return Regs(**scalars, sprg=list(kept.sprg), gpr=list(kept.gpr))

    def set_regs(self, regs: Regs) -> None:
        """KVM_SET_REGS; EINVAL, and nothing set, if a value is no unsigned 64-bit number."""
        wanted = Registers()
        for name in (*SCALARS, *ARRAYS):
            given = getattr(regs, name)
            values = given if name in ARRAYS else [given]
            if len(values) != ARRAYS.get(name, 1):
                raise KvmError(errno.EINVAL, f"{len(values)} values for {name}: there are {ARRAYS[name]}")
            for value in values:
                if not 0 <= value <= MASK64:
                    raise KvmError(errno.EINVAL, f"{value:#x} does not fit {name}, a register of 64 bits")
            setattr(wanted, name, tuple(given) if name in ARRAYS else given)
        with self._outside:
            ask(self._open(), Ioctl.SET_REGS, wanted)
            if isinstance(self._unfinished, HcallExit):
                # The kernel will put all of these into the registers: what is no result is as it is now.
                results = self._page().papr_hcall.args
                results[:] = regs.gpr[_FIRST_RESULT : _FIRST_RESULT + len(results)]

    def get_sregs(self) -> Sregs:
        """KVM_GET_SREGS."""
        with self._outside:
            kept = self._special()
        entries = [(entry.slbe, entry.slbv) for entry in kept.slb]
        while entries and entries[-1] == (0, 0):
            entries.pop()
        return Sregs(kept.pvr, kept.sdr1, entries)

    def set_sregs(self, sregs: Sregs) -> None:
        """KVM_SET_SREGS: the processor's version is what it is."""
        if len(sregs.slb) > SLB_ENTRIES:
            raise KvmError(errno.EINVAL, f"{len(sregs.slb)} SLB entries: there are {SLB_ENTRIES}")
        with self._outside:
            wanted = self._special()
            host = wanted.pvr
            wanted.pvr, wanted.sdr1 = sregs.pvr, sregs.sdr1
            for entry, (slbe, slbv) in zip(
                wanted.slb, sregs.slb + [(0, 0)] * (SLB_ENTRIES - len(sregs.slb)), strict=True
            ):
                entry.slbe, entry.slbv = slbe, slbv
            ask(
                self._open(),
                Ioctl.SET_SREGS,
                wanted,
                f"a guest of processor version {sregs.pvr:#x} on a processor {host:#x}",
            )

    def _special(self) -> SpecialRegisters:
        kept = SpecialRegisters()
        ask(self._open(), Ioctl.GET_SREGS, kept)
        return kept

    def enable_cap(self, cap: int, *args: int, flags: int = 0) -> None:
        """KVM_ENABLE_CAP."""
        with self._outside:
            enable_cap(self._open(), cap, args, flags)

    # Debugging

    def single_step(self, on: bool) -> None:
        """Have a run end behind one instruction, by a breakpoint there: KVM HV has no single steps.

        Interrupts from outside can come before it. An instruction that faults counts as done once the guest
        has handled the fault and has executed it. EOPNOTSUPP if KVM_RUN does not end at breakpoints.
        """
        if on:
            self._machine.check_breakpoints()
        self._debugged.steps = on

    def translate(self, address: int) -> int | None:
        """Walk the guest's tables here, because the kernel has no KVM_TRANSLATE on Power. EOPNOTSUPP for
        hashed page tables.
        """
        return self._machine.real(address, self.get_regs().msr, MSR_DR, self.get_one_reg(_PID))

    def instruction_at(self, place: Place) -> tuple[int | None, int]:
        """Return the guest real address of a place, None if it leads nowhere, and the word there."""
        real = self._machine.real(place.address, place.msr, MSR_IR, self.get_one_reg(_PID))
        word = None if real is None else self._machine.read(real, 4)
        if word is None:
            return None, 0
        return real, int.from_bytes(word, "little" if place.msr & _LITTLE_ENDIAN else "big")

    def finish_answer(self) -> None:
        """Have the answer to the last exit put into the registers, and execute nothing."""
        self.kick()
        self.enter()

    def _tell_debugged(self) -> None:
        """KVM_SET_GUEST_DEBUG, if what is wanted has changed."""
        wanted = GuestDebugControl(0)
        if self._debugged.needed:
            wanted = GuestDebugControl.ENABLE | GuestDebugControl.USE_SW_BP
        if wanted == self._debug_control:
            return
        if self.get_one_reg(_DEBUG_INST) != DEBUG_INSTRUCTION:
            raise KvmError(errno.EOPNOTSUPP, "this kernel's KVM has breakpoints of another kind")
        ask(self._open(), Ioctl.SET_GUEST_DEBUG, GuestDebug(wanted), "having breakpoints end KVM_RUN")
        self._debug_control = wanted

    def trace(self, trace: RunTrace | None) -> None:
        """Tell nothing: the kernel traces its half itself."""

    def interrupt(self, level: bool) -> None:
        """KVM_INTERRUPT."""
        line = InterruptLevel.SET_LEVEL if level else InterruptLevel.UNSET
        ask(self._open(), Ioctl.INTERRUPT, Interrupt(line))

    def take_if_outside(self) -> bool:
        """Keep the vCPU outside `run()` if it is there, without waiting; `release` lets it go."""
        return self._outside.acquire(blocking=False)

    def release(self) -> None:
        """Let a vCPU go that `take_if_outside` took."""
        self._outside.release()

    def close(self) -> None:
        """Give the vCPU back; harmless when repeated."""
        with self._outside, self._kicking:
            if self._run is None:
                return
            self._run = None
            # Python unmaps only what nothing of ctypes points into any more; what an error's traceback still
            # holds is unmapped with that.
            with contextlib.suppress(BufferError):
                self._shared.close()
            os.close(self._descriptor)

    # The page shared with the kernel

    def _page(self) -> KvmRun:
        if self._run is None:
            raise KvmError(errno.EBADF, f"vCPU {self._number} was given back")
        return self._run

    def _open(self) -> int:
        self._page()
        return self._descriptor

    def _answer(self, shared: KvmRun) -> None:
        """Write user space's answer to the last exit to the place at which KVM_RUN looks for it first."""
        unfinished, self._unfinished = self._unfinished, None
        if isinstance(unfinished, HcallExit):
            call = shared.papr_hcall
            if len(unfinished.results) > len(call.args):
                raise KvmError(
                    errno.EINVAL,
                    f"a hypercall has at most {len(call.args)} results, r4 to r{3 + len(call.args)}",
                )
            call.ret = unfinished.ret & MASK64
            # The others hold what is in the registers, and go back there.
            for number, result in enumerate(unfinished.results):
                call.args[number] = result & MASK64
        elif unfinished is not None and not unfinished.is_write:
            data = unfinished.data.to_bytes(unfinished.size, self._byte_order())
            shared.mmio.data[: unfinished.size] = list(data)

    def _byte_order(self) -> Literal["little", "big"]:
        return "little" if self.get_regs().msr & _LITTLE_ENDIAN else "big"

    def _exit(self, shared: KvmRun) -> Exit:
        if shared.exit_reason == _PAPR_HCALL:
            number, _, *arguments = _HYPERCALL.unpack_from(self._shared, KvmRun.exit.offset)
            self._unfinished = HcallExit(number, tuple(arguments))
            return self._unfinished
        if shared.exit_reason == ExitReason.MMIO:
            access = shared.mmio
            data = bytes(access.data[: access.len]) if access.is_write else b""
            value = int.from_bytes(data, self._byte_order())
            self._unfinished = MmioExit(access.phys_addr, access.len, bool(access.is_write), value)
            return self._unfinished
        return answerless_exit(shared, self._number)
