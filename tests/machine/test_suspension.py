"""A guest that suspends itself for a move: H_VASI_STATE, H_JOIN, ibm,suspend-me and H_PROD."""

from __future__ import annotations

import pytest
from elf_files import program
from fake_kvm import call, scripted_guest

from chronovisor.machine import EndReason, Host
from chronovisor.machine.entry import MSR_EE
from chronovisor.machine.hypercall_answers import answer_hypercall
from chronovisor.machine.suspension import Suspension, VasiState
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.papr.hcalls import Hcall, Status

STREAM = 0x7EED_0000_0001
JOINER = program("""
    lis r4,start@h; ori r4,r4,start@l
    bl rtas
    li r31,0
    b work
second: li r31,1
work: li r3,0x298
    sc 1
    cmpdi r3,18
    bne waited
ask: li r4,0x7eed; sldi r4,r4,32; ori r4,r4,1
    li r3,0x2a4
    sc 1
    cmpdi r4,3
    bne ask
    lis r4,suspend@h; ori r4,r4,suspend@l
    bl rtas
    li r6,0x53; sldi r6,r6,56
    li r3,0x58; li r4,0; li r5,1
    sc 1
    li r3,0xe8; li r4,1; subf r4,r31,r4
    sc 1
    b .
waited: li r6,0x57; sldi r6,r6,56
    li r3,0x58; li r4,0; li r5,1
    sc 1
    lis r4,off@h; ori r4,r4,off@l
    bl rtas
    b .
rtas: lis r3,0; ori r3,r3,0xf000
    sc 1
    blr
    .balign 8
suspend: .byte 0,0,0x20,0x13, 0,0,0,0, 0,0,0,1
    .space 4
off: .byte 0,0,0x20,2, 0,0,0,2, 0,0,0,1
    .space 12
start: .byte 0,0,0x20,5, 0,0,0,3, 0,0,0,1, 0,0,0,1
       .byte (second >> 24) & 255, (second >> 16) & 255, (second >> 8) & 255, second & 255, 0,0,0,0
       .space 4
""")
"""Both vCPUs make H_JOIN. The last one suspends the guest, prints `S` and wakes the other: that prints W."""


@pytest.mark.parametrize("clock", ["real", "virtual"])
def test_a_guest_moves_inside_its_call_and_wakes_the_others_there(clock: str) -> None:
    with (
        Host(clock=clock, cores=2) as host,
        Host(clock=host.clock.source, cores=2, tb_origin=9 << 50) as other,
    ):
        guest = host.boot(JOINER, smp=2)
        guest.resume()
        moved, _ = move(guest, other, Link(), stream=STREAM)
        assert guest.console_text in ("", "S", "SW")
        assert moved.run(60).reason is EndReason.POWER_OFF
        assert moved.console_text == "SW"
        # H_PROD is the kernel's half's again.
        assert moved.platform.joined == (False, False)


def test_a_stream_has_a_state_while_its_move_lasts() -> None:
    guest, _ = scripted_guest([])
    caller = guest.platform.processor(0)
    assert caller is not None

    def asked(stream: int) -> tuple[int, list[int]]:
        exit_ = call(Hcall.VASI_STATE, stream)
        answer_hypercall(guest.platform, caller, exit_)
        return exit_.ret, list(exit_.results)

    assert asked(STREAM) == (Status.PARAMETER, [])
    request = guest.platform.suspension = Suspension(STREAM)
    assert asked(STREAM) == (Status.SUCCESS, [VasiState.ENABLED])
    assert asked(STREAM + 1) == (Status.PARAMETER, [])
    assert not request.suspend()
    request.begin()
    assert asked(STREAM) == (Status.SUCCESS, [VasiState.SUSPENDING])
    assert not request.end()
    assert asked(STREAM) == (Status.SUCCESS, [VasiState.ABORTED])
    assert not request.suspend()


def test_joining_needs_interrupts_off() -> None:
    guest, (vcpu,) = scripted_guest([])
    vcpu.regs.msr = MSR_EE
    caller = guest.platform.processor(0)
    assert caller is not None
    exit_ = call(Hcall.JOIN)
    answer_hypercall(guest.platform, caller, exit_)
    assert exit_.ret == Status.BAD_MODE
    vcpu.regs.msr = 0
    answer_hypercall(guest.platform, caller, exit_)
    assert exit_.ret == Status.CONTINUE
