"""The second act: an entry and exit of a two-thread virtual core, step by step, around a wrap."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from chronovisor.cli.demo import watchers
from chronovisor.cli.demo.findings import Act
from chronovisor.cli.demo.watched import ENGINE, IMAGE, GuestReport, Moment, Recorder, ask_for_report
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.report.switch_trace import line
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.trace import (
    DecrementerKept,
    SecondaryLetIn,
    SwitchBreached,
    Tbu40Written,
    ThreadOut,
    TimebaseRead,
    Wrapped,
)
from chronovisor.timebase.types import FREQUENCY, GRANULE, LOW_MASK, GuestTime, Offset, Ticks

YEAR = 31_557_600 * FREQUENCY
OFFSET = Offset.rounded_up((-3 * YEAR) & ((1 << 64) - 1))
"""The guest is three years behind its host."""
SHORT_OF_THE_WRAP = 128
"""Ticks between the switch's reading and the wrap: fewer than one access to the timebase takes."""
ATTEMPTS = 4
STARTED = 3
"""Of the four vCPUs: user space can set the register on the fourth while its sibling runs the guest."""


def play(origin: int) -> tuple[Act, int]:
    """Run a guest of two virtual cores of two threads on two cores, and look at every entry and exit.

    Return also the origin, moved a little, at which a wrap falls into an entry.
    """
    act = Act("The switch: into a two-thread virtual core and out, around a wrap of the low 24 bits")
    for _ in range(ATTEMPTS):
        recorder = Recorder()
        # POWER8: the threads of its cores run the vCPUs of one virtual core together.
        host = Host(
            tb_origin=origin,
            clock=VirtualTime(),
            cpu="power8",
            engine=ENGINE,
            cores=2,
            threads=2,
            observer=recorder,
        )
        guest = start(host, recorder)
        report = ask_for_report(guest)
        found = _entry_with_secondary(recorder.moments)
        if any(isinstance(m.event, Wrapped) for m in found):
            break
        # The same run again, from an origin that has the wrap fall behind this entry's reading.
        read = next((m.event.value for m in found if isinstance(m.event, TimebaseRead)), 0)
        origin += (GRANULE - SHORT_OF_THE_WRAP - read) & LOW_MASK
    act.shown.append(_steps(found))
    _judge(act, recorder, found, guest, report)
    guest.close()
    act.json.update(
        origin=origin,
        offset=OFFSET.value,
        steps=[line(m.event).strip() for m in found],
        log_entries=report["entries"],
        log_entries_outside=report["outside"],
        checks=act.as_json(),
    )
    return act, origin


def start(host: Host, recorder: Recorder) -> Guest:
    """Boot the guest on `host`: two virtual cores of two threads each, on two cores."""
    recorder.clock = host.system.clock
    return host.boot(
        IMAGE, smp=4, threads=2, append=f"vcpus={STARTED}", tb_offset=OFFSET.value, console=recorder.hear
    )


def _entry_with_secondary(moments: Sequence[Moment]) -> list[Moment]:
    """Return the first entry of core 0 at which a secondary thread was let in, up to the end of its exit."""
    of_core: list[Moment] = []
    for moment in moments:
        if getattr(moment.event, "core", 0) != 0 or getattr(moment.event, "vcpu", 0) > 1:
            continue
        if isinstance(moment.event, TimebaseRead) and _is_over(of_core):
            if any(isinstance(m.event, SecondaryLetIn) for m in of_core):
                return of_core
            of_core = []
        of_core.append(moment)
    return []


def _is_over(moments: Sequence[Moment]) -> bool:
    out = sum(isinstance(m.event, ThreadOut) for m in moments)
    return out > 0 and out == sum(isinstance(m.event, DecrementerKept) for m in moments)


def _judge(act: Act, recorder: Recorder, found: Sequence[Moment], guest: Guest, report: GuestReport) -> None:
    events = [m.event for m in found]
    moments = recorder.moments
    written = [e for e in events if isinstance(e, Tbu40Written)]
    act.check(
        "leaving the lower 24 bits unchanged",
        "they wrapped between the reading and the check, so 2^24 was added: "
        f"{written[0].value >> 24:#x} then {written[1].value >> 24:#x} in the upper 40"
        if len(written) > 1
        else "no wrap was met",
        len(written) > 1 and written[1].after_wrap and written[1].value == written[0].value + GRANULE,
    )

    let_in, early = watchers.secondaries(moments)
    act.check(
        "On entering the guest, this value is added",
        f"{let_in} secondary threads let in, each after its core's timebase was the guest's"
        if not early
        else f"{early} secondary threads let in too early",
        let_in > 0 and not early,
    )

    exits, inexact = watchers.exits(moments)
    act.check(
        "on exiting the guest, it is subtracted",
        f"{exits} exits on 2 cores: T = H after each, to the tick"
        if not inexact
        else f"wrong at {inexact} exits",
        exits > 0 and not inexact,
    )

    kept, early = watchers.decrementers(moments)
    last = {m.event.vcpu: m.event for m in moments if isinstance(m.event, DecrementerKept)}
    as_guest_time = GuestTime(guest.get("DEC_EXPIRY", vcpu=0))
    in_host_time = last[0].expiry + OFFSET == as_guest_time
    distance = abs(last[0].expiry - recorder.moments[-1].host_time)
    act.check(
        "dec_expires … after we have restored the host timebase … is a host timebase value",
        f"kept {kept} times behind the exit; vCPU 0's is {distance.ns / 1e6:.1f} ms from the host's "
        "time, and DEC_EXPIRY shows it in guest time",
        kept > 0 and not early and in_host_time and distance < Ticks(FREQUENCY),
    )

    logged, untrue = watchers.log_entries(moments, OFFSET)
    act.check(
        "the dispatch trace log need to be guest timebase values … read directly by the guest",
        f"the guest read {report['entries']} entries, "
        f"{report['outside']} of them outside its own readings before and after",
        report["entries"] > 0 and report["outside"] == 0 and logged > 0 and not untrue,
    )

    looked, out_of_step = watchers.phases(moments)
    act.check(
        "without disturbing the synchronization of the timebase registers across CPU cores",
        f"low 24 bits as the host's clock at all {looked} readings of both cores"
        if not out_of_step
        else f"out of step at {out_of_step} of {looked} readings",
        looked > 0 and not out_of_step,
    )
    breaches = sum(isinstance(m.event, SwitchBreached) for m in moments)
    act.check(
        "the timebase seen by the guest must not go backwards",
        f"{report['readings'] + report['readings_others']} readings on {STARTED} vCPUs, "
        f"{report.backward_steps} steps back",
        report.backward_steps == 0 and report["readings_others"] > 0 and not breaches,
    )


def _steps(moments: Sequence[Moment]) -> Text:
    text = Text()
    text.append("  entry\n", style="dim")
    leaving = False
    for moment in moments:
        if isinstance(moment.event, ThreadOut) and not leaving:
            leaving = True
            text.append("  exit\n", style="dim")
        text.append(f"  {line(moment.event)}\n", style="bold" if isinstance(moment.event, Wrapped) else "")
    text.rstrip()
    return text
