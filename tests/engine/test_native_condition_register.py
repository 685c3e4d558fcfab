"""CR in native code: each field has a byte in the state, on machines that spread bits and on others."""

from __future__ import annotations

import ctypes
from random import Random

import pytest
from llvmlite import binding as llvm
from llvmlite import ir

from chronovisor.engine.native import compiler, emitter
from chronovisor.engine.native.emitter import I64, POINTER, ThreadEmitter
from chronovisor.engine.native.state_layout import OFFSETS, Registers


def _functions() -> tuple[object, ctypes._FuncPointer, ctypes._FuncPointer]:
    """What keeps them, ``read(state)`` and ``write(state, value)``."""
    module = compiler.new_module("condition")
    read = ThreadEmitter(module, ir.FunctionType(I64, [POINTER]), "read")
    read.b.ret(read.read("CR"))
    write = ThreadEmitter(module, ir.FunctionType(ir.VoidType(), [POINTER, I64]), "write")
    write.write("CR", write.function.args[1])
    write.b.ret_void()
    builder = llvm.JITLibraryBuilder().add_object_img(compiler.compile_module(module))
    for symbol in ("read", "write"):
        builder.export_symbol(symbol)
    library = builder.link(llvm.create_lljit_compiler(compiler.target(), use_jit_link=False), "condition")
    reading = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(library["read"])
    writing = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64)(library["write"])
    return library, reading, writing


@pytest.mark.parametrize("by_host", sorted({False, emitter.has_deposits()}))
def test_fields_are_gathered_and_spread(by_host: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emitter, "has_deposits", lambda: by_host)
    kept, read, write = _functions()
    draw, registers = Random(7), Registers()
    at = ctypes.addressof(registers)
    for value in (0, 0xFFFF_FFFF, 0x8421_8421, *(draw.getrandbits(32) for _ in range(200))):
        write(at, value)
        fields = ctypes.string_at(at + OFFSETS["CR_FIELDS"], 8)
        assert list(fields) == [value >> shift & 15 for shift in range(28, -1, -4)]
        assert read(at) == value
    assert kept
