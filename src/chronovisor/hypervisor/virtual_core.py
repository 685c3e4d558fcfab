"""A virtual core: the vCPUs that run on one core together, and the state that they share."""

from __future__ import annotations

from chronovisor.hypervisor.contender import Contender
from chronovisor.hypervisor.guest_model import GuestModel
from chronovisor.hypervisor.stay import Stay
from chronovisor.hypervisor.timer import Timer
from chronovisor.isa.bits import LPCR
from chronovisor.processor.counters import RunningCounter
from chronovisor.timebase.clock import TickSource
from chronovisor.timebase.offset import require_tbu40
from chronovisor.timebase.types import Offset

_AIL = int(LPCR.AIL)


class VirtualCore(Contender):
    """Up to `stride` vCPUs of a machine that share a timebase, and so an offset (KVM's vcore)."""

    def __init__(self, source: TickSource, model: GuestModel, has_tbu40: bool, stride: int) -> None:
        super().__init__(source)
        self._model = model
        self._has_tbu40 = has_tbu40
        self.stride = stride
        """The most vCPUs that it can have; a vCPU runs on the hardware thread with its number modulo this."""
        self.timers: list[Timer] = []
        """The decrementers of its vCPUs."""
        self.offset: Offset = Offset(0)
        """What the next entry adds to the core's timebase."""
        self.lpcr: int = model.lpcr
        self.vtb: RunningCounter = RunningCounter(self.run_time)
        self.dpdes: int = 0
        self.compatibility: int = 0
        self.stay: Stay | None = None
        """Its stay on a core; None without a core. Under the host's monitor."""

    @property
    def can_be_joined(self) -> bool:
        """Whether a vCPU that comes now can run with the others."""
        return self.stay is not None and not self.stay.leaving

    def set_offset(self, offset: Offset) -> None:
        """Set the offset of all its vCPUs, from the next entry on; each expiry stays in guest time.

        Inside `VirtualCpu.access`, whose end wakes everyone who waits for an expiry.

        Raises `NoTbu40Error` for an offset other than 0 on a host without TBU40, and changes nothing then.
        """
        require_tbu40(offset, self._has_tbu40)
        old, self.offset = self.offset, offset
        for timer in self.timers:
            timer.rebase(old, offset)

    def set_lpcr(self, value: int, mask: int) -> None:
        """Set the bits of LPCR in `mask` that user space may change, from the next entry on."""
        if value & _AIL != _AIL:
            value &= ~_AIL
        mask &= self._model.lpcr_writable
        self.lpcr = (self.lpcr & ~mask) | (value & mask)
