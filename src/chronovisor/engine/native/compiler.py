"""From declared instructions to machine code, compiled once and kept on disk.

What is compiled together is a *set*: the instructions whose static fields have few values, for one
machine mode. What is in no set is compiled when a guest first executes it.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import llvmlite
from llvmlite import binding as llvm
from llvmlite import ir

import chronovisor.engine.native
import chronovisor.isa
from chronovisor.engine.native.layout import Left
from chronovisor.engine.native.lowering import Lowering, is_native
from chronovisor.engine.native.runtime import (
    declare_clock,
    define_blank,
    define_clock,
    define_entry,
    define_leaving,
    define_next_page,
)
from chronovisor.isa.forms import FIELDS
from chronovisor.isa.instruction import INSTRUCTIONS, Instruction
from chronovisor.isa.registers import SPR_READ, SPR_WRITE
from chronovisor.isa.values import Program

Key = tuple[Instruction, tuple[int, ...]]
Mode = tuple[bool, bool]

#: An instruction with more combinations of static fields than this is compiled for these values alone.
FEW = 64
COMMON: dict[str, tuple[int, ...]] = {
    "BO": (0, 2, 4, 8, 10, 12, 16, 18, 20),
    "BH": (0,),
    "FXM": (0xFF, *(1 << n for n in range(8))),
    "LEV": (0, 1),
}


def statics(instruction: Instruction) -> Iterator[tuple[int, ...]]:
    """The combinations of static fields that are compiled beforehand."""
    whole = [_values(name, instruction) for name in instruction.statics]
    if math.prod(map(len, whole)) > FEW and "SPR" not in instruction.statics:
        whole = [COMMON.get(n, ()) or v for n, v in zip(instruction.statics, whole, strict=True)]
        if math.prod(map(len, whole)) > FEW:
            return
    yield from itertools.product(*whole)


def _values(name: str, instruction: Instruction) -> Sequence[int]:
    if name == "SPR":
        return tuple(SPR_WRITE if instruction.mnemonic.startswith("mt") else SPR_READ)
    return range(1 << FIELDS[name].width)


def symbol(key: Key) -> str:
    """The name of a handler in its compiled set."""
    instruction, numbers = key
    number = INSTRUCTIONS.index(instruction)
    return "_".join(("i", str(number), *map(str, numbers)))


@cache
def target() -> llvm.TargetMachine:
    """This machine's code generator."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        opt=2, cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), reloc="pic"
    )


def compile_module(module: ir.Module) -> bytes:
    """Machine code of a module, as an object file."""
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    machine = target()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(parsed, builder)
    return bytes(machine.emit_object(parsed))


def handlers_module(programs: dict[str, Program], little: bool) -> ir.Module:
    """A module of handlers by their symbols."""
    module = ir.Module("handlers")
    module.triple = llvm.get_process_triple()
    clock = declare_clock(module)
    for name, program in programs.items():
        Lowering(clock, name, program, little)
    return module


def runtime_module() -> ir.Module:
    """The module of the functions beside the handlers."""
    module = ir.Module("runtime")
    module.triple = llvm.get_process_triple()
    define_entry(module, define_clock(module))
    define_leaving(module, "chronovisor_slow", Left.SLOW)
    define_blank(module, define_leaving(module, "chronovisor_undecoded", Left.DECODE))
    define_next_page(module)
    return module


def common_set(mode: Mode) -> dict[str, Program]:
    """The programs that are compiled together for a machine mode (64-bit, little-endian)."""
    programs: dict[str, Program] = {}
    for instruction in INSTRUCTIONS:
        for numbers in statics(instruction):
            program = instruction.program(numbers, *mode)
            if is_native(program):
                programs[symbol((instruction, numbers))] = program
    return programs


@cache
def fingerprint() -> str:
    """What compiled code depends on: our sources of meanings and lowering, LLVM, and the processor."""
    digest = hashlib.sha256()
    for package in (chronovisor.isa, chronovisor.engine.native):
        for directory in package.__path__:
            for path in sorted(Path(directory).rglob("*.py")):
                digest.update(path.name.encode())
                digest.update(path.read_bytes())
    digest.update(repr((llvmlite.__version__, llvm.llvm_version_info)).encode())
    digest.update(llvm.get_host_cpu_name().encode())
    digest.update(llvm.get_host_cpu_features().flatten().encode())
    return digest.hexdigest()[:32]
