"""In virtual time the decrementer's interrupt comes before the same instruction in every engine, and each
reads the same times.
"""

from __future__ import annotations

import random
import time

import pytest
from little_guests import RFID, Guest, addi, bdnz, branch, lis, mfdec, mftb, mr, mtdec, mtmsrd_ee, spin

from chronovisor.engine.concrete import ConcreteEngine
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.layout import PAGE_SHIFT
from chronovisor.engine.native.library import library
from chronovisor.engine.native.state import NativeThread
from chronovisor.engine.regions.compile import WantedRegion, compile_region
from chronovisor.engine.regions.engine import RegionEngine
from chronovisor.engine.regions.placing import load, put_in
from chronovisor.hypervisor.exits import Kicked
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.isa.assembly import assemble
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.timebase.clock import RealTime, TickSource, VirtualTime

ENGINES = (ConcreteEngine, NativeEngine, RegionEngine)
LOOP = 0x2000
ON, OFF = 30, 31
"""The registers that turn MSR[EE] on and off."""
#: r21 is a digest of the times at which interrupts came, r22 their number; the next comes by both.
_HANDLER = "mftb r10; mulld r21,r21,r29; xor r21,r21,r10; addi r22,r22,1; and r11,r21,r28; mtdec r11"
_DIGEST = "mulld r20,r20,r29; xor r20,r20,r10"


def words(text: str) -> list[int]:
    code = assemble(text, 0)
    return [int.from_bytes(code[at : at + 4], "big") for at in range(0, len(code), 4)]


def drawn_code(draw: random.Random) -> list[int]:
    """A loop that turns interrupts on and off, sets DEC, looks at DEC and TB, and counts in between."""
    pieces: list[list[int]] = []
    for _ in range(draw.randint(4, 20)):
        pieces.append(
            draw.choice(
                [
                    [mtmsrd_ee(ON)],
                    [mtmsrd_ee(ON)],
                    [mtmsrd_ee(OFF)],
                    [
                        lis(10, draw.choice((0, 0, 1, 16, -1, -2))),
                        addi(10, 10, draw.randint(-5, 500)),
                        mtdec(10),
                    ],
                    [mftb(10), *words(_DIGEST)],
                    [mfdec(10), *words(_DIGEST)],
                    # PURR and SPURR.
                    words(f"mfspr r10,309; {_DIGEST}; mfspr r10,308; {_DIGEST}"),
                    spin(draw.choice((1, 2, 30, 400))),
                    [*spin(draw.choice((30, 400)))[:2], *[mr(11, 10)] * 9, bdnz(-9)],
                    [*spin(draw.choice((30, 400)))[:2], *[mr(11, 10)] * 9, bdnz(-9)],
                    [mr(11, 10)] * draw.randint(1, 40),
                    # Left to the concrete evaluator in any engine.
                    words("dadd f3,f1,f2"),
                ]
            )
        )
    loop = [word for piece in pieces for word in piece]
    return [*loop, branch(-len(loop))]


def course(engine: type[ConcreteEngine], seed: int) -> tuple[list[object], VirtualCpu]:
    """What a guest looks like whenever its run is ended, at drawn ticks."""
    draw = random.Random(seed)
    step = draw.choice((1, 3, 256, 1 << 24))
    large = draw.random() < 0.5
    source = VirtualTime()
    guest = Guest(Hypervisor(source, draw.getrandbits(60), ticks_per_instruction=step, engine=engine))
    guest.code(0x900, [*words(_HANDLER), RFID])
    vcpu = guest.vcpu(0, guest.code(LOOP, drawn_code(draw)))
    if large:
        vcpu.vcore.lpcr |= int(LPCR.LD)
    vcpu.state.set_msr(vcpu.state.MSR | int(MSR.FP))
    gpr = vcpu.state.gpr
    gpr[ON], gpr[OFF] = int(MSR.EE | MSR.RI), int(MSR.RI)
    gpr[29], gpr[28] = 0x9E3779B97F4A7C15, step * draw.choice((0, 7, 0xFF, 0x3FFF))
    seen: list[object] = []
    for number in range(12):
        if number == 1 and engine is RegionEngine:
            compile_loops(vcpu)
        source.call_at(
            source.ticks() + step * draw.randint(1, draw.choice((3_000, 3_000, 60_000))), vcpu.kick
        )
        ended = vcpu.run()
        state = vcpu.state
        assert isinstance(ended, Kicked)
        registers = (state.CIA, state.MSR, state.SRR0, state.SRR1, state.CTR, state.executed)
        seen.append((source.ticks(), vcpu.decrementer_expiry, *registers, *gpr))
    return seen, vcpu


