"""The fifth act: an unmodified Debian kernel keeps its time over moves; QEMU beside it; a counter-example."""

from __future__ import annotations

import platform
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from chronovisor.cli.debian import FetchError, Packages
from chronovisor.cli.demo.findings import Act
from chronovisor.cli.demo.linux import qemu
from chronovisor.cli.demo.linux.embedded import SET_BACK, LinuxOnOurHosts, SetBack
from chronovisor.cli.demo.linux.guest import initramfs
from chronovisor.cli.demo.linux.journey import MOVES, LinuxJourney
from chronovisor.cli.demo.linux.without import play_without
from chronovisor.cli.demo.watched import SilentGuestError
from chronovisor.report.clock_check.report import Report
from chronovisor.report.linux_picture import LinuxPicture, draw
from chronovisor.report.table import milliseconds, years
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT
from chronovisor.timebase.types import FREQUENCY, Ticks

_NS_PER_TICK: Final = 1e9 / FREQUENCY
_BUSY_MACHINE: Final = {"long interrupt"}
"""Complaints of the guest's kernel that a busy machine causes by letting a vCPU wait."""
_LEAP_SECONDS: Final = 1.0
"""A guest's uptime that is so far off its course has leapt."""


@dataclass(frozen=True, slots=True)
class Told:
    """What Linux told: on our hosts, under sabotage, and on QEMU if it is installed."""

    ours: LinuxJourney
    set_back: SetBack
    peer: LinuxJourney | None
    no_peer: str = ""
    """Why there is no peer."""


def play(chance: random.Random, packages: Path, picture: Path, in_virtual_time: bool) -> Act:
    """Play the act and write its picture. Without what Linux needs, a small act says so and plays without it.

    OSError or ValueError if the picture cannot be written; SilentGuestError or MoveError if a guest of ours
    does not do its part.
    """
    why = _missing(in_virtual_time)
    if why is None:
        try:
            found = Packages(packages)
            kernel, archive = found.vmlinux(), initramfs(found)
        except (FetchError, OSError) as error:
            why = f"Debian's kernel could not be had: {error}"
    if why is not None:
        return play_without(why)
    with LinuxOnOurHosts(kernel, archive, chance) as linux:
        linux.boot()
        linux.travel(MOVES)
        ours = linux.journey()
        set_back = linux.set_back()
    told = Told(ours, set_back, *_peer(kernel, archive))
    act = judge(told)
    draw(
        LinuxPicture(
            ours.errors_ms,
            told.peer.errors_ms if told.peer else [],
            f"QEMU {qemu.version()}" if told.peer else "",
            told.peer is not None and told.peer.silent,
            CLOCK_ERROR_LIMIT.seconds * 1000,
            [((u.at_ns - told.set_back.at_ns) / 1e9, u.up) for u in told.set_back.uptimes],
            SET_BACK / FREQUENCY,
        ),
        picture,
    )
    act.json["linux_picture"] = str(picture.resolve())
    act.shown.append(Text(f"  picture: {picture.resolve()}", style="dim"))
    return act


def judge(told: Told) -> Act:
    """Return the act of what was told."""
    act = Act("Linux: Debian's kernel, busy, moves between hosts years apart")
    act.shown.append(_table(told))
    _judge_ours(act, told.ours)
    _judge_set_back(act, told.set_back)
    if told.peer is None:
        act.shown.append(Text(f"  nothing to compare with: {told.no_peer}", style="dim"))
    else:
        _judge_peer(act, told.peer)
    act.json["linux"] = {
        "boot_seconds": round(told.ours.boot_seconds, 3),
        "moves": told.ours.moves,
        "errors_ms": [round(error, 3) for error in told.ours.errors_ms],
        "downtimes_ms": [round(downtime, 3) for downtime in told.ours.downtimes_ms],
        "set_back_leap_seconds": round(told.set_back.leap_seconds, 3),
        "qemu": None
        if told.peer is None
        else {
            "boot_seconds": round(told.peer.boot_seconds, 3),
            "moves": told.peer.moves,
            "silent": told.peer.silent,
            "errors_ms": [round(error, 3) for error in told.peer.errors_ms],
            "downtimes_ms": list(told.peer.downtimes_ms),
        },
    }
    return act


def _peer(kernel: Path, archive: bytes) -> tuple[LinuxJourney | None, str]:
    """Return the journey between QEMUs, or the reason if QEMU cannot make it."""
    if not qemu.installed():
        return None, f"{qemu.PROGRAM} is not installed"
    try:
        return qemu.travel(kernel, archive, MOVES), ""
    except SilentGuestError as error:
        return None, " ".join(str(error).split())


def _missing(in_virtual_time: bool) -> str | None:
    """Why Linux cannot be shown here; None if it can."""
    if in_virtual_time:
        return "on the virtual clock it would take too long"
    if platform.machine() != "x86_64":
        return f"native code runs on x86-64 alone, and this is {platform.machine()}"
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return "the kernel comes with Debian's apt, which this machine does not have"
    return None


