"""What a destination cannot take is refused in one line, and the guest is not even stopped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chronovisor.kvm.structures import Sregs
from chronovisor.machine.files import SHIPPED
from chronovisor.machine.host import Host
from chronovisor.machine.sizes import Topology
from chronovisor.migration.destination import Destination
from chronovisor.migration.errors import MoveError, MoveRefusedError
from chronovisor.migration.link import Link
from chronovisor.migration.messages import Accepted, Commit, Message, Offer, Refused
from chronovisor.migration.move import move
from chronovisor.migration.phases import DestinationPhase, SourcePhase
from chronovisor.timebase.clock import TickSource, VirtualTime
from chronovisor.timebase.handover import IdealInterval
from chronovisor.timebase.types import GuestTime, Ticks

MS = 512_000


class Overheard(Link):
    """A link whose offer can be looked at."""

    offer: Offer

    def carry(self, message: Message, sent: int, source: TickSource) -> Message:
        if isinstance(message, Offer):
            self.offer = message
        return super().carry(message, sent, source)


def offered(time: VirtualTime, cpu: str = "power9", **changed: Any) -> Offer:
    """The offer of an ordinary guest, changed in a way."""
    link = Overheard([Ticks(0)])
    move(
        Host(clock=time, cpu=cpu, threads=2).boot("demo-le.elf", memory="1M"),
        Host(clock=time, cpu=cpu),
        link,
    )
    return replace(link.offer, guest_time=GuestTime(time.ticks()), **changed)


def answer(host: Host, offer: Offer) -> str:
    said = Destination(host).handle(offer)
    if isinstance(said, Accepted):
        return "accepted"
    assert isinstance(said, Refused)
    assert host.guests == []
    assert "\n" not in said.reason
    return said.reason


def test_an_ordinary_guest_is_taken() -> None:
    clock = VirtualTime()
    assert answer(Host(clock=clock), offered(clock)) == "accepted"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"frequency": 500_000_000}, "500000000 Hz"),
        ({"clock": "real time"}, "real time"),
        ({"clock": "virtual clock 1234 of process 1"}, "virtual clock 1234 of process 1"),
        ({"dec_bits": 48}, "48 bits"),
        ({"pvr": 0x800200}, "0x800200"),
        ({"memory_size": (1 << 20) + 1}, "multiple of 4096"),
        ({"frequency": 0}, "counts 0 Hz"),
        ({"limit": Ticks((1 << 23) - 1)}, "cannot be kept"),
        ({"name": "../../etc/guest"}, "that of a path"),
        ({"name": "a/"}, "that of a path"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], reason: str) -> None:
    clock = VirtualTime()
    assert reason in answer(Host(clock=clock), offered(clock, **changed))


def test_too_few_threads() -> None:
    clock = VirtualTime()
    offer = offered(clock, "power8", topology=Topology(4, 4))
    assert "4 threads" in answer(Host(clock=clock, cpu="power8", threads=2), offer)
    assert answer(Host(clock=clock, cpu="power8", threads=4), offer) == "accepted"


def test_no_tbu40_where_an_offset_is_needed() -> None:
    clock = VirtualTime()
    without = Host(clock=clock, cpu="ppc970")
    offer = offered(clock, pvr=without.system.host.pvr, topology=Topology(1, 1))
    far = replace(offer, guest_time=GuestTime(1 << 50))
    assert "no TBU40" in answer(without, far)
    behind = replace(offer, guest_time=GuestTime(-(1 << 50)))
    assert "no TBU40" in answer(without, behind)
    assert "no TBU40" not in answer(without, offer)


@pytest.mark.parametrize("clocks", [("virtual", "real"), ("real", "virtual"), ("virtual", "virtual")])
def test_hosts_whose_clocks_do_not_go_together(clocks: tuple[str, str]) -> None:
    guest = Host(clock=clocks[0]).boot("demo-le.elf", memory="1M")
    phases: list[object] = []
    with pytest.raises(MoveRefusedError) as caught:
        move(guest, Host(clock=clocks[1]), Link([Ticks(0)]), probe=phases.append)
    assert phases == [SourcePhase.ASK, DestinationPhase.CONSIDER]
    assert "between clocks that do not go together" in str(caught.value)
    assert "\n" not in str(caught.value)
    guest.close()


class Changed(Link):
    """A link on which COMMIT says something else."""

    def __init__(self, **changed: Any) -> None:
        super().__init__([Ticks(MS)])
        self._changed = changed

    def carry(self, message: Message, sent: int, source: TickSource) -> Message:
        if isinstance(message, Commit):
            message = replace(message, **self._changed)
        return super().carry(message, sent, source)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        # Of a moment that is still to come, …
        ({"since_sample": Ticks(-1)}, "no exchange takes less than 0"),
        # … and of one before there was a move.
        ({"since_sample": Ticks(1000 * MS)}, "its offer was accepted"),
        ({"since_sample": Ticks((1 << 63) - 1)}, "its offer was accepted"),
        ({"dwell": Ticks(1000 * MS)}, "is its clock faster"),
        ({"dwell": Ticks(-1)}, "no exchange takes less than 0"),
        ({"ideal": IdealInterval(-(1 << 63), 0)}, "further from its ideal time"),
        ({"ideal": IdealInterval(0, (1 << 63) - 1)}, "further from its ideal time"),
    ],
)
def test_a_commit_that_cannot_be_true_is_refused_and_the_guest_goes_on(
    changed: dict[str, Any], reason: str
) -> None:
    clock = VirtualTime()
    guest = Host(clock=clock).boot("demo-le.elf", memory="1M")
    away = Host(clock=clock)
    with pytest.raises(MoveError) as caught:
        move(guest, away, Changed(**changed))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert away.guests == []
    assert guest.run_until("watching")


def test_a_name_goes_without_the_path_of_its_image() -> None:
    clock = VirtualTime()
    guest = Host(clock=clock).boot(SHIPPED / "demo-le.elf", memory="1M")
    assert "/" in guest.name
    moved, _ = move(guest, Host(clock=clock))
    assert moved.name == "demo-le.elf"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sregs": Sregs(0x4E1200, 1 << 20)}, "SDR1 0x100000"),
        ({"sregs": Sregs(0x4E1200, 0, [(1 << 27, 5)])}, "1 SLB entries"),
        ({"registers": (1 << 60,)}, "the guest uses"),
    ],
)
def test_what_the_destination_cannot_keep_is_refused_before_the_guest_stops(
    changed: dict[str, Any], words: str
) -> None:
    phases: list[object] = []

    class Needing(Link):
        def carry(self, message: Message, sent: int, source: TickSource) -> Message:
            return replace(message, **changed) if isinstance(message, Offer) else message

    clock = VirtualTime()
    away = Host(clock=clock)
    with Host(clock=clock).boot("demo-le.elf", memory="1M") as guest:
        with pytest.raises(MoveRefusedError, match=words):
            move(guest, away, Needing(), probe=phases.append)
        assert phases == [SourcePhase.ASK, DestinationPhase.CONSIDER]
        assert away.guests == []
