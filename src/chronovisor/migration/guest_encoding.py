"""A guest's state as bytes: its vCPUs' registers, what user space keeps of it, and its clock's history.

Moves carry it in a message, snapshots in sections of a file. Each field is listed here in the order in which
it is written, independently of the types of the running guest: these may change, and the formats do not.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from chronovisor.kvm.ids import ONE_REG_BY_ID, ONE_REG_BY_NAME
from chronovisor.kvm.structures import Regs, Sregs
from chronovisor.machine.console import TYPED_BYTES
from chronovisor.machine.interrupt_sources import SourceState
from chronovisor.machine.machine_state import MachineState
from chronovisor.machine.services import Translation
from chronovisor.machine.sizes import MAXIMUM_VCPUS
from chronovisor.machine.vcpu_state import CARRIED, VcpuState
from chronovisor.machine.wall_clock import TimeOfDay
from chronovisor.migration.device_encoding import DEVICES
from chronovisor.migration.errors import StreamError
from chronovisor.migration.kinds import (
    BOOL,
    GUEST_TIME,
    S64,
    S128,
    U16,
    U32,
    U64,
    Cursor,
    Kind,
    array_of,
    bytes_of,
    fields_of,
    member_of,
    number,
    written_as,
)
from chronovisor.timebase.handover import IdealInterval
from chronovisor.timebase.history import MAXIMUM_HOPS, AwayClock, History, Hop, HopKind
from chronovisor.timebase.policy import TimePolicy
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import Ticks

MAXIMUM_TYPED: Final = TYPED_BYTES
"""Bytes typed and not yet read by the guest."""
_MAXIMUM_SLB: Final = 64
MAXIMUM_SOURCES: Final = 1024
MAXIMUM_NVRAM: Final = 1 << 16
"""Bytes of NVRAM."""

TYPED = bytes_of(MAXIMUM_TYPED, "typed input")
IDEAL = fields_of(IdealInterval, least=S64, most=S64)
RECORD = fields_of(
    MoveRecord,
    from_origin=U64,
    to_origin=U64,
    guest_tb_before=U64,
    guest_tb_after=U64,
    elapsed_ticks=S64,
    counted_ticks=S64,
    error_ticks=S64,
    error_bound_ticks=S64,
    rounding_ticks=S64,
    wait_ns=S64,
    downtime_ns=S64,
    elapsed_uncertainty_ticks=S64,
    ideal_least_ticks=S64,
    ideal_most_ticks=S64,
    ideal_offset=U64,
    rounded_offset=U64,
)

_GENERATOR_VERSION: Final = 3
_GENERATOR_WORDS: Final = 625
"""Python's generator (the Mersenne Twister) in the third form that its state has had: since Python 3.2."""


def _write_random_state(state: tuple[Any, ...]) -> bytes:
    if not state:
        return BOOL.write(False)
    version, words, gauss = state
    if version != _GENERATOR_VERSION or len(words) != _GENERATOR_WORDS or gauss is not None:
        raise StreamError("the generator's state has a form that the stream does not know")
    return BOOL.write(True) + struct.pack(f">{_GENERATOR_WORDS}I", *words)


def _read_random_state(cursor: Cursor) -> tuple[Any, ...]:
    if not BOOL.read(cursor):
        return ()
    words = struct.unpack(f">{_GENERATOR_WORDS}I", cursor.take(4 * _GENERATOR_WORDS))
    if words[-1] >= _GENERATOR_WORDS:
        raise StreamError("the bytes are no generator's state")
    return (_GENERATOR_VERSION, words, None)


RANDOM_STATE: Final[Kind[tuple[Any, ...]]] = Kind(_write_random_state, _read_random_state)
"""A generator's state; empty for none."""

_ALL: Final = -1
POLICY = written_as(
    S64,
    lambda policy: _ALL if policy.most is None else policy.most.value,
    lambda most: TimePolicy(None if most == _ALL else Ticks(most)),
)
HOP = fields_of(Hop, kind=member_of(HopKind), policy=POLICY, clock=member_of(AwayClock), record=RECORD)
HISTORY = fields_of(
    History,
    born=U64,
    hops=array_of(HOP, MAXIMUM_HOPS, "hops"),
    folded=U64,
    folded_elapsed_ticks=S128,
    folded_counted_ticks=S128,
)
TIME_OF_DAY = fields_of(
    TimeOfDay,
    guest_time=GUEST_TIME,
    since_epoch=written_as(S128, lambda t: t.value, Ticks),
)
_MACHINE_FIELDS: Final[dict[str, Kind[Any]]] = {
    "stopped": array_of(BOOL, MAXIMUM_VCPUS, "vCPUs"),
    "time_of_day": TIME_OF_DAY,
    "random_state": RANDOM_STATE,
    "history": HISTORY,
    "translation": fields_of(Translation, flags=U32, process_table=U64),
    "sources": array_of(fields_of(SourceState, number=U32, state=U64), MAXIMUM_SOURCES, "interrupt sources"),
    "console_signals": BOOL,
    "nvram": bytes_of(MAXIMUM_NVRAM, "NVRAM"),
    "joined": array_of(BOOL, MAXIMUM_VCPUS, "vCPUs"),
}
MACHINE = fields_of(MachineState, **_MACHINE_FIELDS, devices=DEVICES)
MACHINE_BEFORE = fields_of(MachineState, **_MACHINE_FIELDS)
"""How version 4 of streams and version 2 of snapshots wrote it: without virtual devices."""


def _list_of(count: int) -> Kind[list[int]]:
    layout = struct.Struct(f">{count}Q")
    return Kind(
        lambda values: layout.pack(*values), lambda cursor: list(layout.unpack(cursor.take(layout.size)))
    )


REGS = fields_of(
    Regs,
    pc=U64,
    cr=U64,
    ctr=U64,
    lr=U64,
    xer=U64,
    msr=U64,
    srr0=U64,
    srr1=U64,
    pid=U64,
    sprg=_list_of(8),
    gpr=_list_of(32),
)
SREGS = fields_of(
    Sregs,
    pvr=U32,
    sdr1=U64,
    slb=written_as(
        array_of(written_as(_list_of(2), list, lambda pair: (pair[0], pair[1])), _MAXIMUM_SLB, "SLB entries"),
        tuple,
        list,
    ),
)
_CARRIED_IDS: Final = frozenset(register.id for register in CARRIED)


def _one_regs() -> Kind[dict[str, int]]:
    """Each register as KVM's 64-bit id, which says its size, and its value in so many bytes."""

    def write(values: dict[str, int]) -> bytes:
        entries = [
            U64.write(register.id) + number(register.size).write(values[name])
            for name in values
            for register in [ONE_REG_BY_NAME[name]]
        ]
        return U16.write(len(entries)) + b"".join(entries)

    def read(cursor: Cursor) -> dict[str, int]:
        values: dict[str, int] = {}
        for _ in range(U16.read(cursor)):
            register_id = U64.read(cursor)
            if register_id not in _CARRIED_IDS:
                raise StreamError(f"a register of the unknown id {register_id:#x}")
            register = ONE_REG_BY_ID[register_id]
            if register.name in values:
                raise StreamError(f"{register.name} comes twice")
            values[register.name] = int.from_bytes(cursor.take(register.size), "big")
        return values

    return Kind(write, read)


VCPU = fields_of(VcpuState, id=U32, regs=REGS, sregs=SREGS, one_regs=_one_regs(), dec_expiry=U64)
