"""Registers by their ids (KVM_GET_ONE_REG, KVM_SET_ONE_REG): which they are, and their values in memory."""

from __future__ import annotations

import errno
import sys
from typing import Final

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.ids import ONE_REG_BY_ID, OneReg
from chronovisor.timebase.types import MASK64

_SIZE_SHIFT: Final = 52
"""The bit of an id at which the logarithm of its register's size begins."""
LARGEST: Final = 16
"""Bytes."""
_PAIRS: Final = frozenset({"VPA_SLB", "VPA_DTL", "VP_STATE"})
"""Registers that are two doublewords, the first of which is the upper half here. The others of that size, the
vector registers, the kernel keeps as one number of 16 bytes in its own byte order.
"""


def find(register_id: int) -> OneReg:
    """Return the register. The kernel may know registers that our table lacks; their size is in their id."""
    register = ONE_REG_BY_ID.get(register_id)
    if register is not None:
        return register
    size = 1 << ((register_id >> _SIZE_SHIFT) & 0xF)
    if not 0 <= register_id <= MASK64 or size > LARGEST:
        raise KvmError(errno.EINVAL, f"there is no register with the id {register_id:#x}")
    return OneReg(f"the register with the id {register_id:#x}", register_id, size)


def from_memory(register: OneReg, raw: bytes) -> int:
    """Return the value of a register that the kernel has written to memory."""
    if register.name not in _PAIRS:
        return int.from_bytes(raw, sys.byteorder)
    return (int.from_bytes(raw[:8], sys.byteorder) << 64) | int.from_bytes(raw[8:], sys.byteorder)


def to_memory(register: OneReg, value: int) -> bytes:
    """Return the bytes of a value as the kernel reads them."""
    if register.name not in _PAIRS:
        return value.to_bytes(register.size, sys.byteorder)
    return (value >> 64).to_bytes(8, sys.byteorder) + (value & MASK64).to_bytes(8, sys.byteorder)
