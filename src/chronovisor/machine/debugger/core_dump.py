"""A guest as an ELF core file, for gdb and other tools that read cores.

The notes are those that Linux writes for a 64-bit Power process (elf_prstatus and the register sets of
arch/powerpc/kernel/ptrace), one set for each vCPU, and one of our own with all registers by KVM's names.
Memory is in the file once. Pages that are all zeros are holes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final, Literal

from chronovisor.kvm.interface import Vcpu
from chronovisor.kvm.registers import all_registers, read_register, register_size
from chronovisor.machine.debugger.inspector import byte_order
from chronovisor.machine.debugger.target_description import (
    ALTIVEC,
    FPU,
    VSX,
    DescribedRegister,
    described_registers,
)
from chronovisor.machine.guest import Guest
from chronovisor.memory.in_use import each_run_in_use

ByteOrder = Literal["little", "big"]

LINEAR_MAP: Final = 0xC000_0000_0000_0000
"""The effective address at which a 64-bit Power Linux kernel has its memory."""
OWN_NOTE: Final = "CHRONOVISOR"
"""The owner of our note: lines of NAME and VALUE in hexadecimal."""
OWN_TYPE: Final = 0x4356_0001
"""The type of our note; no other owner has one of this number."""
_EM_PPC64: Final = 21
_ET_CORE: Final = 4
_PT_LOAD, _PT_NOTE = 1, 4
_ALL_ACCESSES: Final = 7
_NT_PRSTATUS, _NT_PRFPREG, _NT_PPC_VMX, _NT_PPC_VSX = 1, 2, 0x100, 0x102
_HEADER_SIZE, _SEGMENT_SIZE = 64, 56
_PAGE: Final = 1 << 16
"""What the memory's place in the file is a multiple of: the largest page of a host."""
_GENERAL: Final = (
    *(f"R{n}" for n in range(32)),
    "PC",
    "MSR",
    "",
    "CTR",
    "LR",
    "XER",
    "CR",
    "",
    "",
    "DAR",
    "DSISR",
)
"""elf_gregset_t: what is empty has no register here (orig_gpr3, softe, trap)."""
_GENERAL_COUNT: Final = 48
_BEFORE_GENERAL: Final = 112
"""Bytes of elf_prstatus before the registers: the thread's id is at 32."""
_PRSTATUS_SIZE: Final = 504
_QUADWORD: Final = 16


def write_core(guest: Guest, file: BinaryIO) -> None:
    """Write a guest that is held to a file that can seek, piece by piece: no copy of its memory is made.

    Memory is at its real addresses, and at LINEAR_MAP if that leads to it.
    OSError if the file cannot be written.
    """
    order = byte_order(guest)
    notes = b"".join(_notes(vcpu, order) for vcpu in guest.vcpus)
    places = [0]
    if guest.vcpus[0].translate(LINEAR_MAP) == 0:
        places.append(LINEAR_MAP)
    after_notes = _HEADER_SIZE + _SEGMENT_SIZE * (1 + len(places)) + len(notes)
    start = -(-after_notes // _PAGE) * _PAGE
    file.write(_header(order, 1 + len(places)))
    file.write(_segment(order, _PT_NOTE, after_notes - len(notes), 0, len(notes)))
    for place in places:
        file.write(_segment(order, _PT_LOAD, start, place, guest.memory.size))
    file.write(notes)
    for addr, size in each_run_in_use(guest.memory):
        file.seek(start + addr)
        file.write(guest.memory.data[addr : addr + size])
    file.flush()
    os.truncate(file.fileno(), start + guest.memory.size)


def _header(order: ByteOrder, segments: int) -> bytes:
    data = 1 if order == "little" else 2
    identity = b"\x7fELF" + bytes((2, data, 1)) + bytes(9)
    rest = struct.pack(
        f"{_sign(order)}HHIQQQIHHHHHH",
        *(_ET_CORE, _EM_PPC64, 1, 0, _HEADER_SIZE, 0, 0, _HEADER_SIZE, _SEGMENT_SIZE, segments, 0, 0, 0),
    )
    return identity + rest


def _segment(order: ByteOrder, kind: int, offset: int, place: int, size: int) -> bytes:
    memory = size if kind == _PT_LOAD else 0
    flags = _ALL_ACCESSES if kind == _PT_LOAD else 0
    return struct.pack(f"{_sign(order)}IIQQQQQQ", kind, flags, offset, place, 0, size, memory, 0)


def _sign(order: ByteOrder) -> str:
    return "<" if order == "little" else ">"


def _notes(vcpu: Vcpu, order: ByteOrder) -> bytes:
    registers = described_registers(vcpu)
    return b"".join(
        _note(owner, kind, contents, order)
        for owner, kind, contents in (
            ("CORE", _NT_PRSTATUS, _prstatus(vcpu, order)),
            ("CORE", _NT_PRFPREG, b"".join(_encoded(vcpu, registers, FPU, order, 8))),
            ("LINUX", _NT_PPC_VMX, b"".join(_encoded(vcpu, registers, ALTIVEC, order, _QUADWORD))),
            ("LINUX", _NT_PPC_VSX, b"".join(_encoded(vcpu, registers, VSX, order, 8))),
            (OWN_NOTE, OWN_TYPE, _by_name(vcpu)),
        )
    )


def _note(owner: str, kind: int, contents: bytes, order: ByteOrder) -> bytes:
    name = owner.encode() + b"\0"
    header = struct.pack(f"{_sign(order)}III", len(name), len(contents), kind)
    return header + _padded(name) + _padded(contents)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _prstatus(vcpu: Vcpu, order: ByteOrder) -> bytes:
    general = [read_register(vcpu, name) if name else 0 for name in _GENERAL]
    values = general + [0] * (_GENERAL_COUNT - len(general))
    # A thread's id is not 0.
    before = bytes(32) + (vcpu.id + 1).to_bytes(4, order)
    packed = b"".join(value.to_bytes(8, order) for value in values)
    return (before.ljust(_BEFORE_GENERAL, b"\0") + packed).ljust(_PRSTATUS_SIZE, b"\0")


def _encoded(
    vcpu: Vcpu, registers: list[DescribedRegister], feature: str, order: ByteOrder, size: int
) -> Iterator[bytes]:
    """The registers of a feature of gdb's, in its order, each in a field of this size.

    A field of VSCR is a vector whose last word by number has it; VRSAVE is in the first bytes of its field.
    """
    for register in registers:
        if register.feature != feature:
            continue
        value = register.encode(read_register(vcpu, register.kvm_name), order)
        at_end = register.name == "vscr" and order == "big"
        yield value.rjust(size, b"\0") if at_end else value.ljust(size, b"\0")


def _by_name(vcpu: Vcpu) -> bytes:
    lines = [f"{name} {value:0{2 * register_size(name)}x}" for name, value in all_registers(vcpu).items()]
    return "".join(f"{line}\n" for line in (f"VCPU {vcpu.id}", *lines)).encode()
