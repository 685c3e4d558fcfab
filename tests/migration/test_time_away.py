"""A guest that was away: paused, in a file, or on its way. Its time is the policy's, in every view of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from timer_guest import ARMED_AT, DISTANCE, STEP, timer_guest

from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.migration.pause import Pause
from chronovisor.migration.snapshot import snapshot
from chronovisor.migration.snapshot_restore import opened, restore_from
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT
from chronovisor.timebase.history import AwayClock, HopKind
from chronovisor.timebase.policy import CATCH_UP, FREEZE, TimePolicy
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import FREQUENCY, GRANULE, MASK64, GuestTime, SourceTime, Ticks

MS = 512_000
LIMIT = CLOCK_ERROR_LIMIT.value
ORIGINS = (3 << 50, (9 << 50) + 7_654_321)

Away = Callable[[Guest, Host, Ticks, TimePolicy, Path], tuple[Guest, MoveRecord]]
"""Has a guest be away for so long, and go on at the host by that policy, not running."""


def paused(
    guest: Guest, host: Host, away: Ticks, policy: TimePolicy, directory: Path
) -> tuple[Guest, MoveRecord]:
    pause = Pause(guest)
    advance(guest, away)
    hop = pause.resume(policy)
    assert (hop.kind, hop.clock, hop.policy) == (HopKind.RESUME, AwayClock.HOST, policy)
    return guest, hop.record


def in_a_file(
    guest: Guest, host: Host, away: Ticks, policy: TimePolicy, directory: Path
) -> tuple[Guest, MoveRecord]:
    path = directory / "guest.snapshot"
    snapshot(guest, path)
    clock = guest.system.clock.source
    guest.close()
    assert isinstance(clock, VirtualTime)
    clock.advance(away.value)
    with opened(path) as reader:
        restored = restore_from(reader, host, policy=policy)
    hop = restored.hop
    assert (hop.kind, hop.clock, hop.policy) == (HopKind.RESTORE, AwayClock.HOST, policy)
    return restored.start(running=False), hop.record


def moved(
    guest: Guest, host: Host, away: Ticks, policy: TimePolicy, directory: Path
) -> tuple[Guest, MoveRecord]:
    there, record = move(guest, host, Link([Ticks(away.value // 4)]), policy=policy)
    assert there.history.hops[-1].policy == policy
    return there, record


def advance(guest: Guest, ticks: Ticks) -> None:
    clock = guest.system.clock.source
    assert isinstance(clock, VirtualTime)
    clock.advance(ticks.value)


WAYS: list[tuple[Away, TimePolicy]] = [
    (way, policy)
    for way in (paused, in_a_file, moved)
    for policy in (FREEZE, CATCH_UP, TimePolicy(Ticks(20 * MS)), TimePolicy(Ticks(500 * MS)))
]


@pytest.mark.parametrize(("way", "policy"), WAYS, ids=[f"{w.__name__} {p}" for w, p in WAYS])
@pytest.mark.parametrize("away", [1 * MS, 30 * MS, 200 * MS, 5000 * MS])
def test_a_timer_fires_once_and_when_it_is_due(
    away: int, way: Away, policy: TimePolicy, tmp_path: Path
) -> None:
    clock = VirtualTime()
    with Host(clock=clock, tb_origin=ORIGINS[0]) as home, Host(clock=clock, tb_origin=ORIGINS[1]) as other:
        guest = home.boot(timer_guest(), memory="1M", tb_offset=5 << 50)
        guest.run_for(Ticks(ARMED_AT))
        assert guest.get("R5") == 0
        due = GuestTime(guest.get("DEC_EXPIRY"))
        assert 0 <= (due - GuestTime(guest.get("R8") + DISTANCE)).value + STEP <= STEP

        guest, record = way(guest, other, Ticks(away), policy, tmp_path)

        assert GuestTime(guest.get("DEC_EXPIRY")) == due
        start = guest.timebase()
        # A move's answer to COMMIT flies while the guest may run already.
        late = (start - GuestTime(record.guest_tb_after)).value
        assert 0 <= late <= (away // 4 if way is moved else 0)
        fell_due = (due - start).value <= 0
        guest.run_for(Ticks(2 * DISTANCE))
        assert guest.get("R5") == 1
        came = (GuestTime(guest.get("R6")) - (start if fell_due else due)).value
        # An instruction of the handler after it came; one that is due at once comes with the entry.
        assert 0 <= came <= (8 * STEP if fell_due else 2 * STEP)
        guest.run_for(Ticks(4 * DISTANCE))
        assert guest.get("R5") == 1


@pytest.mark.parametrize(("way", "policy"), WAYS, ids=[f"{w.__name__} {p}" for w, p in WAYS])
def test_every_view_of_time_is_the_policys(way: Away, policy: TimePolicy, tmp_path: Path) -> None:
    clock = VirtualTime()
    facts = {"clock": clock, "cpu": "power8", "cores": 2, "threads": 2}
    with Host(tb_origin=ORIGINS[0], **facts) as home, Host(tb_origin=ORIGINS[1], **facts) as other:  # type: ignore[arg-type]
        guest = home.boot("demo-le.elf", memory="1M", smp=4, threads=2, tb_offset=7 << 50)
        guest.run_for(Ticks(20 * MS))
        for _ in range(2):
            running = {
                (name, cpu): guest.get(name, cpu) for name in ("VTB", "PURR", "SPURR") for cpu in range(4)
            }
            due = [guest.get("DEC_EXPIRY", cpu) for cpu in range(4)]
            before, day_before = guest.timebase(), guest.wall_clock.since_epoch()
            lead_before, tick_before = guest.ideal, clock.ticks()

            guest, record = way(guest, other, Ticks(100 * MS), policy, tmp_path)

            went = guest.timebase() - before
            # A move asks before it stops the guest, and is answered when it may run already.
            early = (GuestTime(record.guest_tb_before) - before).value
            late = (guest.timebase() - GuestTime(record.guest_tb_after)).value
            assert (early, late) == (0, 0) or way is moved
            away = went.value - early - late
            counted = policy.counted(clock.ticks() - late - early - tick_before)
            assert away >= 0
            assert abs(away - counted) <= GRANULE
            # The day goes on as the timebase does, and all virtual cores have one offset.
            assert guest.wall_clock.since_epoch() - day_before == went
            assert len({guest.get("TB_OFFSET", cpu) for cpu in range(4)}) == 1
            assert [guest.get("DEC_EXPIRY", cpu) for cpu in range(4)] == due
            # What counts running time is as it was.
            for (name, cpu), value in running.items():
                assert guest.get(name, cpu) == value
            assert record.counted_ticks == counted
            assert record.error_ticks == away - counted
            if way is not moved:
                assert guest.ideal.width == lead_before.width
                assert guest.ideal.least - lead_before.least == away - counted
            assert abs(guest.ideal.rounding.value) <= LIMIT
            home, other = other, home
        guest.console.type("q")
        assert guest.run(60).ok
        says = dict(pair.split("=") for pair in guest.console_text.split() if "=" in pair)
        assert says["back"] == says["back_between"] == says["lost"] == says["early"] == "0"
        assert says["expected"] == says["taken"]
        assert says["memory"] == "intact"


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, MASK64),
    st.lists(
        st.tuples(
            st.one_of(st.integers(0, MS), st.integers(0, 3000 * MS)),
            st.one_of(
                st.sampled_from([FREEZE, CATCH_UP]),
                st.builds(TimePolicy, st.integers(0, 100 * MS).map(Ticks)),
            ),
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_pauses_add_no_error_but_the_rounding(origin: int, pauses: list[tuple[int, TimePolicy]]) -> None:
    clock = VirtualTime()
    with Host(clock=clock, tb_origin=origin) as host:
        guest = host.boot("demo-le.elf", memory="1M")
        born, born_time, counted = clock.ticks(), guest.timebase(), 0
        away = 0
        for ticks, policy in pauses:
            guest.run_for(Ticks(MS))
            pause = Pause(guest)
            stopped = clock.ticks()
            clock.advance(ticks)
            before = pause.guest_time
            record = pause.resume(policy).record
            assert (GuestTime(record.guest_tb_after) - before).value >= 0
            away += record.elapsed_ticks
            counted += policy.counted(record.elapsed_ticks)
            assert record.elapsed_ticks == clock.ticks() - stopped
            lead = (guest.timebase() - born_time).value - (clock.ticks() - born - away + counted)
            assert guest.ideal.least == guest.ideal.most == lead
            assert abs(lead) <= LIMIT
            if all(of == CATCH_UP for _, of in pauses):
                assert lead == 0


class Stalling(VirtualTime):
    """A machine on which a thread is stopped for 4 s after one reading of a clock."""

    is_virtual = False
    readings_left = 0

    def ticks(self) -> SourceTime:
        now = super().ticks()
        self.readings_left -= 1
        self.advance(4000 * MS if self.readings_left == 0 else 1)
        return now

    def time_ns(self) -> int:
        return Ticks(self.ticks()).ns


def test_the_time_of_day_goes_on_with_the_timebase_whenever_the_machine_stalls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Stalling()
    monkeypatch.setattr("chronovisor.machine.wall_clock.time", clock)

    def ahead(guest: Guest) -> int:
        """The time of day less the guest's own time, in ticks."""
        clock.readings_left = 0
        tick = clock.ticks()
        return (guest.wall_clock.at(tick) - Ticks((guest.system.clock.at(tick) + guest.offset).value)).value

    with Host(clock=clock, tb_origin=ORIGINS[0]) as host, Host(clock=clock, tb_origin=ORIGINS[1]) as other:
        for reading in range(1, 100):
            guest = host.boot(timer_guest(), memory="1M")
            began = ahead(guest)
            clock.readings_left = reading
            Pause(guest).resume()
            assert abs(ahead(guest) - began) < 100
            clock.readings_left = reading
            snapshot(guest, tmp_path / "file")
            with opened(tmp_path / "file") as reader:
                restored = restore_from(reader, other)
            stalls = clock.readings_left <= 0
            assert abs(ahead(restored.guest) - began) < 100
            host.discard(guest)
            other.discard(restored.guest)
            if not stalls:
                break
        assert not stalls


