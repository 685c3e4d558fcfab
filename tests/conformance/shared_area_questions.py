"""Questions about the virtual processor area and the dispatch trace log: registration, and times in them."""

from __future__ import annotations

from typing import Final

from chronovisor.kvm.interface import System
from chronovisor.papr import vpa
from chronovisor.papr.hcalls import Hcall
from chronovisor.timebase.types import GRANULE
from conformance.questions import Answers, question
from conformance.rig import END, READ_TIME, STOP, Rig, between, refusal, rig

VPA: Final = 0x1_0000
LOG: Final = 0x2_0000
LOG_LENGTH: Final = 4 * vpa.DTL_ENTRY_SIZE
SHADOW: Final = 0x3_0000
_ACROSS: Final = VPA + 0x1000 - 128
_FUNCTION_SHIFT: Final = 45
_REGISTER_VPA, _REGISTER_LOG, _REGISTER_SHADOW, _DEREGISTER_VPA, _DEREGISTER_LOG = 1, 2, 3, 5, 6
_CALL: Final = f"li r3, {int(Hcall.REGISTER_VPA):#x}; sc 1; mr r4, r3; {STOP}"


def _register(r: Rig, function: int, address: int, vcpu: int = 0) -> int:
    """H_REGISTER_VPA by the guest; the status, unsigned."""
    r.enter(_CALL, r4=function << _FUNCTION_SHIFT, r5=vcpu, r6=address)
    return r.run().args[0]


def _prepare(r: Rig) -> None:
    """Write the lengths into the areas, as a guest does before it registers them."""
    for area in (VPA, VPA + 8, _ACROSS):
        r.memory.write(area + vpa.VPA_LENGTH.offset, vpa.VPA_LENGTH.pack(vpa.VPA_SIZE))
    r.memory.write(VPA + vpa.VPA_DTL_ENABLE_MASK.offset, b"\x07")
    r.memory.write(LOG + vpa.AREA_LENGTH.offset, vpa.AREA_LENGTH.pack(LOG_LENGTH))
    r.memory.write(SHADOW + vpa.AREA_LENGTH.offset, vpa.AREA_LENGTH.pack(vpa.SLB_SHADOW_SIZE))


def _field(r: Rig, field: vpa.AreaField) -> int:
    return r.memory.load(VPA + field.offset, field.size, little=False)


@question
def registering_by_hypercall(system: System) -> Answers:
    """H_REGISTER_VPA: which areas are accepted and refused, and the values of the registers then."""
    with rig(system) as r:
        _prepare(r)
        answers: Answers = {
            "log before the area": _register(r, _REGISTER_LOG, LOG),
            "no function": _register(r, 4, VPA),
            "another vCPU": _register(r, _REGISTER_VPA, VPA, vcpu=77),
            "not aligned": _register(r, _REGISTER_VPA, VPA + 8),
            "across a page": _register(r, _REGISTER_VPA, _ACROSS),
            "outside memory": _register(r, _REGISTER_VPA, 1 << 40),
            "deregistering nothing": _register(r, _DEREGISTER_VPA, 0),
        }
        r.memory.write(VPA + 0x2000 + vpa.VPA_LENGTH.offset, vpa.VPA_LENGTH.pack(639))
        answers["too short"] = _register(r, _REGISTER_VPA, VPA + 0x2000)
        answers["the area"] = _register(r, _REGISTER_VPA, VPA)
        answers["the log"] = _register(r, _REGISTER_LOG, LOG)
        answers["the shadow"] = _register(r, _REGISTER_SHADOW, SHADOW)
        r.enter(READ_TIME)
        r.run()
        answers["VPA_ADDR"] = r.get("VPA_ADDR")
        answers["VPA_DTL"] = f"{r.get('VPA_DTL'):#x}"
        answers["VPA_SLB"] = f"{r.get('VPA_SLB'):#x}"
        answers["the area while the log is there"] = _register(r, _DEREGISTER_VPA, 0)
        answers["the log away"] = _register(r, _DEREGISTER_LOG, 0)
        return answers


@question
def registering_by_register(system: System) -> Answers:
    """User space sets VPA_ADDR, VPA_DTL and VPA_SLB: which values are accepted and refused."""
    with rig(system) as r:
        _prepare(r)
        answers: Answers = {
            "log before the area": refusal(lambda: r.set_wide("VPA_DTL", LOG, LOG_LENGTH)),
            "not aligned": refusal(lambda: r.set("VPA_ADDR", VPA + 8)),
            "the area": refusal(lambda: r.set("VPA_ADDR", VPA)),
            "the log": refusal(lambda: r.set_wide("VPA_DTL", LOG, LOG_LENGTH + 5)),
            "a log that is too short": refusal(lambda: r.set_wide("VPA_DTL", LOG, vpa.DTL_ENTRY_SIZE - 1)),
        }
        answers["the log's length"] = f"{r.get('VPA_DTL'):#x}"
        answers["the area away under a log"] = refusal(lambda: r.set("VPA_ADDR", 0))
        return answers


@question
def area_and_log_over_runs(system: System) -> Answers:
    """The yield count, and the log's entries in guest time, with an offset."""
    answers: Answers = {}
    with rig(system) as r:
        _prepare(r)
        r.set("TB_OFFSET", 77 * GRANULE)
        r.set("VPA_ADDR", VPA)
        r.set_wide("VPA_DTL", LOG, LOG_LENGTH)
        count = vpa.VPA_YIELD_COUNT.offset
        r.enter(f"again: lis r9, {VPA >> 16}; lwz r5, {count}(r9); li r3, {END:#x}; sc 1; b again")
        begun = r.guest_time()
        inside = int.from_bytes(r.run().args[1].to_bytes(4, "little"), "big")
        answers["the count is even inside"] = not inside & 1
        answers["the count is odd outside"] = bool(_field(r, vpa.VPA_YIELD_COUNT) & 1)
        answers["shared processors"] = _field(r, vpa.VPA_STATUS) & vpa.STATUS_SHARED
        for _ in range(9):
            r.run()
        index = _field(r, vpa.VPA_DTL_INDEX)
        answers["entries are written"] = index > 0
        entries = []
        for number in range(max(0, index - 4), index):
            at = LOG + number % 4 * vpa.DTL_ENTRY_SIZE
            entries.append(vpa.DispatchLogEntry.unpack(r.memory.read(at, vpa.DTL_ENTRY_SIZE)))
        now = r.guest_time()
        answers["entries are in the guest's time"] = all(between(begun, e.timebase, now) for e in entries)
        only_turns = {e.dispatch_reason for e in entries} == {vpa.DispatchReason.TIME_SLICE}
        answers["reasons"] = "its turn alone" if only_turns else "others"
        answers["enqueued to dispatched is no longer than the runs"] = all(
            e.enqueue_to_dispatch <= now - begun for e in entries
        )
    return answers
