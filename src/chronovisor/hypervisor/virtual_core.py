"""A virtual core: the vCPUs that run on one core together, and what they have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chronovisor.hypervisor.live_registers import RunningCounter, RunTime
from chronovisor.isa.bits import LPCR
from chronovisor.timebase.offset import require_tbu40
from chronovisor.timebase.types import Offset, Ticks

if TYPE_CHECKING:
    from chronovisor.hypervisor.host import Core, Host
    from chronovisor.hypervisor.virtual_cpu import VirtualCpu


TIME_SLICE = Ticks.from_ns(10_000_000)
"""How long a virtual core may keep a core that another waits for."""

_AIL = int(LPCR.AIL)


class VirtualCore:
    """Up to `stride` vCPUs of a machine that share a timebase, and so an offset (KVM's vcore)."""

    def __init__(self, host: Host, stride: int) -> None:
        self.host: Host = host
        self.stride = stride
        """vCPUs that it can have; a vCPU's number modulo it is the hardware thread that it runs on."""
        self.vcpus: list[VirtualCpu] = []
        self.offset: Offset = Offset(0)
        """What the next entry adds to the core's timebase. A running virtual core carries `Core.applied`."""
        self.entered_with: Offset = Offset(0)
        """What the last entry added, or was to add."""
        self.lpcr: int = host.cpu_model.lpcr
        self.run_time: RunTime = RunTime(host.source)
        self.vtb: RunningCounter = RunningCounter(self.run_time)
        self.dpdes: int = 0
        self.compatibility: int = 0

        # Where it is on its way in and out; under the host's monitor.
        self.core: Core | None = None
        self.primary: VirtualCpu | None = None
        self.inside: list[VirtualCpu] = []
        """The vCPUs that came in since it has this core."""
        self.out = 0
        self.kept = 0
        self.leaving = False
        self.host_time_restored = False
        self.failure: str | None = None
        """Why this entry came to nothing."""
        self.wanting = 0
        """Its vCPUs that wait to be let in."""
        self.queued_at = 0
        """The tick at which it last began to wait for a core."""
        self.time_slice_over = False
        """Whether it leaves its core because another virtual core is to have it."""
        self._forgone = 0
        """Ticks of a core that it did not want when it could have had them."""

    def leave_soon(self) -> None:
        """Have every thread that is in the guest come out. Under the host's monitor."""
        self.leaving = True
        for vcpu in self.inside:
            vcpu.state.exit_request = 1

    @property
    def can_be_joined(self) -> bool:
        """Whether a vCPU that comes now can run with the others."""
        return self.core is not None and not self.leaving

    @property
    def all_ceded(self) -> bool:
        """Whether every vCPU inside has ceded, so that its core is idle."""
        return all(vcpu.ceded for vcpu in self.inside)

    @property
    def time_is_up(self) -> bool:
        """Whether another virtual core waits for this one's core and its time slice is over."""
        core = self.core
        return bool(self.host.queue) and core is not None and core.hypervisor_decrementer.expired

    @property
    def served(self) -> int:
        """The ticks of a core that it has had, or counts as having had, against others that want one."""
        return self.run_time.ticks() + self._forgone

    def count_as_served(self, least: int) -> None:
        """Have it count as served `least` ticks at least: who did not want a core for long gains nothing by
        that.
        """
        self._forgone += max(0, least - self.served)

    def time_slice(self) -> int:
        """Return the ticks for which it may keep its core from now on: fewer where the one that waits first
        has had less of a core.
        """
        queue = self.host.queue
        if not queue:
            return TIME_SLICE.value
        lead = max(0, self.served - queue[0].served)
        return max(0, TIME_SLICE.value - lead)

    def take(self, core: Core, primary: VirtualCpu) -> None:
        """Begin an entry on `core`, with the vCPU whose thread is to switch its timebase."""
        self.core, self.primary = core, primary
        core.runs = self
        self.inside = []
        self.out = self.kept = 0
        self.leaving = self.host_time_restored = self.time_slice_over = False
        self.failure = None

    def begin(self, now: int) -> None:
        """Have its run time and its time slice count from the tick `now` on: its core's timebase is the
        guest's.
        """
        assert self.core is not None
        self.run_time.start(now)
        self.core.hypervisor_decrementer.write_deadline(now + self.time_slice(), now)

    def give_back(self, core: Core) -> None:
        """End an exit: the core is free, and the virtual core may enter again."""
        core.runs = None
        self.core = self.primary = None

    def set_offset(self, offset: Offset) -> None:
        """Set the offset of all its vCPUs, from the next entry on; what each has as expiry in guest time
        stays. Inside `VirtualCpu.access`, behind which whoever waits for an expiry looks again.

        Raises `NoTbu40Error` for an offset other than 0 on a host without TBU40, and changes nothing then.
        """
        require_tbu40(offset, self.host.cpu_model.has_tbu40)
        old, self.offset = self.offset, offset
        for vcpu in self.vcpus:
            vcpu.rebase_decrementer(old, offset)

    def set_lpcr(self, value: int, mask: int) -> None:
        """Set the bits of LPCR in `mask` that user space may change, from the next entry on."""
        if value & _AIL != _AIL:
            value &= ~_AIL
        mask &= self.host.cpu_model.lpcr_writable
        self.lpcr = (self.lpcr & ~mask) | (value & mask)
