"""What a move carries of a vCPU: every register that can hold something of the guest's."""

from __future__ import annotations

from chronovisor.kvm.ids import ONE_REGS
from chronovisor.kvm.interface import HostOptions, Vcpu
from chronovisor.kvm.provider import open_system
from chronovisor.kvm.registers import read_register, write_register
from chronovisor.migration import vcpu_state
from chronovisor.timebase.clock import VirtualTime


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
