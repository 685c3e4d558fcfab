"""SCSI's numbers: operation codes, statuses, sense codes (T10: SPC-4, SBC-3)."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple


class Operation(IntEnum):
    """The first byte of a command."""

    TEST_UNIT_READY = 0x00
    REQUEST_SENSE = 0x03
    READ_6 = 0x08
    WRITE_6 = 0x0A
    INQUIRY = 0x12
    MODE_SENSE_6 = 0x1A
    START_STOP_UNIT = 0x1B
    PREVENT_ALLOW_MEDIUM_REMOVAL = 0x1E
    READ_CAPACITY_10 = 0x25
    READ_10 = 0x28
    WRITE_10 = 0x2A
    VERIFY_10 = 0x2F
    SYNCHRONIZE_CACHE_10 = 0x35
    UNMAP = 0x42
    MODE_SENSE_10 = 0x5A
    READ_16 = 0x88
    WRITE_16 = 0x8A
    VERIFY_16 = 0x8F
    SYNCHRONIZE_CACHE_16 = 0x91
    SERVICE_ACTION_IN_16 = 0x9E
    REPORT_LUNS = 0xA0
    READ_12 = 0xA8
    WRITE_12 = 0xAA


class Status(IntEnum):
    """How a command ended."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02


class Sense(NamedTuple):
    """Why a command ended with CHECK CONDITION."""

    key: int
    code: int
    qualifier: int

    def pack(self) -> bytes:
        """Return it as fixed format sense data (SPC-4, 4.5.3)."""
        return _FIXED.pack(_CURRENT, self.key, 10, self.code, self.qualifier)


_FIXED: Final = struct.Struct(">BxB4xB4xBB4x")
_CURRENT: Final = 0x70
NO_SENSE: Final = Sense(0x0, 0x00, 0x00)
READ_ERROR: Final = Sense(0x3, 0x11, 0x00)
WRITE_ERROR: Final = Sense(0x3, 0x0C, 0x00)
INVALID_OPERATION: Final = Sense(0x5, 0x20, 0x00)
OUT_OF_RANGE: Final = Sense(0x5, 0x21, 0x00)
INVALID_FIELD: Final = Sense(0x5, 0x24, 0x00)
NO_SUCH_UNIT: Final = Sense(0x5, 0x25, 0x00)
INVALID_PARAMETER: Final = Sense(0x5, 0x26, 0x00)
WRITE_PROTECTED: Final = Sense(0x7, 0x27, 0x00)
NO_SPACE: Final = Sense(0x7, 0x27, 0x07)
"""Space allocation failed write protect: the file's file system is full."""
DATA_PHASE_ERROR: Final = Sense(0xB, 0x4B, 0x00)
"""The command's data could not be moved."""


class ScsiError(Exception):
    """A command ends with CHECK CONDITION."""

    def __init__(self, sense: Sense) -> None:
        super().__init__(str(sense))
        self.sense = sense
