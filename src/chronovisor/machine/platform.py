"""The machine that a guest's own calls reach: its hypercalls and the services of RTAS."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from chronovisor.kvm.ids import ONE_REG_BY_NAME, Cap
from chronovisor.kvm.interface import Device, Vcpu, Vm
from chronovisor.machine.console import Console
from chronovisor.machine.ending import EndReason, GuestEnd
from chronovisor.machine.entry import MSR_LE, entry_msr
from chronovisor.machine.guest_log import GuestLog
from chronovisor.machine.interrupt_sources import CONSOLE, InterruptSources
from chronovisor.machine.nvram import Nvram
from chronovisor.machine.power_button import PowerButton
from chronovisor.machine.services import LPCR_AIL, LPCR_ILE, NO_TRANSLATION, SuspendStatus, Translation
from chronovisor.machine.suspension import Suspension, VasiState
from chronovisor.machine.vcpu_thread import VcpuTask, VcpuThread, VcpuThreads
from chronovisor.machine.vio.attachments import Attachments
from chronovisor.machine.vio.bus import VioBus
from chronovisor.machine.vio.device import Surroundings
from chronovisor.machine.wall_clock import WallClock
from chronovisor.memory import GuestMemory
from chronovisor.papr.hcalls import Hcall

_LPCR: Final = ONE_REG_BY_NAME["LPCR_64"].id


class Platform:
    """`services.Machine` for one guest, whose run `finish` ends."""

    def __init__(
        self,
        vm: Vm,
        memory: GuestMemory,
        console: Console,
        wall_clock: WallClock,
        random_numbers: random.Random,
        threads: VcpuThreads,
        finish: Callable[[GuestEnd], None],
        controller: Device | None,
        attachments: Attachments,
        virtual: bool,
    ) -> None:
        self._vm = vm
        self._threads = threads
        self._finish = finish
        self.memory = memory
        self.console = console
        self.wall_clock = wall_clock
        self.random = random_numbers
        self.translation = NO_TRANSLATION
        self.interrupts = InterruptSources(vm, controller)
        self.power_button = PowerButton(self.interrupts)
        self.nvram = Nvram()
        self.on_trouble: Callable[[str], None] = lambda line: None
        """Told in a line, on any thread, of what goes wrong with a device outside the guest."""
        around = Surroundings(
            memory,
            vm.device_wrote,
            self.interrupts.pulse,
            virtual,
            lambda line: self.on_trouble(line),
            vm.tce_table,
            vm.signal_mode,
            vm.lan_buffers,
            vm.gate,
            vm.idle_gate,
        )
        self.vio = VioBus(attachments.open(around))
        for device in self.vio.devices:
            self.interrupts.add(device.source)
        self.suspension: Suspension | None = None
        """The last request that the guest suspend itself for a move."""
        self.log: GuestLog | None = None
        """Told of calls that are answered with an error; None if nobody asked for that."""
        self.console_signals = True
        """Whether typed input interrupts the guest (H_VIO_SIGNAL)."""
        self.ignore_console = console.watch_input(self.tell_of_input)
        """Ends that."""
        self.restart: Callable[[], None] | None = None
        """Starts the guest again from its beginning while no vCPU runs; None if a reboot ends its run."""
        self.on_restart: Callable[[bool], None] = lambda by_guest: None
        """Told, on any thread, when the guest starts again: whether it asked for that itself."""
        self.why_no_restart = (
            "; it cannot start again here, because its kernel stayed where it began: name one with --kernel"
        )
        """For people: why a reboot ends the run; empty if they asked for that."""

    def translate(self, translation: Translation) -> None:
        """Have the guest translate addresses from now on; KvmError if the host cannot."""
        self._vm.configure_v3_mmu(translation.flags, translation.process_table)
        self.translation = translation

    def tell_of_input(self) -> None:
        """Interrupt the guest because input waits at its console. From any thread."""
        if self.console_signals:
            self.interrupts.pulse(CONSOLE)

    def reset(self) -> None:
        """Give the devices the state that they have when the machine is switched on. No vCPU may run."""
        self.vio.reset()
        self.interrupts.reset()
        self.console_signals = True
        self._answer_prod_below(True)

    # Suspending for a move

    def vasi_state(self, stream: int) -> VasiState | None:
        """The state of a move's stream; None if it is none of the guest's."""
        known = self.suspension
        return known.state if known is not None and known.stream == stream else None

    def join(self, caller: VcpuThread) -> bool:
        """Have the calling vCPU wait for `prod`; False if it is the last one that runs."""
        if self._threads.join(caller):
            return True
        # From here on H_PROD is for those that wait, which the kernel's half does not know of.
        self._answer_prod_below(False)
        return False

    def prod(self, target: VcpuThread) -> None:
        """Wake a vCPU that waits in `join` or in H_CEDE."""
        if not self._threads.prod(target):
            target.vcpu.kick()
        elif not any(self.joined):
            self._answer_prod_below(True)

    @property
    def joined(self) -> tuple[bool, ...]:
        """Which vCPUs wait in `join`."""
        return tuple(thread.joined for thread in self._threads.all)

    @joined.setter
    def joined(self, joined: tuple[bool, ...]) -> None:
        for thread, waits in zip(self._threads.all, joined, strict=True):
            thread.joined = waits
        if any(joined):
            self._answer_prod_below(False)

    def suspend(self, caller: VcpuThread) -> SuspendStatus:
        """Stop the guest where it is, inside its call, for the move that asked for that."""
        if any(not (t.stopped or t.joined) for t in self._threads.all if t is not caller):
            return SuspendStatus.THREADS_ACTIVE
        if self.suspension is None or not self.suspension.suspend():
            return SuspendStatus.NOT_SUSPENDABLE
        self._threads.ask_to_stop()
        return SuspendStatus.SUCCESS

    def _answer_prod_below(self, below: bool) -> None:
        self._vm.enable_cap(Cap.PPC_ENABLE_HCALL, Hcall.PROD, int(below))

    # How a run ends

    def power_off(self) -> None:
        """End the guest as it wishes."""
        self._finish(GuestEnd(EndReason.POWER_OFF, "the guest powered off"))

    def reboot(self, by_guest: bool = True) -> None:
        """Start the guest again; end its run if that cannot be done here.

        From any thread; one that is not a vCPU's holds the guest's `holding` meanwhile.
        """
        if self.restart is not None:
            self._threads.begin_anew(self.restart)
            self.on_restart(by_guest)
        else:
            self.end_at_reboot(self.why_no_restart, by_guest)

    def end_at_reboot(self, why: str, by_guest: bool = True) -> None:
        """End the guest at a reboot: `why` goes on with the sentence for people."""
        if by_guest:
            self._finish(GuestEnd(EndReason.REBOOT, f"the guest rebooted{why}"))
        else:
            self._finish(GuestEnd(EndReason.RESET, f"the guest was reset{why}"))

    def panic(self, message: str) -> None:
        """End the guest because its system said that it cannot go on."""
        self._finish(GuestEnd(EndReason.PANIC, message))

    def crash(self, message: str) -> None:
        """End the guest because it cannot go on."""
        self._finish(GuestEnd(EndReason.CRASH, message))

    # Its processors

    @property
    def vcpus(self) -> int:
        """How many there are."""
        return len(self._threads.all)

    def processor(self, number: int) -> VcpuThread | None:
        """The vCPU of that id, or None."""
        return next((t for t in self._threads.all if t.vcpu.id == number), None)

    def start_processor(self, target: VcpuThread, entry: int, argument: int, caller: VcpuThread) -> bool:
        """Start a stopped vCPU; it takes the caller's endianness and interrupt modes, as it is of the same
        system.
        """
        little = bool(caller.vcpu.get_regs().msr & MSR_LE)
        modes = caller.vcpu.get_one_reg(_LPCR) & (LPCR_ILE | LPCR_AIL)

        def prepare(vcpu: Vcpu) -> None:
            regs = vcpu.get_regs()
            regs.pc, regs.msr, regs.gpr[3] = entry, entry_msr(self.memory, entry, little), argument
            vcpu.set_regs(regs)
            vcpu.set_one_reg(_LPCR, (vcpu.get_one_reg(_LPCR) & ~(LPCR_ILE | LPCR_AIL)) | modes)

        return self._threads.start(target, prepare)

    def stop_processor(self, caller: VcpuThread) -> None:
        """Stop the calling vCPU; a guest whose last one stops has nothing left that could start any."""
        caller.stopping = True
        if all(thread.stopped or thread.stopping for thread in self._threads.all):
            self.crash("the guest stopped all of its vCPUs, so nothing can go on")

    def on_each_vcpu(self, caller: VcpuThread, task: VcpuTask) -> None:
        """Have `task` done to every vCPU before its guest code goes on."""
        self._threads.on_each(caller, task)
