"""The exact course of a machine of the embedded provider."""

from __future__ import annotations

import random

from chronovisor.hypervisor.repetition import Repetition
from chronovisor.hypervisor.virtual_machine import VirtualMachine
from chronovisor.kvm.course import HiddenState, HostShape, Passed


class EmbeddedCourse:
    """`kvm.course.Course` over the embedded hypervisor."""

    def __init__(self, machine: VirtualMachine, generator: random.Random) -> None:
        self._machine = machine
        self._random = generator
        self._repetition: Repetition | None = None

    @property
    def host(self) -> HostShape:
        """The host on which the machine runs."""
        processor = self._machine.host.processor
        return HostShape(
            processor.clock.origin,
            processor.physical_cores,
            processor.threads_per_physical_core,
            processor.cpu_model.name,
            processor.ticks_per_instruction,
        )

    @property
    def stepping(self) -> frozenset[int]:
        """The vCPUs whose runs end after one instruction."""
        return frozenset(number for number, vcpu in self._machine.vcpus.items() if vcpu.debugged.single_step)

    def begin(self) -> HiddenState:
        """Have what follows depend on registers, memory and the state that is returned alone."""
        self._machine.engine.forget_translations()
        vcpus = self._machine.vcpus.values()
        for vcpu in vcpus:
            vcpu.begin_course()
        return HiddenState(
            tuple(vcpu.prodded for vcpu in vcpus),
            tuple(vcpu.state.reservation for vcpu in vcpus),
            self._random.getstate(),
            tuple(core.timebase.adjust for core in self._machine.host.cores),
        )

    def continue_from(self, hidden: HiddenState) -> None:
        """Give this machine what `begin` returned."""
        vcpus = self._machine.vcpus.values()
        for vcpu, prodded, reservation in zip(vcpus, hidden.prodded, hidden.reservations, strict=True):
            vcpu.state.reservation = reservation
            if prodded:
                vcpu.prod()
        self._random.setstate(hidden.random)
        for core, ahead in zip(self._machine.host.cores, hidden.timebases, strict=True):
            core.timebase.adjust = ahead

    def executed(self, vcpu: int) -> int:
        """How many instructions a vCPU has executed."""
        return self._machine.vcpus[vcpu].state.executed

    @property
    def total(self) -> int:
        """How many instructions all vCPUs have executed."""
        return sum(vcpu.state.executed for vcpu in self._machine.vcpus.values())

    def repeat(
        self,
        end: int | None = None,
        end_of: tuple[int, int] | None = None,
        passes_before: int | None = 0,
    ) -> None:
        """Say how the machine does again what it did."""
        repetition = self._repetition = Repetition(lambda: self.total)
        repetition.end, repetition.passes_before = end, passes_before
        if end_of is not None:
            repetition.end_of[end_of[0]] = end_of[1]
        for vcpu in self._machine.vcpus.values():
            vcpu.debugged.repetition = repetition

    @property
    def passed(self) -> Passed | None:
        """The last of them."""
        found = None if self._repetition is None else self._repetition.passed
        return None if found is None else Passed(*found)
