"""The sources of interrupts that devices have: RTAS directs them, input raises one, moves carry them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from elf_files import program
from fake_kvm import call

from chronovisor.kvm.ids import XicsSource
from chronovisor.kvm.registers import read_register
from chronovisor.machine import Guest, Host
from chronovisor.machine.hypercall_answers import answer_hypercall
from chronovisor.machine.interrupt_sources import CONSOLE, LEAST_FAVORED
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.papr.hcalls import Hcall, Status

LOOP = program("b .")


@pytest.fixture
def guest() -> Iterator[Guest]:
    with Host(clock="virtual", cores=2) as host:
        yield host.boot(LOOP, smp=2)


def shown(guest: Guest, vcpu: int) -> int:
    """The number of the interrupt that the vCPU's presenter shows; 0 if none."""
    return read_register(guest.vcpus[vcpu], "ICP_STATE") >> 32 & 0xFF_FFFF


def let_in(guest: Guest, vcpu: int) -> None:
    guest.set("ICP_STATE", LEAST_FAVORED << 56 | LEAST_FAVORED << 24, vcpu)


def test_input_interrupts_the_vcpu_that_was_chosen_once_it_is_let_through(guest: Guest) -> None:
    sources = guest.platform.interrupts
    for vcpu in range(2):
        let_in(guest, vcpu)
    guest.console.type("x")
    assert [shown(guest, vcpu) for vcpu in range(2)] == [0, 0]
    sources.direct(CONSOLE, 1, 5)
    assert [shown(guest, vcpu) for vcpu in range(2)] == [0, CONSOLE]
    assert sources.target(CONSOLE) == (1, 5)


def test_a_masked_source_keeps_its_priority_and_its_interrupt(guest: Guest) -> None:
    sources = guest.platform.interrupts
    let_in(guest, 0)
    sources.direct(CONSOLE, 0, 5)
    sources.mask(CONSOLE, True)
    assert sources.target(CONSOLE) == (0, LEAST_FAVORED)
    guest.console.type("x")
    assert shown(guest, 0) == 0
    sources.mask(CONSOLE, False)
    assert sources.target(CONSOLE) == (0, 5)
    assert shown(guest, 0) == CONSOLE


def test_h_vio_signal_turns_the_interrupt_off_and_on(guest: Guest) -> None:
    let_in(guest, 0)
    guest.platform.interrupts.direct(CONSOLE, 0, 5)
    caller = guest.platform.processor(0)
    assert caller is not None
    for args, status in (
        ((0x7100_0000, 2), Status.PARAMETER),
        ((0x7100_0009, 0), Status.PARAMETER),
        ((0x7100_0000, 0), Status.SUCCESS),
    ):
        asked = call(Hcall.VIO_SIGNAL, *args)
        answer_hypercall(guest.platform, caller, asked)
        assert asked.ret == status
    guest.console.type("x")
    assert shown(guest, 0) == 0
    answer_hypercall(guest.platform, caller, call(Hcall.VIO_SIGNAL, 0x7100_0000, 1))
    guest.console.type("y")
    assert shown(guest, 0) == CONSOLE


@pytest.mark.parametrize("accepted", [False, True])
def test_a_move_carries_a_source_and_the_interrupt_that_is_shown(guest: Guest, accepted: bool) -> None:
    let_in(guest, 1)
    guest.platform.interrupts.direct(CONSOLE, 1, 5)
    guest.platform.console_signals = False
    guest.platform.nvram.write(500, b"kept")
    guest.platform.interrupts.pulse(CONSOLE)
    xics = guest.vm._machine.xics  # type: ignore[attr-defined]
    if accepted:
        assert xics.accept(xics.presenters[1]) == (LEAST_FAVORED << 24) | CONSOLE
    with Host(clock=guest.system.clock.source, cores=2) as other:
        moved, _ = move(guest, other, Link())
        assert moved.platform.interrupts.target(CONSOLE) == (1, 5)
        assert shown(moved, 1) == (0 if accepted else CONSOLE)
        state = dict(moved.platform.interrupts.states)[CONSOLE]
        assert bool(state & XicsSource.PRESENTED)
        assert not moved.platform.console_signals
        assert moved.platform.nvram.read(500, 4) == b"kept"


def test_a_reset_masks_the_sources(guest: Guest) -> None:
    guest.platform.interrupts.direct(CONSOLE, 1, 5)
    guest.platform.reset()
    assert guest.platform.interrupts.target(CONSOLE) == (0, LEAST_FAVORED)
