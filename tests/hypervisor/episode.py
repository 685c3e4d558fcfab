"""The parts of a history: episodes, each a story that goes well with a guard and wrong without it."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from little_guests import run_together

from chronovisor.hypervisor.dispatch_log_writer import DispatchLogWriter
from chronovisor.hypervisor.exits import Exit, Hypercall
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.papr.vpa import VPA_ENQUEUE_DISPATCH_TB
from chronovisor.timebase.types import GuestTime


class Episode:
    """A mistake that was made once: a story in which an invariant holds, and `without` the guard of it."""

    goes_wrong: ClassVar[str]
    """The complaint of the story without the guard."""

    def story(self) -> None:
        """Go through it; AssertionError if it goes wrong."""
        raise NotImplementedError

    def without(self, patch: pytest.MonkeyPatch) -> None:
        """Take the guard out."""
        raise NotImplementedError

    def test_it_holds(self) -> None:
        self.story()

    def test_it_goes_wrong_without_its_guard(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.without(monkeypatch)
        with pytest.raises(AssertionError, match=self.goes_wrong):
            self.story()


def take_out(
    patch: pytest.MonkeyPatch, owner: type, name: str, *guards: tuple[str, str], **more: object
) -> None:
    """Take guards out of the production method `name`: compile its source with other text in their place.

    Each guard is its text, which must occur once, and the text to put there; `more` are names for that.
    """
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    for guard, instead in guards:
        assert source.count(guard) == 1, f"{owner.__name__}.{name} has no such guard: {guard!r}"
        source = source.replace(guard, instead)
    names = {**function.__globals__, **more}
    exec(compile(source, f"<{name} without its guard>", "exec"), names)
    patch.setattr(owner, name, names[name])


def ended(vcpu: VirtualCpu) -> tuple[int, ...]:
    """Run the vCPU to a hypercall for user space; return r4 and on."""
    exit_ = vcpu.run()
    assert isinstance(exit_, Hypercall), exit_
    return exit_.args


def one_run_each(vcpus: list[VirtualCpu]) -> dict[int, Exit]:
    """Run each vCPU once, together; return how each run ended."""
    ends: dict[int, Exit] = {}

    def one_run(vcpu: VirtualCpu, exit_: Exit) -> bool:
        ends[vcpu.number] = exit_
        return False

    run_together(vcpus, one_run)
    return ends


def counted(patch: pytest.MonkeyPatch, change: Callable[[int, int], int]) -> None:
    """Have the counter of waits become `change` of what it was and what it would be."""
    dispatched = DispatchLogWriter.dispatched

    def changed(self: DispatchLogWriter, *how: Any) -> GuestTime | None:
        areas, memory = self._vcpu.areas, self._vcpu.memory
        at = areas.vpa.in_use + VPA_ENQUEUE_DISPATCH_TB.offset
        before = memory.load(at, 8, little=False)
        moment = dispatched(self, *how)
        if areas.vpa.in_use:
            memory.store(at, 8, change(before, memory.load(at, 8, little=False)), little=False)
        return moment

    patch.setattr(DispatchLogWriter, "dispatched", changed)
