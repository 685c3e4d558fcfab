"""The first act: the register that holds a guest's timebase offset."""

from __future__ import annotations

from chronovisor.cli.demo.findings import Act
from chronovisor.cli.demo.watched import ENGINE, IMAGE, Moment, Recorder, ask_for_timebase
from chronovisor.kvm.errors import KvmError
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.trace import HostTimeRestored, OffsetApplied
from chronovisor.timebase.types import GRANULE, GuestTime, Offset, Ticks

SET = 0x1234567
CROSSINGS = 1000


def play(origin: int) -> Act:
    """Set and read KVM_REG_PPC_TB_OFFSET, before, while and after a guest runs on a host of this `origin`."""
    act = Act("The register: KVM_REG_PPC_TB_OFFSET")
    recorder = Recorder()
    host = Host(tb_origin=origin, clock=VirtualTime(), engine=ENGINE, observer=recorder)
    recorder.clock = host.system.clock
    guest = host.boot(IMAGE, console=recorder.hear)

    default = guest.get("TB_OFFSET")
    act.check("a new per-vcpu value … defaults to 0", f"read on a new vCPU: {default:#x}", default == 0)

    first, lead_before = _read(guest, recorder)
    guest.set("TB_OFFSET", SET)
    kept = guest.get("TB_OFFSET")
    act.check(
        "The kernel rounds up the value given to a multiple of 2^24",
        f"set {SET:#x}, kept {kept:#x} = {kept // GRANULE} × 2^24",
        kept == -(-SET // GRANULE) * GRANULE,
    )

    second, lead_after = _read(guest, recorder)
    jump = lead_after - lead_before
    act.check(
        "On entering the guest, this value is added onto the timebase",
        f"the guest's own mftb, against its host's timebase, jumps by {jump.value:#x}",
        jump.value == kept,
    )

    entries, exits, wrong = _cross(guest, recorder)
    still = guest.get("TB_OFFSET")
    act.check(
        "is not modified by KVM",
        f"after {entries} entries and {exits} exits: {still:#x}",
        still == kept and min(entries, exits) >= CROSSINGS,
    )
    act.check(
        "on exiting the guest, it is subtracted from the timebase",
        f"at {exits} exits the timebase was the host's again, to the tick"
        if not wrong
        else f"wrong at {wrong} exits",
        not wrong,
    )

    refusal = _refusal()
    act.check(
        "only supported for recent POWER hardware which has the TBU40 … register",
        f"without it: {refusal}" if refusal else "set on a processor that has none",
        bool(refusal),
    )
    guest.close()
    act.json.update(
        default=default,
        set=SET,
        kept=kept,
        kept_after=still,
        entries=entries,
        exits=exits,
        guest_timebase_before=first,
        guest_timebase_after=second,
        guest_jump=jump.value,
        without_tbu40=refusal,
        checks=act.as_json(),
    )
    return act


def _read(guest: Guest, recorder: Recorder) -> tuple[int, Ticks]:
    """Return a reading of the guest's, and its lead over the host's timebase at the entry before it.

    From that entry to the reading the guest executes the same instructions every time, so the difference of
    two such leads is what its timebase was moved by, to the tick.
    """
    reading = ask_for_timebase(guest)
    entry = recorder.entered_before(f"{reading:016x}")
    return reading, GuestTime(reading) - (entry.host_time + Offset(0))


def _cross(guest: Guest, recorder: Recorder) -> tuple[int, int, int]:
    """Have the guest go to user space and back; return its entries, exits, and how many left T wrong."""
    begin = len(recorder.moments)
    guest.console.type("x" * (CROSSINGS // 100))
    ask_for_timebase(guest)
    crossed: list[Moment] = recorder.moments[begin:]
    entries = sum(isinstance(m.event, OffsetApplied) for m in crossed)
    exits = [m for m in crossed if isinstance(m.event, HostTimeRestored)]
    wrong = sum(isinstance(m.event, HostTimeRestored) and m.event.value != m.host_time for m in exits)
    return entries, len(exits), wrong


def _refusal() -> str | None:
    """Return the error with which a host without TBU40 refuses an offset; None if it accepts one."""
    guest = Host(clock=VirtualTime(), cpu="ppc970", engine=ENGINE).boot(IMAGE)
    try:
        guest.set("TB_OFFSET", SET)
    except KvmError as error:
        return error.message
    finally:
        guest.close()
    return None
