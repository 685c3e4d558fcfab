"""The stencils of a machine mode as data, in the form in which native code reads them.

A set has tables of `Row`, `Stencil` and `Patch`, and the stencils' code. Positions are from the beginning of
each.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from enum import IntEnum

#: The most bytes of a stencil. What has more gains nothing by being copied.
MOST_BYTES = 320
#: ``place`` of a `Row` whose stencil is for all records; ``value`` of one for those that have no other.
ANY_RECORD = 0xFF
ANY_VALUE = 0xFF


class Source(IntEnum):
    """What completes a hole: a number of the record or of the line, or the distance to an address.

    DIFFERENCE is that of two small numbers. SPENT is -1 - POSITION.
    """

    SMALL = 0
    WIDE = 1
    OFFSET = 2
    POSITION = 3
    DIFFERENCE = 4
    SPENT = 5
    NEXT = 6
    TAKEN = 7
    OWN = 8


class Patch(ctypes.Structure):
    """A hole: ``size`` bytes ``at`` a place get ``base + (number << shift)``, or ``base`` + a distance.

    ``number`` is the place of the number in the record, by ``source``; ``other`` is that of the number
    which is subtracted. The value has to fit into the bytes, which are extended by zeros if ``unsigned``,
    else by the sign. A value that has no byte has to be 0.
    """

    _fields_ = [
        *((name, ctypes.c_uint8) for name in ("source", "number", "other", "shift", "size", "unsigned")),
        ("at", ctypes.c_uint16),
        ("base", ctypes.c_int64),
    ]


class Stencil(ctypes.Structure):
    """The code of a stencil, and its patches. If these do not fit, the stencil behind it is tried, unless it
    is the ``last``. From the end of the code control goes to the target of the jump if it is ``taken``, else
    to the instruction behind.
    """

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("at", "first_patch")),
        *((name, ctypes.c_uint16) for name in ("size", "patch_count")),
        *((name, ctypes.c_uint16) for name in ("last", "taken")),
    ]


class Row(ctypes.Structure):
    """Whose stencil it is: the instruction's number among the everyday keys, its handler for jumps within the
    page (1) or for all else (0), and the records that it is for, as in `Variant`.
    """

    _fields_ = [
        ("key", ctypes.c_uint32),
        *((name, ctypes.c_uint8) for name in ("near", "place", "value", "unused")),
    ]


@dataclass(frozen=True)
class StencilSet:
    """The tables, as native code reads them: a row is of the stencil with the same number."""

    rows: ctypes.Array[Row]
    stencils: ctypes.Array[Stencil]
    patches: ctypes.Array[Patch]
    code: ctypes.Array[ctypes.c_uint8]

    @classmethod
    def decode(cls, whole: bytes) -> StencilSet:
        """The inverse of `encode`."""
        sizes, at, parts = _HEADER.unpack_from(whole), _HEADER.size, []
        for kind, size in zip((Row, Stencil, Patch, ctypes.c_uint8), sizes, strict=True):
            parts.append((kind * (size // ctypes.sizeof(kind))).from_buffer_copy(whole, at))
            at += size
        return cls(*parts)

    def encode(self) -> bytes:
        """As one piece of bytes."""
        parts = self.rows, self.stencils, self.patches, self.code
        return _HEADER.pack(*(ctypes.sizeof(one) for one in parts)) + b"".join(bytes(one) for one in parts)


_HEADER = struct.Struct("<4Q")
