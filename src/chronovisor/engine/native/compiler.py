"""From declared instructions to machine code, compiled once and kept on disk.

What is compiled together is a *set*: the instructions whose static fields have few values, for one
machine mode. What is in no set is compiled when a guest first executes it.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import llvmlite
from llvmlite import binding as llvm
from llvmlite import ir

import chronovisor.isa
import chronovisor.isa.meanings
from chronovisor.engine.native.encoding import encoding
from chronovisor.engine.native.layout import Left
from chronovisor.engine.native.lowering import POINTER, Lowering
from chronovisor.engine.native.operations import is_native
from chronovisor.engine.native.runtime import (
    define_again,
    define_blank,
    define_clock,
    define_entry,
    define_leaving,
    define_retire,
)
from chronovisor.isa.forms import FIELDS
from chronovisor.isa.instruction import INSTRUCTIONS, Instruction
from chronovisor.isa.registers import SPR_READ, SPR_WRITE

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


#: The symbol of a set's table of handlers' addresses.
TABLE = "chronovisor_handlers"


def handlers_module(keys: Sequence[Key], mode: Mode) -> ir.Module:
    """A module of handlers, with a table of them: two a key, 0 where there is none.

    The second is for a jump within the instruction's own page. The table's last two entries are the first and
    the end of all code, which refers to no address outside itself.
    """
    module = ir.Module("handlers")
    module.triple = llvm.get_process_triple()
    entries: list[ir.Constant] = []
    begin = define_leaving(module, "chronovisor_begin", Left.SLOW)
    for key in keys:
        program = key[0].program(key[1], *mode)
        far = near = ir.Constant(POINTER, None)
        if is_native(program):
            layout = encoding(program)
            far = Lowering(module, symbol(key), program, layout, mode[1]).function.bitcast(POINTER)
            if layout.target is not None:
                layout = encoding(program, near=True)
                near = Lowering(module, symbol(key) + "_near", program, layout, mode[1]).function.bitcast(
                    POINTER
                )
        entries += (far, near)
    end = define_leaving(module, "chronovisor_end", Left.SLOW)
    entries += (begin.bitcast(POINTER), end.bitcast(POINTER))
    table = ir.GlobalVariable(module, ir.ArrayType(POINTER, len(entries)), TABLE)
    table.initializer = ir.Constant(table.value_type, entries)
    return module


def runtime_module() -> ir.Module:
    """The module of the functions beside the handlers."""
    module = ir.Module("runtime")
    module.triple = llvm.get_process_triple()
    define_entry(module, define_clock(module))
    define_leaving(module, "chronovisor_slow", Left.SLOW)
    again = define_again(module)
    define_blank(module, define_leaving(module, "chronovisor_undecoded", Left.DECODE), again)
    define_retire(module, again)
    return module


@cache
def common_set() -> tuple[Key, ...]:
    """The instructions that are compiled beforehand."""
    return tuple((instruction, numbers) for instruction in INSTRUCTIONS for numbers in statics(instruction))


#: The modules that make code, besides the meanings.
_MAKERS = tuple(
    sys.modules[f"chronovisor.engine.native.{name}"]
    for name in ("compiler", "encoding", "layout", "lowering", "operations", "runtime")
)


@cache
def fingerprint() -> str:
    """What compiled code depends on: our sources of meanings and lowering, LLVM, and the processor."""
    digest = hashlib.sha256()
    isa = Path(chronovisor.isa.__path__[0]).rglob("*.py")
    for path in (*sorted(isa), *(Path(module.__file__ or "") for module in _MAKERS)):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    digest.update(repr((llvmlite.__version__, llvm.llvm_version_info)).encode())
    digest.update(llvm.get_host_cpu_name().encode())
    digest.update(llvm.get_host_cpu_features().flatten().encode())
    return digest.hexdigest()[:32]
