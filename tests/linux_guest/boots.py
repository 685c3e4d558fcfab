"""Linux boots in virtual time, moves and loses links at random moments, and checks its clocks."""

from __future__ import annotations

import random
from collections import Counter
from typing import Final

from chronovisor.cli.clockcheck.guest_half import initramfs
from chronovisor.machine.console import Console
from chronovisor.machine.ending import EndReason
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.migration.errors import LinkLostError, MoveError
from chronovisor.migration.link import Link
from chronovisor.migration.messages import Message
from chronovisor.migration.move import move
from chronovisor.report.clock_check.check import ClockCheck
from chronovisor.report.clock_check.lines import Sample, parse
from chronovisor.report.clock_check.report import Report
from chronovisor.timebase.clock import TickSource, VirtualTime
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import FREQUENCY, SourceTime, Ticks
from linux_guest.guests import OWN
from linux_guest.test_moves import faults

APPEND: Final = "console=hvc0 cryptomgr.notests quiet clockcheck.interval=20 clockcheck.seconds=2"
LONGEST: Final = FREQUENCY // 2
"""Ticks from one move to the next, at most; a boot takes about a second in virtual time."""
PRINTING_NS: Final = 5_000_000
WITHIN: Final = 20 * FREQUENCY
"""Ticks in which a boot must end."""


class LosingLink(Link):
    """A link that is lost at one of its messages."""

    def __init__(self, seed: int, message: int) -> None:
        super().__init__(seed=seed)
        self._left = message

    def carry(self, message: Message, sent: SourceTime, source: TickSource) -> Message:
        self._left -= 1
        if self._left < 0:
            raise LinkLostError("the link is lost")
        return super().carry(message, sent, source)


class Boot:
    """One boot: everything in it follows from its seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = VirtualTime()
        self.check = ClockCheck()
        self.lines: list[bytes] = []
        self.records: list[MoveRecord] = []
        self.stayed = 0
        """Moves that failed before COMMIT, so that the guest stayed."""
        self.lags: list[int] = []
        """How far CLOCK_MONOTONIC was behind the hosts' clock when each sample came, in nanoseconds."""
        self._rest = b""

    def take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.lines.append(line)
            now = Ticks(self.clock.ticks()).ns
            self.check.line(line.rstrip(b"\r"), now)
            said = parse(line)
            if isinstance(said, Sample):
                self.lags.append(now - said.clocks["mono"])

    def run(self) -> Report:
        chance, smp = self.chance, self.chance.choice((1, 2))
        hosts = [
            Host(
                clock=self.clock,
                tb_origin=chance.getrandbits(56),
                cores=smp,
                engine="regions",
                ticks_per_instruction=2,
            )
            for _ in range(2)
        ]
        try:
            guest = hosts[0].boot(
                OWN.vmlinux(),
                "256M",
                smp=smp,
                append=APPEND,
                console=Console(self.take),
                initrd=initramfs("ppc64le"),
            )
            begun = self.clock.ticks()
            while guest.run_for(Ticks(chance.randrange(LONGEST))) is None:
                assert self.clock.ticks() - begun < WITHIN, self.lines[-20:]
                guest = self.move(guest, hosts[guest in hosts[0].guests])
            assert guest.end is not None
            assert guest.end.reason is EndReason.POWER_OFF, (guest.end, self.lines[-20:])
        finally:
            for host in hosts:
                host.close()
        return self.check.report()

    def move(self, guest: Guest, there: Host) -> Guest:
        seed = self.chance.getrandbits(32)
        if self.chance.random() < 0.3:
            # Of the first messages: COMMIT comes after them.
            try:
                move(guest, there, LosingLink(seed, self.chance.randrange(4)))
            except MoveError:
                self.stayed += 1
                return guest
            raise AssertionError("a move over a lost link succeeded")
        guest, record = move(guest, there, Link(seed=seed))
        self.records.append(record)
        return guest


def boots(seed: int, count: int) -> Counter[str]:
    """Boot so many times; return how many moves were made and how many failed."""
    done = Counter[str]()
    for number in range(count):
        boot = Boot(seed * 1000 + number)
        report = boot.run()
        told = f"boot {number} of seed {seed}"
        assert report.finished, told
        assert report.samples > 20, told
        for record in boot.records:
            assert abs(record.error_ticks) <= record.error_bound_ticks, told
            assert record.guest_tb_after >= record.guest_tb_before, told
        bound = max((record.error_bound_ticks for record in boot.records), default=0)
        assert faults(report, bound) == [], (told, report.as_json())
        # From one stay to another, the printing included.
        assert max(boot.lags) - min(boot.lags) <= 2 * Ticks(bound).ns + PRINTING_NS, f"{told}: a clock steps"
        done.update({"moves": len(boot.records), "moves over a lost link": boot.stayed})
    return done