def _judge_ours(act: Act, ours: LinuxJourney) -> None:
    report, records = ours.report, ours.records
    apart = max(abs(record.to_origin - record.from_origin) for record in records)
    kernel = report.hello.kernel if report.hello else "?"
    act.check(
        "an unmodified Linux runs and moves live",
        f"Linux {kernel} on {report.cpus} CPUs printed its clocks {ours.boot_seconds:.1f} s after its start, "
        f"then moved {ours.moves} times between hosts up to {years(apart)} apart; downtime "
        f"{ours.median_downtime_ms:.1f} ms in the median, {max(ours.downtimes_ms):.1f} ms at most",
        report.cpus == 2 and ours.moves == MOVES and len(ours.errors_ms) == MOVES + 1,
        beyond=True,
    )
    act.check(
        "the timebase seen by the guest must not go backwards",
        f"{report.samples} times its checker read every clock on each CPU, by vDSO and by system call: "
        f"{report.backs} readings went back, {len(report.disagreements)} times two clocks disagreed",
        report.samples > MOVES and report.backs == 0 and not report.disagreements,
    )
    furthest = max(map(abs, ours.errors_ms))
    act.check(
        "should go forwards only by a small amount corresponding to the time taken for the migration",
        f"its CLOCK_MONOTONIC was never seen further than {furthest:.1f} ms from this machine's clock; "
        f"no step is beyond what the moves promise, {milliseconds(_promised(ours))} ms at most",
        _steps_are_promised(report, _promised(ours)),
    )
    timers, late = report.timers, max((w.most_us for w in ours.wakings), default=0)
    woken = sum(w.count for w in ours.wakings)
    act.check(
        "no timer is lost or early",
        f"the checker's {timers.fired} timers: {timers.early} early, {timers.lost} lost; cyclictest woke "
        f"{woken} times on {len(ours.wakings)} CPUs, at most {late / 1000:.1f} ms late",
        (timers.early, timers.lost) == (0, 0)
        and timers.fired > 0
        and len(ours.wakings) == 2
        and all(w.count > 0 and w.least_us >= 0 for w in ours.wakings),
        beyond=True,
    )
    complaints = {kind: n for kind, n in report.complaints.items() if kind not in _BUSY_MACHINE}
    act.check(
        "no watchdog, stall or change of clocksource is reported",
        f"lines of that kind in the kernel's messages: {sum(complaints.values())}",
        not complaints,
        beyond=True,
    )


def _promised(ours: LinuxJourney) -> int:
    """The largest error in ticks that a move's record allows."""
    return max(record.error_bound_ticks for record in ours.records)


def _steps_are_promised(report: Report, ticks: int) -> bool:
    """Whether each step that the console shows can have been as small as that."""
    allowed = ticks * _NS_PER_TICK
    return all(step.ns.low <= allowed and step.ns.high >= -allowed for step in report.steps)


def _judge_set_back(act: Act, set_back: SetBack) -> None:
    after = [u for u in set_back.uptimes if u.at_ns > set_back.at_ns]
    leap = set_back.leap_seconds
    seen = []
    if set_back.backs:
        seen.append(f"{set_back.backs} reading{'s' * (set_back.backs > 1)} went back")
    if abs(leap) > _LEAP_SECONDS:
        seen.append(f"its uptime {'leapt' if leap > 0 else 'fell'} by {leap:+.1f} s")
    if not after:
        seen.append("it answered no more")
    act.check(
        "what the offset is for: the same guest, its timebase set back",
        f"by {SET_BACK / FREQUENCY:.1f} s, as a host's younger timebase would: "
        f"{', '.join(seen) or 'NOBODY NOTICED'}",
        bool(seen),
        beyond=True,
    )


def _judge_peer(act: Act, peer: LinuxJourney) -> None:
    end = ", then it printed no more" if peer.silent else ""
    seen = f"; its clock was last seen {peer.errors_ms[-1]:+z.1f} ms off this machine's"
    act.check(
        "the same guest, with the same checker, between two QEMUs",
        f"QEMU {qemu.version()} moved it {peer.moves} time{'s' * (peer.moves > 1)}{end}"
        f"{seen if len(peer.errors_ms) > 1 else ''}; downtime {peer.median_downtime_ms:.0f} ms in the "
        f"median, {max(peer.downtimes_ms):.0f} ms at most",
        peer.moves > 0 and bool(peer.errors_ms),
        beyond=True,
    )


def _table(told: Told) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("", justify="right")
    for heading in ("clock error\nseen", "by the\nrecords", "downtime"):
        table.add_column(heading, justify="right")
    if told.peer is not None:
        for heading in ("QEMU: clock\nerror seen", "downtime"):
            table.add_column(heading, justify="right")
    by_records = list(accumulate(record.error_ticks for record in told.ours.records))
    for number in range(told.ours.moves):
        row = [
            str(number + 1),
            f"{told.ours.errors_ms[number + 1]:+z.1f}",
            f"{Ticks(by_records[number]).seconds * 1000:+z.1f}",
            f"{told.ours.downtimes_ms[number]:.1f}",
        ]
        if told.peer is not None:
            row += [_of(told.peer.errors_ms, number + 1, "+z.1f"), _of(told.peer.downtimes_ms, number, ".0f")]
        table.add_row(*row)
    return table


def _of(values: Sequence[float], place: int, form: str) -> str:
    return f"{values[place]:{form}}" if place < len(values) else "–"
