"""Instructions that this machine has: native code does them as their programs say."""

from __future__ import annotations

from random import Random

import pytest

from chronovisor.engine.concrete import ConcreteEngine
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.hosted import hosts
from chronovisor.isa.bits import MSR

from .native_guest import KERNEL, Guest

RUNS = 40
FACILITY = int(MSR.VEC)


@pytest.mark.skipif(not hosts(), reason="this processor has no instructions for AES")
@pytest.mark.parametrize("name", sorted(hosts()))
def test_this_machines_instructions_compute_what_the_programs_say(name: str) -> None:
    text = f"{name} v3,v4" if name == "vsbox" else f"{name} v3,v4,v5"
    draw, results = Random(name), set()
    guests = [Guest(engine, text, msr=KERNEL | FACILITY) for engine in (ConcreteEngine, NativeEngine)]
    for _ in range(RUNS):
        sources = [draw.getrandbits(128) for _ in range(2)]
        found = []
        for guest in guests:
            thread = guest.thread()
            thread.vsr[36], thread.vsr[37] = sources
            guest.advance(thread, 1)
            found.append(thread.vsr[35])
        assert found[0] == found[1], f"{text} of {sources[0]:#034x}, {sources[1]:#034x}"
        results.add(found[0])
    assert len(results) == RUNS
