"""One operation of IEEE arithmetic as machine code, outside of any handler."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from llvmlite import binding as llvm
from llvmlite import ir

from chronovisor.engine.native import compiler
from chronovisor.engine.native.emitter import I1, I64, POINTER, Emitter
from chronovisor.engine.native.ieee import HOSTED
from chronovisor.isa.ieee import IEEE, RAISED_WIDTH

_KIND = ir.FunctionType(I1, [POINTER, POINTER])


class _Function(Emitter):
    """``bool (operands, results)``: whether the operation was done. Each is a word of 64 bits."""

    def slow(self) -> None:
        self.b.ret(ir.Constant(I1, 0))


def _resized(e: Emitter, value: ir.Value, width: int) -> ir.Value:
    have, wanted = value.type.width, ir.IntType(width)
    return value if have == width else e.b.trunc(value, wanted) if have > width else e.b.zext(value, wanted)


def compiled(name: str, mode: int | None = None) -> Callable[..., tuple[int, int] | None]:
    """The function of the operands, the rounding mode among them, that the operation is.

    It gives the result and what is raised, or None if the operation is left undone. ``mode`` is the rounding
    mode that an instruction fixes; None: one that is known only when it runs.
    """
    module = ir.Module("hosted")
    module.triple = llvm.get_process_triple()
    e = _Function(ir.Function(module, _KIND, "hosted"), {})
    e.function.return_value.add_attribute("zeroext")
    given, results = e.function.args
    operands = []
    for number, width in enumerate(IEEE[name].operands):
        operands.append(_resized(e, e.b.load(e.at(given, 8 * number), typ=I64), width))
    if mode is not None:
        operands[-1] = ir.Constant(operands[-1].type, mode)
    bits, raised = HOSTED[name](e, *operands)
    e.b.store(_resized(e, bits, 64), results)
    e.b.store(_resized(e, raised, 64), e.at(results, 8))
    e.b.ret(ir.Constant(I1, 1))
    assert raised.type.width == RAISED_WIDTH
    builder = llvm.JITLibraryBuilder().add_object_img(compiler.compile_module(module))
    builder.export_symbol("hosted")
    library = builder.link(llvm.create_lljit_compiler(compiler.target(), use_jit_link=False), "hosted")
    call = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p)(library["hosted"])
    given_words, found = (ctypes.c_uint64 * 4)(), (ctypes.c_uint64 * 2)()

    def function(*operands: int) -> tuple[int, int] | None:
        assert library
        given_words[: len(operands)] = operands
        return (found[0], found[1]) if call(given_words, found) else None

    return function