def test_a_guest_that_ran_goes_on_and_one_that_did_not_stays() -> None:
    with Host(clock="real") as host:
        guest = host.boot("demo-le.elf", memory="1M")
        for runs in (False, True):
            if runs:
                guest.resume()
            pause = Pause(guest)
            assert not guest.running
            pause.resume()
            assert guest.running is runs
        guest.pause()


def test_a_guest_that_comes_paused_has_the_moments_of_its_pause() -> None:
    clock = VirtualTime()
    with Host(clock=clock, tb_origin=5) as host:
        guest = host.boot("demo-le.elf", "1M")
        assert guest.run_until("watching")
        pause = Pause(guest)
        clock.advance(5 * FREQUENCY)
        again = Pause.since(guest, pause.guest_time)
        assert again.stopped_at == pause.stopped_at
        assert again.guest_time == pause.guest_time
        assert again.machine_state().time_of_day == pause.machine_state().time_of_day


def test_an_owner_may_set_the_time_of_a_paused_guest() -> None:
    clock = VirtualTime()
    with Host(clock=clock) as host:
        guest = host.boot("demo-le.elf", memory="1M")
        pause = Pause(guest)
        clock.advance(100 * MS)
        guest.set("TB_OFFSET", 3 << 50)
        hop = pause.resume(FREEZE)
        assert hop.record.guest_tb_before == pause.stopped_at + (3 << 50)
        assert [hop.kind for hop in guest.history.hops] == [HopKind.SET, HopKind.RESUME]


def test_a_snapshot_of_a_paused_guest_is_of_when_it_was_paused(tmp_path: Path) -> None:
    clock = VirtualTime()
    with Host(clock=clock) as host, Host(clock=clock, tb_origin=ORIGINS[1]) as other:
        guest = host.boot("demo-le.elf", memory="1M")
        pause = Pause(guest)
        clock.advance(70 * MS)
        saved = snapshot(guest, tmp_path / "paused", pause)
        assert saved.header.guest_time == pause.guest_time
        assert not guest.running
        clock.advance(50 * MS)
        away = 120 * MS
        for policy, counts in ((FREEZE, False), (CATCH_UP, True)):
            assert clock.ticks() - pause.stopped_at == away
            with opened(tmp_path / "paused") as reader:
                restored = restore_from(reader, other, policy=policy)
            away += restored.plan.wait.value
            assert restored.hop.record.counted_ticks == (away if counts else 0)
            assert restored.hop.record.guest_tb_before == pause.guest_time.value
