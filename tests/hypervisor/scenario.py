"""A scenario that a seed draws, and its trace: several hosts, guests and virtual cores on one virtual clock.

As a program it prints the trace of a seed: `python tests/hypervisor/scenario.py SEED`.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator

from fleet import CEDE, PROD, READ, SPIN, TIMER, Fleet, Task

from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.timebase.facility import Tfmr
from chronovisor.timebase.types import Ticks

SHAPES = [("power8", 1, 2), ("power8", 2, 4), ("power9", 1, 1), ("power9", 2, 2)]
GUESTS = [(0, 4, 2), (0, 1, 1), (1, 4, 2), (2, 3, 1)]
"""Of each guest: its first host, its vCPUs, and the threads of a virtual core."""


class Scenario:
    """Draws steps and makes them."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        origins = [self._chance.getrandbits(64) for _ in SHAPES]
        self.fleet = Fleet(self._chance.getrandbits(64), origins, SHAPES, traced=True)
        for host, vcpus, threads in GUESTS:
            self.fleet.add_guest(host, vcpus, threads, self._chance.getrandbits(64))

    def trace(self, steps: int) -> Iterator[str]:
        """Make so many steps; yield all that happened to time in them, and what came of it."""
        fleet = self.fleet
        for number in range(steps):
            yield f"step {number} at {fleet.source.ticks()}"
            yield from self._step()
            for host, tick, event in fleet.trace:
                yield f"{tick} host {host} {event}"
            fleet.trace.clear()
        for number, guest in enumerate(fleet.guests):
            for vcpu in guest.vcpus:
                registers = [
                    hex(fleet.get(number, vcpu.id, name)) for name in ("TB_OFFSET", "DEC_EXPIRY", "VTB")
                ]
                yield f"guest {number} vCPU {vcpu.id} {' '.join(registers)}"
            yield f"guest {number} memory {hashlib.sha256(guest.memory.view).hexdigest()}"
        fleet.close()

    def _step(self) -> Iterator[str]:
        chance, fleet = self._chance, self.fleet
        guest = chance.randrange(len(GUESTS))
        match chance.randrange(8):
            case 0:
                for sibling in range(GUESTS[guest][1]):
                    fleet.set_offset(guest, sibling, chance.getrandbits(64))
            case 1:
                fleet.source.advance(chance.randrange(1 << 28))
            case 2:
                fleet.hypervisor(fleet.at[guest]).maintenance.fail_timebase(
                    0, Ticks(chance.getrandbits(40)), Tfmr.RESIDUE_ERROR
                )
            case 3:
                yield from self._move(guest)
            case _:
                yield from self._run(guest)

    def _move(self, guest: int) -> Iterator[str]:
        fleet = self.fleet
        if len({fleet.get(guest, vcpu, "TB_OFFSET") for vcpu in range(GUESTS[guest][1])}) > 1:
            return
        fleet.settle(guest)
        fleet.at[guest] ^= 1
        link = Link(seed=self._chance.getrandbits(32))
        fleet.guests[guest], record = move(fleet.guests[guest], fleet.hosts[fleet.at[guest]], link)
        yield f"guest {guest} moved {record.as_json()}"

    def _run(self, guest: int) -> Iterator[str]:
        chance, fleet = self._chance, self.fleet
        everyone = [(g, v) for g, (_, vcpus, _) in enumerate(GUESTS) for v in range(vcpus)]
        values = {READ: 0, TIMER: 1 << 24, CEDE: 1 << 22, SPIN: 3000, PROD: 3}
        tasks = []
        for at in chance.sample(everyone, chance.randint(1, len(everyone))):
            piece = chance.choice(list(values))
            tasks.append(Task(*at, piece, chance.randint(1, values[piece] or 1)))
        for _ in range(chance.randrange(4)):
            kicked = fleet.guests[tasks[0].guest].vcpus[tasks[0].vcpu]
            fleet.source.call_at(fleet.source.ticks() + chance.randrange(1 << 20), kicked.kick)
        hypervisor = fleet.hypervisor(fleet.at[guest])
        core, fails_at = chance.randrange(len(hypervisor.cores)), chance.randrange(1 << 16)
        fleet.source.call_at(
            fleet.source.ticks() + fails_at,
            lambda: hypervisor.maintenance.fail_timebase(core, Ticks(1 << 30)),
        )
        fleet.run(tasks)
        for task in tasks:
            yield f"{task}"


def trace_of(seed: int, steps: int = 40) -> str:
    """The trace of a seed's scenario."""
    return "\n".join(Scenario(seed).trace(steps))


if __name__ == "__main__":
    print(trace_of(int(sys.argv[1])))
