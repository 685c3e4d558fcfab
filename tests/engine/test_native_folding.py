"""What the builder leaves out changes no result: each function is compiled twice, once without folding."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from random import Random

from llvmlite import binding as llvm
from llvmlite import ir

from chronovisor.engine.native import compiler
from chronovisor.engine.native.folding import FoldingBuilder

I1, I8, I64 = (ir.IntType(width) for width in (1, 8, 64))


def _drawn(b: ir.IRBuilder, function: ir.Function, draw: Random) -> None:
    """A function of two values: sums, choices and addresses, of constants and of what came before."""
    values: list[ir.Value] = list(function.args[:2])
    table = function.args[2]
    for _ in range(30):
        one, other = draw.choice(values), draw.choice(values)
        number = ir.Constant(I64, draw.choice((0, 1, 96, -96, 1 << 63, draw.getrandbits(64))))
        match draw.randrange(5):
            case 0:
                values.append(b.add(one, number))
            case 1:
                values.append(b.add(one, other))
            case 2:
                values.append(b.select(ir.Constant(I1, draw.randrange(2)), one, number))
            case 3:
                values.append(b.select(b.icmp_unsigned("<", one, other), number, other))
            case 4:
                offset = ir.Constant(I64, 8 * draw.randrange(3))
                place = b.gep(table, [offset], inbounds=True, source_etype=I8)
                values.append(b.xor(one, b.load(place, typ=I64)))
    result = values[0]
    for value in values:
        result = b.xor(b.mul(result, ir.Constant(I64, 3)), value)
    b.ret(result)


def _function(builder: Callable[[ir.Block], ir.IRBuilder], seed: int) -> tuple[int, list[int]]:
    """How many instructions a function has, and what it returns for some values."""
    module = compiler.new_module("drawn")
    kind = ir.FunctionType(I64, [I64, I64, ir.PointerType()])
    function = ir.Function(module, kind, "drawn")
    _drawn(builder(function.append_basic_block("entry")), function, Random(seed))
    linking = llvm.JITLibraryBuilder().add_object_img(compiler.compile_module(module)).export_symbol("drawn")
    library = linking.link(llvm.create_lljit_compiler(compiler.target(), use_jit_link=False), "drawn")
    call = ctypes.CFUNCTYPE(*[ctypes.c_uint64] * 3, ctypes.c_void_p)(library["drawn"])
    table, draw = (ctypes.c_uint64 * 3)(5, 6, 7), Random(seed)
    results = [call(draw.getrandbits(64), draw.getrandbits(64), ctypes.addressof(table)) for _ in range(5)]
    return sum(len(block.instructions) for block in function.blocks), results


def test_folding_changes_no_result() -> None:
    shorter = 0
    for seed in range(40):
        (plain, expected), (folded, found) = _function(ir.IRBuilder, seed), _function(FoldingBuilder, seed)
        assert found == expected, seed
        shorter += folded < plain
    assert shorter == 40
