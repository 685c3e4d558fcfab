"""A guest is put together in one order, and each step can be taken once."""

from __future__ import annotations

import pytest

from chronovisor.kvm.errors import KvmError
from chronovisor.machine import vcpu_state
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.migration import restoration
from chronovisor.migration.errors import RestorationError
from chronovisor.migration.restoration import Clocked, Loaded, Restored, load
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.types import GRANULE, Offset

ORIGIN = 1 << 60
OFFSET = Offset((1 << 50) // GRANULE * GRANULE)


def stopped(clock: VirtualTime) -> Guest:
    guest = Host(clock=clock, cores=2).boot("demo-le.elf", memory="1M", smp=2)
    assert guest.run_until("watching")
    return guest


def into_another(clock: VirtualTime, guest: Guest) -> tuple[Guest, Loaded]:
    other = Host(clock=clock, tb_origin=ORIGIN, cores=2).prepare("1M", 2)
    other.memory.write(0, guest.memory.view)
    return other, load(other, guest.machine_state, [vcpu_state.save(vcpu) for vcpu in guest.vcpus])


def test_the_clock_then_the_deadlines_then_the_vcpus() -> None:
    clock = VirtualTime()
    guest = stopped(clock)
    other, loaded = into_another(clock, guest)
    clocked = loaded.set_clock(OFFSET)
    assert other.get("TB_OFFSET", 1) == OFFSET.value
    restored = clocked.set_deadlines()
    for vcpu in range(2):
        assert other.get("DEC_EXPIRY", vcpu) == guest.get("DEC_EXPIRY", vcpu)
    assert restored.release() is other
    assert not other.running


def test_no_step_is_there_before_the_one_before_nor_twice() -> None:
    clock = VirtualTime()
    _, loaded = into_another(clock, stopped(clock))
    assert not hasattr(loaded, "set_deadlines")
    assert not hasattr(loaded, "release")
    clocked = loaded.set_clock(OFFSET)
    assert not hasattr(clocked, "release")
    restored = clocked.set_deadlines()
    restored.release()
    for again in (lambda: loaded.set_clock(OFFSET), clocked.set_deadlines, restored.release):
        with pytest.raises(RestorationError, match="taken already"):
            again()


def test_the_order_is_one_that_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline of a guest whose clock is set afterwards is shown as it was set: DEC is what moves."""
    written: list[str] = []
    write = restoration.write_register

    def noted(vcpu: object, name: str, value: int) -> None:
        written.append(name)
        write(vcpu, name, value)  # type: ignore[arg-type]

    monkeypatch.setattr(restoration, "write_register", noted)
    clock = VirtualTime()
    _, loaded = into_another(clock, stopped(clock))
    loaded.set_clock(OFFSET).set_deadlines()
    assert written == ["TB_OFFSET", "TB_OFFSET", "DEC_EXPIRY", "DEC_EXPIRY"]


def test_what_was_saved_of_other_vcpus_is_refused() -> None:
    clock = VirtualTime()
    guest = stopped(clock)
    other = Host(clock=clock, cores=2).prepare("1M", 2)
    saved = [vcpu_state.save(vcpu) for vcpu in guest.vcpus]
    with pytest.raises(ValueError, match="zip"):
        load(other, guest.machine_state, saved[:1])


def test_a_clock_that_is_refused_leaves_no_guest_that_could_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = VirtualTime()
    _, loaded = into_another(clock, stopped(clock))

    def refuse(*_: object) -> None:
        raise KvmError(22, "no")

    monkeypatch.setattr(restoration, "write_register", refuse)
    with pytest.raises(KvmError):
        loaded.set_clock(OFFSET)
    with pytest.raises(RestorationError):
        loaded.set_clock(OFFSET)
    assert {Loaded, Clocked, Restored} == set(restoration._Step.__subclasses__())