def compile_loops(vcpu: VirtualCpu) -> None:
    """Put in the regions of the guest's inner loops now, not when they have been seen to be hot."""
    engine, state = vcpu.machine.engine, vcpu.state
    assert isinstance(engine, NativeEngine)
    assert isinstance(state, NativeThread)
    pages = engine.pages_of(state)
    home = pages.snapshot(LOOP >> PAGE_SHIFT)
    again = bdnz(-9).to_bytes(4, "little")
    hot = [offset for offset in range(0, 1 << PAGE_SHIFT, 4) if home.content[offset : offset + 4] == again]
    for offset in hot[:2]:
        region = compile_region(WantedRegion((True, True), {0: home.content}, offset))
        assert put_in(pages, {0: home}, load(region))


@pytest.mark.parametrize("part", range(4))
def test_every_engine_takes_the_same_course(part: int) -> None:
    library((True, True)).ensure()
    interrupts, in_regions, natively = 0, 0, dict.fromkeys(ENGINES, 0)
    for seed in range(20 * part, 20 * part + 20):
        courses = {engine: course(engine, seed) for engine in ENGINES}
        expected, vcpu = courses[ConcreteEngine]
        interrupts += vcpu.state.gpr[22]
        for engine, (seen, native) in courses.items():
            assert seen == expected, f"{engine.__name__}, seed {seed}"
            natively[engine] += native.state.entered_natively("DECREMENTER")
        in_regions += courses[RegionEngine][1].machine.engine.instructions.regions
    assert interrupts > 2_000
    assert in_regions > 100_000
    assert natively[ConcreteEngine] == 0
    # The others are those that come when native code cannot go on, or long after the decrementer expired.
    assert min(natively[NativeEngine], natively[RegionEngine]) > 0.9 * interrupts


@pytest.mark.parametrize("source", [VirtualTime(), RealTime()])
def test_native_code_reads_run_times_by_itself(source: TickSource) -> None:
    """They go on from where they stood when the vCPU left the guest, and nobody else reads them."""
    library((True, True)).ensure()
    guest = Guest(Hypervisor(source, 5 << 40, engine=NativeEngine))
    # The second of two readings of each is larger. r20 counts how often it is not.
    compared = "sub r12,r11,r10; srdi r12,r12,63; add r20,r20,r12"
    pairs = [f"mfspr r10,{number}; nop; mfspr r11,{number}; {compared}" for number in (308, 309)]
    # r21 is the last reading, which the next one follows.
    follows = "mfspr r10,309; sub r12,r10,r21; srdi r12,r12,63; add r20,r20,r12; mr r21,r10"
    loop = words("; ".join((*pairs, follows)))
    vcpu = guest.vcpu(0, guest.code(LOOP, [*loop, branch(-len(loop))]))
    assert isinstance(vcpu.state, NativeThread)
    last = runs = 0

    def interpreted() -> int:
        before = vcpu.state.interpreted
        source.call_at(source.ticks() + 500_000, vcpu.kick)
        assert isinstance(vcpu.run(), Kicked)
        return vcpu.state.interpreted - before

    deadline = time.monotonic() + 120
    # Until there are handlers.
    while interpreted() or last == vcpu.state.gpr[21]:
        assert time.monotonic() < deadline
        last = vcpu.state.gpr[21]
    while runs < 10:
        assert time.monotonic() < deadline
        if runs == 5 and last < 1 << 50:
            vcpu.purr.value, vcpu.spurr.value = 1 << 50, 1 << 52
        assert interpreted() < 10
        purr = vcpu.state.gpr[21]
        assert last <= purr <= vcpu.purr.value
        if last < purr:
            # A kick can come too early for a run.
            runs += 1
            assert vcpu.purr.value - purr < 50_000_000
        # It stands while the vCPU does not run.
        assert vcpu.purr.value == vcpu.purr.value
        last = purr
    assert last > 1 << 50
    assert vcpu.state.gpr[20] == 0
