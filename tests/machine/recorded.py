"""What was recorded is done again, and compared."""

from __future__ import annotations

from dataclasses import replace

from chronovisor.machine import vcpu_state
from chronovisor.migration.recording import Recording
from chronovisor.timebase.types import Ticks


def assert_it_repeats_itself(recording: Recording) -> int:
    """Have every stretch but the last done again, compare its end with the next one's beginning, and return
    how many there were.
    """
    present = recording.clock.ticks()
    for n in range(recording.first, recording.last):
        stretch, following = recording.stretch(n), recording.stretch(n + 1)
        past = recording.guest_at(n)
        assert stretch.end is not None
        if stretch.end != stretch.tick:
            past.run_for(Ticks(stretch.end - stretch.tick))
        vcpus = tuple(vcpu_state.save(vcpu) for vcpu in past.vcpus)
        memory = past.memory
        changed = [p for p, held in recording.pages.at(n + 1) if memory.read(p << 12, 4096) != held]
        assert (n, vcpus, changed) == (n, following.vcpus, [])
        # Input that came at the end is what differs.
        sources = following.machine if past.console.typed == following.typed else past.machine_state
        assert past.machine_state == replace(following.machine, history=past.history, sources=sources.sources)
        past.close()
    recording.clock.rewind(present)
    return recording.last - recording.first
