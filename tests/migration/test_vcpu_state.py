"""What a move carries of a vCPU: every register that can hold something of the guest's."""

from __future__ import annotations

from timer_guest import Elf, Part

from chronovisor.isa.assembly import assemble
from chronovisor.kvm.ids import ONE_REGS
from chronovisor.kvm.interface import HostOptions, Vcpu
from chronovisor.kvm.provider import open_system
from chronovisor.kvm.registers import read_register, write_register
from chronovisor.machine import vcpu_state
from chronovisor.machine.host import Host
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.types import Ticks


def new_vcpu() -> Vcpu:
    return open_system(HostOptions(VirtualTime(), engine="concrete")).create_vm().create_vcpu(0)


def test_floating_point_and_vector_registers_are_all_there_afterwards() -> None:
    source, destination = new_vcpu(), new_vcpu()
    files = ("VSR", "VR", "FPR")
    names = [r.name for r in ONE_REGS if r.name.rstrip("0123456789") in files]
    assert len(names) == 96
    for number, name in enumerate((name for name in names if not name.startswith("FPR")), 1):
        write_register(source, name, (number << 120) | (0x0123_4567_89AB_CDEF << 32) | number)
    vcpu_state.load(destination, vcpu_state.save(source))
    for name in names:
        assert read_register(destination, name) == read_register(source, name) != 0, name


def test_psscr_reads_the_same_after_a_move() -> None:
    origin = 0x10000
    # r6 is what PSSCR reads at home, r7 what it reads now; r8 counts readings.
    code = "li r5,-1; mtspr 823,r5; mfspr r6,823; again: mfspr r7,823; addi r8,r8,1; b again"
    image = Elf([Part(assemble(code, origin), origin)], origin, little=False).build()
    clock = VirtualTime()
    home, away = (Host(clock=clock, tb_origin=each, engine="concrete") for each in (0, 5 << 50))
    guest = home.boot(image, "1M")
    guest.run_for(Ticks(1 << 16))
    written, counted = guest.get("R6"), guest.get("R8")
    assert written == guest.get("PSSCR") != 0
    assert counted > 10
    arrived = move(guest, away, Link([Ticks(1000)]))[0]
    arrived.run_for(Ticks(1 << 16))
    assert arrived.get("R7") == written
    assert arrived.get("R8") > counted
