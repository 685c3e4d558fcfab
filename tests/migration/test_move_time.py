"""Time over chains of moves, against the truth: the one clock that all hosts here count with.

A guest's ideal is its time at birth plus what has passed since by that clock. Nothing here asks the moves'
own records what the truth is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT
from chronovisor.timebase.types import GRANULE, MASK64, Ticks

MS = 512_000
LIMIT = CLOCK_ERROR_LIMIT.value

origins = st.lists(st.integers(0, MASK64), min_size=2, max_size=4)
flights = st.lists(st.one_of(st.integers(0, MS), st.integers(0, 60 * MS)).map(Ticks), min_size=8, max_size=8)
hops = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40 * MS), flights), min_size=1, max_size=8)


def booted(clock: VirtualTime, tb_origins: Sequence[int], offset: int = 0) -> tuple[list[Host], Guest]:
    hosts = [Host(clock=clock, tb_origin=origin) for origin in tb_origins]
    return hosts, hosts[0].boot("demo-le.elf", memory="1M", tb_offset=offset)


def signed(value: int) -> int:
    return ((value + (1 << 63)) & MASK64) - (1 << 63)


@settings(max_examples=60, deadline=None)
@given(origins, st.integers(0, MASK64), hops)
def test_any_chain_of_moves_keeps_time(
    tb_origins: list[int], offset: int, chain: list[tuple[int, int, list[Ticks]]]
) -> None:
    clock = VirtualTime()
    hosts, guest = booted(clock, tb_origins, offset)
    with ExitStack() as stack:
        for host in hosts:
            stack.enter_context(host)
        born, born_time = clock.ticks(), guest.timebase()
        for place, stay, times in chain:
            clock.advance(stay)
            before, before_time = clock.ticks(), guest.timebase()
            lead_before = (before_time - born_time).value - (before - born)
            due = guest.get("DEC_EXPIRY")

            guest, record = move(guest, hosts[place % len(hosts)], Link(times))

            now, now_time = clock.ticks(), guest.timebase()
            lead = (now_time - born_time).value - (now - born)
            # P4: also when nothing passes between the stop and the start.
            assert signed(record.guest_tb_after - record.guest_tb_before) >= 0
            assert (now_time - before_time).value >= 0
            # P5: its advance is what really passed, plus the error of the record, which is in its bound.
            assert lead - lead_before == record.error_ticks
            assert abs(record.error_ticks) <= record.error_bound_ticks
            round_trip = times[5].value + times[6].value
            assert record.error_bound_ticks <= GRANULE + round_trip // 2 + 4
            # P6: near its ideal after any number of moves, and inside the interval that goes along.
            assert guest.ideal.least <= lead <= guest.ideal.most
            assert abs(lead) <= LIMIT + guest.ideal.width.value // 2 + 1
            assert abs(record.rounding_ticks) <= LIMIT
            # P7: the decrementer expires at the same guest time.
            assert guest.get("DEC_EXPIRY") == due
            assert 0 <= record.wait_ns <= Ticks(GRANULE).ns
            assert guest.get("TB_OFFSET") % GRANULE == 0


def test_every_view_of_time_goes_on_by_the_one_record() -> None:
    """Time of day goes forward as the timebase does; what counts running time is carried as it is."""
    clock = VirtualTime()
    hosts = [
        Host(clock=clock, tb_origin=origin, cpu="power8", cores=2, threads=2) for origin in (5, 12_345_678)
    ]
    guest = hosts[0].boot("demo-le.elf", memory="1M", smp=4, threads=2, tb_offset=7 << 50)
    guest.run_for(Ticks(20 * MS))
    for number in range(4):
        before = {name: guest.get(name) for name in ("VTB", "PURR", "SPURR")}
        time_before, day_before = guest.timebase(), guest.wall_clock.since_epoch()
        guest, record = move(guest, hosts[(number + 1) % 2], Link([Ticks(3 * MS)]))
        assert {name: guest.get(name) for name in before} == before
        assert guest.wall_clock.since_epoch() - day_before == guest.timebase() - time_before
        assert record.error_ticks != 0
        assert len({guest.get("TB_OFFSET", vcpu) for vcpu in range(4)}) == 1


def test_a_guest_remembers_its_life() -> None:
    clock = VirtualTime()
    hosts, guest = booted(clock, (0, 12_345_678), 1 << 40)
    assert (guest.history.born, guest.history.hops) == (1 << 40, ())
    records = []
    for number in range(3):
        guest, record = move(guest, hosts[(number + 1) % 2], Link([Ticks(MS)]))
        records.append(record)
    guest.set("TB_OFFSET", 1 << 41)
    assert [hop.kind for hop in guest.history.hops] == ["move"] * 3 + ["set"]
    for hop, record in zip(guest.history.hops, records, strict=False):
        assert hop.record.guest_tb_before == record.guest_tb_before
        assert hop.record.guest_tb_after == record.guest_tb_after
        assert hop.record.error_bound_ticks == record.error_bound_ticks
        assert abs(hop.record.elapsed_ticks - record.elapsed_ticks) <= hop.record.elapsed_uncertainty_ticks
    assert guest.history.hops[-1].record.guest_tb_after == clock.ticks() + hosts[1].clock.origin + (1 << 41)


def test_two_hundred_short_moves_do_not_add_up() -> None:
    clock = VirtualTime()
    hosts, guest = booted(clock, (12_345_678, 0x7A5A_4868_2C34_3C), 1 << 50)
    born, born_time = clock.ticks(), guest.timebase()
    for number in range(200):
        guest, _ = move(guest, hosts[(number + 1) % 2], Link([Ticks(100)]))
        clock.advance(100_000)
    lead = (guest.timebase() - born_time).value - (clock.ticks() - born)
    assert abs(lead) <= LIMIT + guest.ideal.width.value // 2 + 1
    # 100 ticks there and back: the interval is 200 and four of reading wider with each move.
    assert guest.ideal.width.value <= 200 * 204


def test_hosts_in_phase_round_nothing() -> None:
    clock = VirtualTime()
    hosts, guest = booted(clock, (77, 77 + (1 << 55)))
    for number in range(6):
        guest, record = move(guest, hosts[(number + 1) % 2], Link([Ticks(5 * MS)]))
        assert record.error_ticks == 0
        assert record.wait_ns == 0


def test_a_guest_that_its_owner_gives_another_time_has_that_as_its_ideal() -> None:
    clock = VirtualTime()
    hosts, guest = booted(clock, (0, 12_345_678))
    guest, _ = move(guest, hosts[1])
    assert guest.ideal.rounding.value != 0
    guest.set("TB_OFFSET", 1 << 60)
    assert guest.ideal.rounding.value == 0


def test_a_relaxed_limit_waits_less() -> None:
    waits = {}
    for limit in (CLOCK_ERROR_LIMIT, Ticks(2 * GRANULE)):
        clock = VirtualTime()
        hosts, guest = booted(clock, (0, GRANULE // 2 + 5000), 1 << 40)
        for number in range(4):
            guest, record = move(guest, hosts[(number + 1) % 2], Link([Ticks(100)]), limit)
            waits[limit] = waits.get(limit, 0) + record.wait_ns
    assert waits[CLOCK_ERROR_LIMIT] > 0
    assert waits[Ticks(2 * GRANULE)] == 0


def says(guest: Guest) -> dict[str, str]:
    """What the guest reports, once more."""
    before = guest.console_text.count("memory=")
    guest.console.type("r")
    assert guest.run_until(lambda text: text.count("memory=intact\n") > before, Ticks(1000 * MS))
    line = [line for line in guest.console_text.splitlines() if "readings=" in line][-1]
    return dict(pair.split("=") for pair in line.removeprefix("guest: ").split())


@pytest.mark.parametrize("engine", ["concrete", "auto"])
@pytest.mark.parametrize("topology", [(1, 1, "power9"), (2, 2, "power8"), (2, 1, "power9")])
def test_the_guest_itself_sees_nothing_but_time_that_passed(
    topology: tuple[int, int, str], engine: str
) -> None:
    vcpus, threads, cpu = topology
    clock = VirtualTime()
    hosts = [
        Host(clock=clock, tb_origin=origin, cpu=cpu, cores=vcpus // threads, threads=threads, engine=engine)
        for origin in (5 << 50, (9 << 50) + 7_777_777, 3_333_333)
    ]
    guest = hosts[0].boot("demo-le.elf", memory="1M", smp=vcpus, threads=threads, tb_offset=7 << 50)
    others = []
    for number in range(7):
        guest.run_for(Ticks(6 * MS))
        guest, _ = move(guest, hosts[(number + 1) % 3], Link(seed=number))
        if number in (0, 6):
            others.append(int(says(guest)["readings_others"]))
    seen = says(guest)
    assert seen["back"] == seen["back_between"] == "0"
    assert seen["lost"] == seen["early"] == "0"
    assert seen["expected"] == seen["taken"]
    assert int(seen["taken"]) > 10
    assert seen["outside"] == "0"
    assert int(seen["entries"]) > 7
    # The other vCPUs were started before, and run on.
    assert (others[1] > others[0] > 0) == (vcpus > 1)


def test_what_was_typed_goes_along() -> None:
    clock = VirtualTime()
    hosts, guest = booted(clock, (0, 99))
    guest.run_until("watching")
    guest.console.type("r")
    guest, _ = move(guest, hosts[1])
    assert guest.run_until("memory=intact", Ticks(1000 * MS))


def test_a_guest_that_runs_goes_on_running_on_real_clocks() -> None:
    hosts = [Host(clock="real", tb_origin=origin) for origin in (1 << 60, 12_345)]
    guest = hosts[0].boot("demo-le.elf", memory="1M", tb_offset=1 << 58)
    guest.resume()
    for number in range(4):
        guest, record = move(guest, hosts[(number + 1) % 2], Link([Ticks(10_000)]))
        assert guest.running
        assert abs(record.error_ticks) <= record.error_bound_ticks
        assert record.guest_tb_after >= record.guest_tb_before
    guest.pause()
    seen = says(guest)
    assert seen["back"] == "0"
    assert seen["lost"] == seen["early"] == "0"
    assert seen["outside"] == "0"
    for host in hosts:
        host.close()


def test_a_host_forgets_the_guests_that_went_elsewhere() -> None:
    hosts, guest = booted(VirtualTime(), [0, 5])
    for hop in range(5):
        guest, _ = move(guest, hosts[(hop + 1) % 2])
    assert guest in hosts[1].guests
    # The last one to leave is forgotten when the next one comes.
    assert [len(host.guests) for host in hosts] == [1, 1]
    for host in hosts:
        host.close()
