"""Snapshots with something changed in them, their checksums right or not."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Final
from zlib import crc32

from chronovisor.migration import snapshot_format as form


def resealed(data: bytearray) -> bytes:
    """The file with the checksums of its header and heads made right."""
    struct.pack_into(">I", data, form.HEADER_SIZE - 4, crc32(data[: form.HEADER_SIZE - 4]))
    for at, size in sections(data):
        payload = data[at + form.HEAD_SIZE : at + form.HEAD_SIZE + size]
        struct.pack_into(">I", data, at + 16, crc32(payload))
        struct.pack_into(">I", data, at + 20, crc32(data[at : at + 20]))
    return bytes(data)


def sections(data: bytes | bytearray) -> list[tuple[int, int]]:
    """Where each section begins, and the length that it says its payload has."""
    found, at = [], form.HEADER_SIZE
    while at + form.HEAD_SIZE <= len(data):
        size = struct.unpack_from(">I", data, at + 4)[0]
        found.append((at, size))
        at += form.HEAD_SIZE + size
    return found


_TELLING: Final = (
    0,
    1,
    7,
    0x7F,
    0xFF,
    0xFFF,
    0x1000,
    0xFFFF,
    0x7FFF_FFFF,
    0xFFFF_FFFF,
    1 << 63,
    (1 << 64) - 1,
)


def _some_bytes(chance: random.Random, data: bytearray) -> None:
    for _ in range(chance.randint(1, 4)):
        data[_place(chance, data)] = chance.randrange(256)


def _a_number(chance: random.Random, data: bytearray) -> None:
    size = chance.choice((1, 2, 4, 8))
    at = min(_place(chance, data), len(data) - size)
    value = (chance.choice(_TELLING) + chance.choice((-1, 0, 0, 1))) & ((1 << (8 * size)) - 1)
    data[at : at + size] = value.to_bytes(size, "big")


def _cut_off(chance: random.Random, data: bytearray) -> None:
    del data[_place(chance, data) :]


def _cut_out(chance: random.Random, data: bytearray) -> None:
    at = _place(chance, data)
    del data[at : at + chance.randint(1, 64)]


def _put_in(chance: random.Random, data: bytearray) -> None:
    at = _place(chance, data)
    data[at:at] = chance.randbytes(chance.randint(1, 64))


def _a_section_elsewhere(chance: random.Random, data: bytearray) -> None:
    found = sections(data)
    if found:
        at, size = chance.choice(found)
        section = bytes(data[at : at + form.HEAD_SIZE + size])
        if chance.random() < 0.5:
            del data[at : at + len(section)]
        to = chance.choice([at for at, _ in sections(data)] or [len(data)])
        data[to:to] = section


def _place(chance: random.Random, data: bytearray) -> int:
    """Anywhere, but mostly where the file says what it is."""
    if chance.random() < 0.3 or not data:
        return chance.randrange(max(1, len(data)))
    begins = [0, *(at for at, _ in sections(data))]
    return min(chance.choice(begins) + chance.randrange(200), len(data) - 1)


_WAYS: Final[tuple[Callable[[random.Random, bytearray], None], ...]] = (
    _some_bytes,
    _a_number,
    _a_number,
    _cut_off,
    _cut_out,
    _put_in,
    _a_section_elsewhere,
)


def mutated(chance: random.Random, whole: bytes) -> bytes:
    """The file with one to three things wrong, its checksums mostly right."""
    data = bytearray(whole)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if len(data) > 16:
            chance.choice(_WAYS)(chance, data)
    if len(data) > form.HEADER_SIZE and chance.random() < 0.8:
        return resealed(data)
    return bytes(data)
