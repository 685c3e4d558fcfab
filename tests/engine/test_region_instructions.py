"""Every instruction that fits into a region can be compiled as part of one."""

from __future__ import annotations

from typing import Literal

from llvmlite import binding as llvm

from chronovisor.engine.native import compiler
from chronovisor.engine.native.layout import PAGE_SHIFT
from chronovisor.engine.native.operations import LOWERINGS
from chronovisor.engine.regions.code import Code
from chronovisor.engine.regions.discovery import region_of
from chronovisor.engine.regions.lowering import define_region
from chronovisor.isa.assembly import assemble
from chronovisor.isa.instruction import Instruction

from .drawn import drawn

NOP = 0x60000000
CASES = 1_000


def test_each_instruction_that_fits_makes_valid_code() -> None:
    """An assertion in the compiling process would end the process."""
    seen: set[Instruction] = set()
    for case in drawn(11, CASES):
        order: Literal["little", "big"] = "little" if case.mode[1] else "big"
        page = b"".join(word.to_bytes(4, order) for word in (case.word, NOP, NOP))
        code = Code({0: page.ljust(1 << PAGE_SHIFT, b"\0")}, case.mode)
        if case.instruction in seen or not code[0].fits:
            continue
        seen.add(case.instruction)
        module = compiler.new_module("region")
        sites = {offset: code[offset] for offset in range(0, 12, 4)}
        define_region(module, case.mode, LOWERINGS, region_of(sites, [0]))
        llvm.parse_assembly(str(module)).verify()
    assert len(seen) > 750


def test_no_region_uses_registers_of_512_bits() -> None:
    """What a region calls preserves those of the processor that handlers are made for, and no others."""
    page = assemble("loop: dcbz 0,r3; bc 16,0,loop", 0).ljust(1 << PAGE_SHIFT, b"\0")
    code, module = Code({0: page}, (True, False)), compiler.new_module("region")
    define_region(
        module, (True, False), LOWERINGS, region_of({offset: code[offset] for offset in (0, 4)}, [0])
    )
    compiler.target()
    any_machine = llvm.Target.from_default_triple()
    assembly = any_machine.create_target_machine(cpu="znver4").emit_assembly(llvm.parse_assembly(str(module)))
    assert "%ymm" in assembly
    assert "%zmm" not in assembly
