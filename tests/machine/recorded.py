"""What was recorded is done again, and compared."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from threading import Event

from chronovisor.machine import vcpu_state
from chronovisor.machine.vcpu_state import VcpuState
from chronovisor.migration.recording import Recording
from chronovisor.timebase.types import Ticks

_TIME_IN_GUEST = ("PURR", "SPURR", "VTB")


def assert_it_repeats_itself(recording: Recording) -> int:
    """Have every stretch but the last done again, compare its end with the next one's beginning, and return
    how many there were.
    """
    present = recording.clock.ticks()
    for n in range(recording.past.first, recording.past.last):
        stretch, following = recording.past.stretch(n), recording.past.stretch(n + 1)
        past = recording.guest_at(n)
        assert stretch.end is not None
        if not stretch.offset.value:
            if stretch.end != stretch.tick:
                past.run_for(Ticks(stretch.end - stretch.tick))
        elif any(stretch.executed):
            # Leaving the guest takes time, and is in the stretch: when it was told to leave is not known.
            stopped = Event()
            past.vm.course.repeat(sum(stretch.executed))
            past.on_debug_exit = lambda vcpu, exit_, stopped=stopped: stopped.set()  # type: ignore[misc]
            past.run_while(lambda stopped=stopped: not stopped.is_set())  # type: ignore[misc]
        left_out = _TIME_IN_GUEST if stretch.offset.value else ()
        vcpus, expected = (
            tuple(_without(left_out, state) for state in states)
            for states in ([vcpu_state.save(vcpu) for vcpu in past.vcpus], following.vcpus)
        )
        memory = past.memory
        changed = [p for p, held in recording.past.pages.at(n + 1) if memory.read(p << 12, 4096) != held]
        assert (n, vcpus, changed) == (n, expected, [])
        # Input that came at the end is what differs, and the time that a move has rounded.
        found = past.machine_state
        sources = following.machine if past.console.typed == following.typed else found
        time = following.machine if stretch.host == following.host else found
        assert found == replace(
            following.machine, history=past.history, sources=sources.sources, time_of_day=time.time_of_day
        )
        past.close()
    recording.clock.rewind(present)
    return recording.past.last - recording.past.first


def _without(registers: Collection[str], state: VcpuState) -> VcpuState:
    kept = {name: value for name, value in state.one_regs.items() if name not in registers}
    return replace(state, one_regs=kept)
