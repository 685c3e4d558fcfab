"""What a page's content is known by: any change is seen, whatever instructions this machine has."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from random import Random

import pytest
from llvmlite import binding as llvm

from chronovisor.engine.native import compiler, content
from chronovisor.engine.native.layout import PAGE_SHIFT

SIZE = 1 << PAGE_SHIFT


@pytest.fixture(params=sorted({False, content.has_rounds()}))
def number_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], int]:
    """``content``, of a page that is given as bytes."""
    monkeypatch.setattr(content, "has_rounds", lambda: request.param)
    module = compiler.new_module("content")
    content.define_content(module)
    linking = llvm.JITLibraryBuilder().add_object_img(compiler.compile_module(module))
    linking = linking.export_symbol("chronovisor_content")
    library = linking.link(llvm.create_lljit_compiler(compiler.target(), use_jit_link=False), "content")
    call = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_char_p)(library["chronovisor_content"])
    call.kept = library  # type: ignore[attr-defined]
    return call


def test_every_change_of_a_bit_is_seen(number_of: Callable[[bytes], int]) -> None:
    page = bytearray(Random(1).randbytes(SIZE))
    found = {number_of(bytes(page))}
    for bit in range(8 * SIZE):
        page[bit // 8] ^= 1 << bit % 8
        found.add(number_of(bytes(page)))
        page[bit // 8] ^= 1 << bit % 8
    assert len(found) == 1 + 8 * SIZE
    assert number_of(bytes(page)) in found


def test_pages_that_are_alike_throughout_differ(number_of: Callable[[bytes], int]) -> None:
    """One instruction and no other; one byte, anywhere; two instructions that change places."""
    draw = Random(2)
    words = [0, 0x60000000, *(draw.getrandbits(32) for _ in range(500))]
    pages = {word.to_bytes(4, "little") * (SIZE // 4) for word in words}
    pages |= {bytes(place) + b"\x60" + bytes(SIZE - place - 1) for place in range(SIZE)}
    whole = draw.randbytes(SIZE)
    for place in range(0, SIZE - 4, 4):
        exchanged = whole[place + 4 : place + 8] + whole[place : place + 4]
        pages.add(whole[:place] + exchanged + whole[place + 8 :])
    assert len(pages) > 5000
    numbers = {number_of(page) for page in pages}
    assert len(numbers) == len(pages)
    assert 0 not in numbers
