"""A history of the timebase offset in Linux KVM (Book3S HV): its mistakes, and our guards against them.

Each episode is named after the change that corrected a mistake. It describes the mistake and states the
invariant. Its story runs twice: on this hypervisor as it is, and with the guard of the invariant taken out.

The following mistakes cannot happen here:

- 4.20 and 6.7: nested virtualization, in its first and second version (a guest's own guests, whose offset
  is the sum of two), and 5.3, *Clear pending decr exception on nested entry*, as far as that is about them:
  there are no nested guests. An episode below shows that a pending decrementer is never kept beside its
  expiry.
- `H_XIRR_X` of the XICS emulation, which still returns the host's timebase to the guest: the hypercall is
  not answered.
- 2022, the decrementer of the *host*, which wrapped if no timer was set: the host's timers are the machine's
  own. An episode below has the corresponding mistake.

`test_history_of_traps.py` has the mistakes that are still in the kernel.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from episode import Episode, counted, ended, one_run_each, take_out
from little_guests import (
    GRANULE,
    SECOND,
    Guest,
    Log,
    branch,
    hcall,
    li,
    lis,
    mfdec,
    mftb,
    mfvtb,
    mtdec,
    mtmsrd_ee,
    power8,
    spin,
    user_call,
)

from chronovisor.hypervisor import hypervisor as hypervisor_module
from chronovisor.hypervisor import scheduler, timer, virtual_cpu
from chronovisor.hypervisor.cede import Cede
from chronovisor.hypervisor.dispatch_log_writer import DispatchLogWriter
from chronovisor.hypervisor.exits import Exit, Hypercall, Kicked
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.maintenance import Maintenance
from chronovisor.hypervisor.scheduler import Parallel
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.hypervisor.world_switch import WorldSwitch
from chronovisor.isa.bits import LPCR
from chronovisor.machine import vcpu_state
from chronovisor.machine.host import Host as Machine
from chronovisor.migration import restoration
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.papr.hcalls import Hcall
from chronovisor.papr.vpa import VPA_ENQUEUE_DISPATCH_TB, DispatchReason
from chronovisor.processor.core import Core
from chronovisor.processor.cpu_model import POWER9
from chronovisor.proof.sabotage import OffsetReadAgain, SecondariesLetInEarly
from chronovisor.timebase import decrementer
from chronovisor.timebase import offset as switching
from chronovisor.timebase.clock import RealTime, VirtualTime
from chronovisor.timebase.decrementer import Decrementer
from chronovisor.timebase.facility import TB_ERRORS, TimerFacility
from chronovisor.timebase.offset import Switch
from chronovisor.timebase.trace import Event, HostTimeRestored, Tbu40Written, TimebaseRead, TimebaseReloaded
from chronovisor.timebase.types import GuestTime, Offset, Ticks

AHEAD = Offset(1 << 40)
"""An offset of 2147 seconds: far more than any timer here."""
FAR = 0x7FFF_FFFF
READER = [mftb(4), mfdec(5), mftb(6), *user_call(), branch(-5)]


class TestTimebaseOffset2013(Episode):
    """Linux 3.13, 93b0f4dc29c5, *Implement timebase offset for guests*.

    Before it a guest that was moved to another host saw that host's timebase, whatever it had seen before.
    Invariant: what an entry adds its exit takes away; guests read the host's time plus their offset, hosts
    their own.
    """

    goes_wrong = "host's timebase"

    def story(self) -> None:
        host = Hypervisor(VirtualTime(), origin=0x1234_5678)
        guest = Guest(host)
        vcpu = guest.vcpu(0, guest.code(0, READER))
        vcpu.set_offset(AHEAD)
        for _ in range(3):
            before = host.clock.now()
            assert 0 < (GuestTime(ended(vcpu)[0]) - (before + AHEAD)).value < 16 * 256
            assert not host.check_sync(), "the host's timebase is not its own after the exit"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Switch, "leave", lambda self, timebase, *_: timebase)


class TestDecrementerTimeoutsWithAnOffset2014(Episode):
    """2014, c5fb80d3b24f, *Fix decrementer timeouts with non-zero TB offset*.

    The entry path was reordered, and then read the expiry of the decrementer while the guest's timebase was
    loaded. Its users took it for host time. A guest that had moved slept far too long.
    Invariant: every timestamp is of a declared kind, and the expiry is host time because T is the host's by
    then.
    """

    goes_wrong = "slept"

    def story(self) -> None:
        source = VirtualTime()
        guest = Guest(Hypervisor(source))
        guest.code(0x900, user_call())
        vcpu = guest.vcpu(0, guest.code(0x1000, [li(7, 0x7000), mtdec(7), *hcall(Hcall.CEDE), branch(0)]))
        vcpu.set_offset(AHEAD)
        ended(vcpu)
        assert source.ticks() < 2 * 0x7000, "it slept for much longer than its timer"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        take_out(
            patch,
            WorldSwitch,
            "leave",
            (
                "        vcpu.end(stay, ended)\n",
                "        vcpu.end(stay, ended)\n"
                "        vcpu.timer.keep(stay.core.timebase, vcpu.vcore.offset, stay.entered_with, ended)\n",
            ),
        )


class TestVirtualTimebasePerSubcore2016(Episode):
    """Linux 4.9, 88b02cf97bb7, *VTB per subcore*.

    Each thread saved and loaded the virtual timebase, although a core has only one. So threads overwrote the
    counts of others, and guests reported lockups that did not exist.
    Invariant: only the primary loads and saves what its core has once.
    """

    goes_wrong = "virtual timebase"

    def story(self) -> None:
        source = VirtualTime()
        guest = Guest(power8(source), stride=2)
        work = [mftb(4), mfvtb(5), *spin(3000), mfvtb(6), mftb(7), *user_call()]
        worker = guest.vcpu(0, guest.code(0x1000, work))
        joiner = guest.vcpu(1, guest.code(0x2000, [*spin(3000), *user_call()]))
        ends: list[Exit] = []

        def run_joiner() -> None:
            ends.append(joiner.run())
            joiner.host.scheduler.unbind(joiner.seat)

        thread = threading.Thread(target=run_joiner, daemon=True)

        def join() -> None:
            joiner.host.scheduler.bind(joiner.seat)
            thread.start()

        source.call_at(500 * 256, join)
        begun, vtb_begun, vtb_over, over = ended(worker)[:4]
        thread.join(60)
        assert ends
        assert vtb_over - vtb_begun == over - begun - 2 * 256, "the virtual timebase lost time to a sibling"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        started = "vcore.run_time.start(now)"
        take_out(
            patch,
            WorldSwitch,
            "enter",
            (f"if is_primary:\n                    {started}", f"if True:\n                    {started}"),
        )


class TestTimebaseCorruptionOnHmiExit2016(Episode):
    """2016, fd7bacbca47a, *Fix TB corruption in guest exit path on HMI interrupt*.

    The firmware repaired a failed timebase to the host's time; the exit then took the guest's offset away
    from it. Invariant: only an applied offset is taken away, and a timebase is loaded afresh only while no
    offset is applied.
    """

    goes_wrong = "host's timebase"

    def story(self) -> None:
        source = VirtualTime()
        host = power8(source)
        guest = Guest(host)
        vcpu = guest.vcpu(0, guest.code(0, [*spin(100), *user_call()]))
        vcpu.set_offset(AHEAD)
        source.call_at(50 * 256, lambda: host.maintenance.fail_timebase(0, Ticks(12345)))
        ended(vcpu)
        assert not host.check_sync(), "the host's timebase is wrong by the guest's offset"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        take_out(patch, Maintenance, "_interrupt", ("stay is None or stay.host_timebase is not None", "True"))


class TestLargeDecrementer2017(Episode):
    """Linux 4.13, 2f2724630f7a and after, hosts and guests with POWER9's large decrementer.

    Its 56 bits were sign-extended from 32, so that a timer of more than four seconds went off at once or
    much later.
    Invariant: the width of DEC is what LPCR[LD] says.
    """

    goes_wrong = "decrementer"

    def story(self) -> None:
        host = Hypervisor(VirtualTime(), cpu_model=POWER9)
        guest = Guest(host)
        vcpu = guest.vcpu(0, guest.code(0, READER))
        vcpu.vcore.set_lpcr(int(LPCR.LD), int(LPCR.LD))
        expiry = GuestTime(1 << 45)
        vcpu.decrementer_expiry = expiry
        for _ in range(2):
            timebase, dec = ended(vcpu)[:2]
            assert dec + timebase + 256 == expiry.value, "the guest's decrementer lost its upper bits"
            assert vcpu.decrementer_expiry == expiry, "the decrementer's expiry lost its upper bits"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(virtual_cpu, "_LD", 0)


class TestDecrementerExpiryIsMoved2018(Episode):
    """2018, 5855564c8ab2, *Add "DEC_EXPIRY" register to the one_reg interface*.

    Nothing told a destination when the decrementer was to expire: it went off at a random moment, up to
    four seconds later on POWER8, up to 2.2 years on POWER9.
    Invariant: a move carries the expiry, in guest time; and never the register DEC, which ages on its way.
    """

    goes_wrong = "timer"

    def story(self) -> None:
        clock = VirtualTime()
        with Machine(clock=clock, tb_origin=5) as here, Machine(clock=clock, tb_origin=1 << 50) as there:
            guest = here.boot("demo-le.elf", "1M")
            expiry = guest.get("DEC_EXPIRY")
            guest, _ = move(guest, there, Link([Ticks(SECOND // 100)]))
            assert guest.get("DEC_EXPIRY") == expiry, "the guest's timer did not come along"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        write = restoration.write_register

        def all_but_the_expiry(vcpu: Any, name: str, value: int) -> None:
            if name != "DEC_EXPIRY":
                write(vcpu, name, value)

        patch.setattr(restoration, "write_register", all_but_the_expiry)


class TestDebugTriggerDoesNotResynchronise2018(Episode):
    """2018, *Handle debug trigger HMI separately*.

    Every maintenance interrupt was handled as if the timebase had been loaded afresh, also those of a
    debugger.
    Invariant: whether the timebase was touched is known, not supposed.
    """

    goes_wrong = "loaded afresh"

    def story(self) -> None:
        log, source = Log(), VirtualTime()
        host = power8(source, observer=log)
        guest = Guest(host)
        vcpu = guest.vcpu(0, guest.code(0, [*spin(100), *user_call()]))
        vcpu.set_offset(AHEAD)
        source.call_at(50 * 256, lambda: host.maintenance.trigger_debug(0))
        ended(vcpu)
        assert len(log.of(HostTimeRestored)) == 2, "the interrupt came to nothing"
        assert not log.of(TimebaseReloaded), "a timebase that was right was loaded afresh"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(TimerFacility, "errors", TB_ERRORS)


class TestSnapshotOfTheOffset2018(Episode):
    """2018, 57b8daa70a17, *Snapshot timebase offset on guest entry*.

    User space could set the offset through one thread while another ran, and the exit took the new one
    away.
    Invariant: what is taken away is what was added; a new offset holds from the next entry on.
    """

    goes_wrong = "host's timebase"

    def story(self) -> None:
        source = VirtualTime()
        host = power8(source)
        guest = Guest(host, stride=2)
        runner = guest.vcpu(0, guest.code(0, [*spin(1000), *user_call()]))
        sibling = guest.vcpu(1, 0)
        runner.set_offset(AHEAD)

        def set_meanwhile() -> None:
            with sibling.access():
                sibling.set_offset(Offset(5 * GRANULE))

        source.call_at(500 * 256, set_meanwhile)
        ended(runner)
        assert runner.vcore.offset == Offset(5 * GRANULE)
        assert not host.check_sync(), "the host's timebase is wrong by the difference of two offsets"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(hypervisor_module, "WorldSwitch", OffsetReadAgain)


class TestSecondariesWaitForTheSwitch2018(Episode):
    """2018, 57b8daa70a17, the other half: secondaries loaded DEC while the primary moved the
    timebase.

    Invariant: no thread uses the timebase of its core before the primary has made it the guest's.
    """

    goes_wrong = "read"

    def story(self) -> None:
        guest = Guest(power8(VirtualTime()), stride=2)
        vcpus = [guest.vcpu(n, guest.code(0x1000 * (n + 1), READER)) for n in (0, 1)]
        vcpus[0].set_offset(AHEAD)
        for exit_ in one_run_each(vcpus).values():
            assert isinstance(exit_, Hypercall)
            assert exit_.args[0] >= AHEAD.value, "a thread read the host's time in the guest"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(hypervisor_module, "WorldSwitch", SecondariesLetInEarly)


class TestSignExtensionOfDec2019(Episode):
    """Linux 5.3, *Sign-extend the decrementer value if not using the large decrementer*.

    POWER9's exit kept a 32-bit DEC zero-extended, so that a timer that was due expired eight seconds later.
    Invariant: DEC is signed in its own width.
    """

    goes_wrong = "due"

    def story(self) -> None:
        guest = Guest(Hypervisor(VirtualTime()))
        guest.code(0x900, [li(4, 0x900), *user_call()])
        enable = [li(8, -0x8000), mtmsrd_ee(8), li(4, 1), *user_call()]
        vcpu = guest.vcpu(0, guest.code(0x1000, [li(7, 100), mtdec(7), *spin(50), *enable]))
        vcpu.set_offset(AHEAD)
        assert ended(vcpu)[0] == 0x900, "a timer that was due is so no more"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(decrementer, "_sign_extended", lambda value, width: value & ((1 << width) - 1))


class TestNoStalePendingDecrementer2019(Episode):
    """Linux 5.3, 3c25ab35fbc8, *Clear pending decrementer exceptions on nested guest entry*.

    A bit marked a pending decrementer interrupt and stayed set when the timer was set anew: it kept a nested
    guest from ever running.
    Invariant: the expiry decides at each entry whether the interrupt is pending.
    """

    goes_wrong = "interrupt of a timer"

    def story(self) -> None:
        guest = Guest(Hypervisor(VirtualTime()))
        guest.code(0x900, [li(4, 0x900), *user_call()])
        enable = [*user_call(), *user_call(), li(8, -0x8000), mtmsrd_ee(8), li(4, 1), *user_call()]
        vcpu = guest.vcpu(0, guest.code(0x1000, [li(7, 10), mtdec(7), *spin(20), *enable]))
        # The second entry finds the timer expired.
        for _ in range(2):
            ended(vcpu)
        assert vcpu.timer.pending()
        vcpu.decrementer_expiry = GuestTime(vcpu.host.clock.now().value + SECOND)
        assert ended(vcpu)[0] == 1, "the interrupt of a timer came that was set anew"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        latched = "self.latched = deadline < now"
        take_out(patch, Decrementer, "load", (latched, latched.replace("=", "|=", 1)))


class TestDpdesIsMoved2019(Episode):
    """2019, *DPDES includes a pending doorbell*.

    A pending doorbell could not be read, and a move lost it.
    Invariant: a register shows the pending state. Guests have no doorbells here (`msgsndp` is off, as in KVM
    with one thread a core), so DPDES is the only state: it moves with the guest.
    """

    goes_wrong = "doorbell"

    def story(self) -> None:
        clock = VirtualTime()
        with Machine(clock=clock) as here, Machine(clock=clock, tb_origin=1 << 50) as there:
            guest = here.boot("demo-le.elf", "1M")
            guest.set("DPDES", 1)
            guest, _ = move(guest, there, Link([Ticks(SECOND // 100)]))
            guest.run_for(Ticks(SECOND // 1000))
            assert guest.get("DPDES") == 1, "the doorbell stayed behind"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        rest = tuple(register for register in vcpu_state.CARRIED if register.name != "DPDES")
        patch.setattr(vcpu_state, "CARRIED", rest)


class HypervisorDecrementer(Episode):
    """A virtual core that never leaves by itself, and another that waits for its core."""

    goes_wrong = "never got"

    def prepare(self, core: Core) -> None:
        """Change the core before the story."""

    def story(self) -> None:
        source = VirtualTime()
        host = power8(source, threads=1)
        self.prepare(host.cores[0])
        guest = Guest(host)
        hog = guest.vcpu(0, guest.code(0x1000, [branch(0)]))
        other = guest.vcpu(1, guest.code(0x2000, [*spin(100), *user_call()]))
        for vcpu in (hog, other):
            vcpu.set_offset(AHEAD)
            source.call_at(SECOND // 20, vcpu.kick)
        ends = one_run_each([hog, other])
        assert isinstance(ends[0], Kicked)
        assert isinstance(ends[1], Hypercall), "it never got the core"


class TestHdecIsNotOverAtTheEntry2020(Episode):
    """2020, proposed: the least HDEC to enter with raised from 512 ticks to 2048.

    An entry takes time. If HDEC ran out during an entry, the interrupt was lost and the host locked up.
    Invariant: a time slice begins when the guest does, so an entry cannot use it up.
    """

    goes_wrong = "got on"
    access = 3_000_000
    """Ticks: an entry of four such accesses takes longer than a time slice, and not too long to be sound."""

    def story(self) -> None:
        source = VirtualTime()
        guest = Guest(power8(source, threads=1, ticks_per_instruction=self.access))
        vcpus = [guest.vcpu(n, guest.code(0x1000 * (n + 1), [*spin(20), *user_call()])) for n in (0, 1)]
        for vcpu in vcpus:
            vcpu.set_offset(AHEAD)
            source.call_at(10 * SECOND, vcpu.kick)
        ends = one_run_each(vcpus)
        assert all(isinstance(exit_, Hypercall) for exit_ in ends.values()), "neither got on"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        take_out(
            patch,
            WorldSwitch,
            "enter",
            ("core = stay.core\n", "core, before = stay.core, self._source.ticks()\n"),
            ("time_slice_end(vcore, now)", "time_slice_end(vcore, before)"),
        )


class TestHdecIsEnabledBeforeItIsSet2020(HypervisorDecrementer):
    """Linux 5.10, LPCR[HDICE] set before HDEC.

    POWER8 and POWER9 do not raise the interrupt if HDEC runs out while it is disabled. A guest then kept its
    core for ever.
    Invariant: each look at HDEC shows whether the time is up, not only the moment at which it runs out.
    """

    def without(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Decrementer, "expired", False)


class _KeepsTheLast(Decrementer):
    """A decrementer that cannot be set."""

    def __setattr__(self, name: str, value: object) -> None:
        if name != "deadline" or not hasattr(self, name):
            super().__setattr__(name, value)


class TestHdecIsLoadedLastAtAnEntry2021(HypervisorDecrementer):
    """Linux 5.14, HDEC is set after the guest's LPCR, with other races at the entry.

    The value that the last entry had left in HDEC decided when the next guest's run ended.
    Invariant: each entry loads HDEC anew.
    """

    keeps_the_last = False

    def prepare(self, core: Core) -> None:
        if self.keeps_the_last:
            core.hypervisor_decrementer = _KeepsTheLast(core.timebase.clock)

    def without(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(self, "keeps_the_last", True)


class TestNobodyListensInsideTheSwitch2021(Episode):
    """2021, proposed and not merged: *sched_clock in the window in which the timebase is the guest's*.

    Tracing inside the entry read the clock while the timebase was foreign; the trace buffer saw time go
    back, and the host went down.
    Invariant: between the first access of a switch and its last nobody is called.
    """

    goes_wrong = "inside the switch"

    def story(self) -> None:
        source = VirtualTime()
        told: list[int] = []

        def listen(event: Event) -> None:
            if isinstance(event, TimebaseRead | Tbu40Written):
                told.append(source.ticks())

        host = power8(source, observer=listen)
        self.listen = listen
        guest = Guest(host)
        vcpu = guest.vcpu(0, guest.code(0, user_call()))
        vcpu.set_offset(AHEAD)
        ended(vcpu)
        per_switch = Counter(told)
        assert set(per_switch.values()) == {3}, "the observer was called inside the switch"

    listen: Callable[[Event], None]

    def without(self, patch: pytest.MonkeyPatch) -> None:
        recorded = switching._Recorded

        class Loud(list[Event]):
            def append(_, event: Event) -> None:
                self.listen(event)

        patch.setattr(switching, "_Recorded", lambda tb, seen: recorded(tb, Loud()))


class TestExpiryAndOffsetInAnyOrder2021(Episode):
    """Linux 5.17, 3c1a4322bba7, the expiry kept in guest time.

    Before it DEC_EXPIRY was converted by the offset of the moment, so that it was wrong unless TB_OFFSET
    was set first.
    Invariant: what is set and read as the expiry is guest time, in whatever order it and the offset are
    set.
    """

    goes_wrong = "expiry"

    def story(self) -> None:
        guest = Guest(Hypervisor(VirtualTime(), origin=99))
        vcpu = guest.vcpu(0, 0)
        expiry = GuestTime(0x1234_5678)
        vcpu.decrementer_expiry = expiry
        vcpu.set_offset(AHEAD)
        assert vcpu.decrementer_expiry == expiry, "the expiry moved as the offset was set behind it"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(timer, "rebased", lambda expiry, old, new: expiry)


class TestDeadlinesBeyondATimersRange2022(Episode):
    """2022, *decrementer storm*, and re-arming beyond what a timer can hold.

    A deadline too far away left no timer set; the decrementer wrapped, and interrupts came without an end.
    Invariant: a wait has an end of its own however far its deadline is, and looks again then.
    """

    goes_wrong = "too far"

    def story(self) -> None:
        waits = Parallel(RealTime())
        done = threading.Event()
        threading.Timer(0.05, lambda: (done.set(), waits.changed())).start()
        with waits.monitor:
            try:
                waits.wait(done.is_set, lambda: 1 << 100)
            except OverflowError:
                pytest.fail("the deadline is too far away for the machine's timers", pytrace=False)
        assert done.is_set()

    def without(self, patch: pytest.MonkeyPatch) -> None:
        class Endless:
            TIMEOUT_MAX = float("inf")
            RLock, Condition, local = threading.RLock, threading.Condition, threading.local

        patch.setattr(scheduler, "threading", Endless)

    def test_it_goes_wrong_without_its_guard(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.without(monkeypatch)
        with pytest.raises(pytest.fail.Exception, match=self.goes_wrong):
            self.story()


class TestDefaultExpiryInGuestTime2022(Episode):
    """Linux 6.1, 0a5bfb824a6e, *Fix decrementer migration*.

    5.17 initialised the expiry in host time although it now meant guest time, so that a guest that moved from
    a kernel without DEC_EXPIRY could hang. Invariant: a timer that nobody set is due once the guest has an
    offset.
    """

    goes_wrong = "slept"

    def story(self) -> None:
        source = VirtualTime()
        # DEC would be -T, which a guest may find to be four seconds ahead, or years.
        host = Hypervisor(source, origin=(1 << 63) + (1 << 31) + 1)
        guest = Guest(host)
        guest.code(0x900, user_call())
        vcpu = guest.vcpu(0, guest.code(0x1000, [*hcall(Hcall.CEDE), branch(0)]))
        vcpu.set_offset(Offset(1 << 32))
        ended(vcpu)
        assert source.ticks() < SECOND, "it slept for seconds with a timer that nobody set"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(VirtualCpu, "set_offset", lambda self, offset: self.vcore.set_offset(offset))


VPA, LOG = 0x8000, 0xA000


class Stolen(Episode):
    """Two virtual cores that compete for a core, and what one of them reads of its waits."""

    def story(self) -> None:
        source = VirtualTime()
        host = power8(source, threads=1)
        guest = Guest(host)
        hog = guest.vcpu(0, guest.code(0x1000, [branch(0)]))
        counter = VPA + VPA_ENQUEUE_DISPATCH_TB.offset
        code = [li(8, 0), 0x65080000, 0x61080000 | counter, ld_reversed(4, 8), *user_call()]
        waiter = guest.vcpu(1, guest.code(0x2000, code))
        waiter.areas.set_vpa(VPA)
        for vcpu in (hog, waiter):
            vcpu.set_offset(AHEAD)
        source.call_at(SECOND // 5, hog.kick)
        ends = one_run_each([hog, waiter])
        assert isinstance(ends[1], Hypercall)
        waited = Ticks(ends[1].args[0])
        assert Ticks.from_ns(9_900_000) < waited < Ticks.from_ns(12_000_000), (
            f"a time slice of 10 ms was stolen, and the guest was told of {waited}"
        )


def ld_reversed(rt: int, rb: int) -> int:
    """ldbrx rt,0,rb: what the hypervisor wrote, in its byte order."""
    return 0x7C000428 | (rt << 21) | (rb << 11)


class TestStolenTimeRestored2022(Stolen):
    """Linux 6.1, stolen time of POWER9 guests restored; VPA wait counters.

    5.17's new entry path counted no stolen time, so guests read none.
    Invariant: the time for which a runnable vCPU had no core is counted in the guest's VPA.
    """

    goes_wrong = r"told of Ticks\(0\)"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        counted(patch, lambda before, after: before)


class TestStealClockInTicks2024(Stolen):
    """Linux 6.9, the guest's steal clock: ticks taken for nanoseconds, so that half of it was shown.

    The mistake was the guest's.
    Invariant, on our side: the counters in the VPA are ticks of the timebase.
    """

    goes_wrong = "stolen"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        added = "VPA_ENQUEUE_DISPATCH_TB, dispatch.enqueued)"
        in_ns = "VPA_ENQUEUE_DISPATCH_TB, Ticks(dispatch.enqueued).ns)"
        take_out(patch, DispatchLogWriter, "_count", (added, in_ns), Ticks=Ticks)


class TestNoExitForATimerThatIsNoMore2024(Episode):
    """Linux 6.10, the revert of 180c6b072bf3, *skip DEC cancel*.

    A timer that was not cancelled when the guest continued ended its next run for nothing: 70 percent more
    exits.
    Invariant: a wait uses the present deadline, not an earlier one.
    """

    goes_wrong = "for nothing"

    def story(self) -> None:
        source = VirtualTime()
        host = power8(source)
        guest = Guest(host, stride=2)
        guest.code(0x900, user_call())
        vcpu = guest.vcpu(0, guest.code(0x1000, [lis(7, 0x0100), mtdec(7), *hcall(Hcall.CEDE), branch(0)]))
        sibling = guest.vcpu(1, 0)
        vcpu.set_offset(AHEAD)

        def set_back() -> None:
            with sibling.access():
                sibling.set_offset(AHEAD - Offset(GRANULE))

        source.call_at(1_000_000, set_back)
        waits = 0
        block = Cede._block

        def counting(self: Cede) -> DispatchReason | None:
            nonlocal waits
            waits += 1
            return block(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Cede, "_block", counting)
            ended(vcpu)
        assert source.ticks() > 2 * GRANULE
        assert waits == 1, "it woke for nothing at the moment that its timer had before"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        take_out(patch, Cede, "_block", ("self._timer.due)", "(lambda due: lambda: due)(self._timer.due()))"))
