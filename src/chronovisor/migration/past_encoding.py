"""A recorded guest's past as bytes: its stretches, and the pages of its memory as they were."""

from __future__ import annotations

from typing import Any, Final

from chronovisor.kvm.course import HiddenState, HostShape
from chronovisor.machine.sizes import MAXIMUM_VCPUS
from chronovisor.memory import PAGE_SIZE
from chronovisor.migration.guest_encoding import MACHINE, RANDOM_STATE, TYPED, VCPU
from chronovisor.migration.kinds import (
    BOOL,
    S128,
    TEXT,
    U8,
    U16,
    U32,
    U64,
    Kind,
    array_of,
    fields_of,
    number,
    optional,
    written_as,
)
from chronovisor.migration.recorded_past import PAGES_AT_A_TIME, PageVersion, PastPart, Stretch
from chronovisor.timebase.types import Offset, SourceTime

_MOST_CORES: Final = 1024
_U128: Final = number(16)


def _write_reservation(reservation: tuple[int, int, int]) -> bytes:
    address, size, value = reservation
    return U64.write(address) + U8.write(size) + _U128.write(value)


_RESERVATION: Final[Kind[tuple[int, int, int]]] = Kind(
    _write_reservation, lambda cursor: (U64.read(cursor), U8.read(cursor), _U128.read(cursor))
)
_TICK: Final[Kind[SourceTime]] = written_as(S128, int, SourceTime)
_VCPU_IDS: Final[Kind[frozenset[int]]] = written_as(
    array_of(U32, MAXIMUM_VCPUS, "vCPUs"), lambda ids: tuple(sorted(ids)), frozenset
)
_HOST: Final = fields_of(
    HostShape, tb_origin=U64, cores=U16, threads_per_core=U8, cpu_model=TEXT, ticks_per_instruction=U32
)
_HIDDEN: Final = fields_of(
    HiddenState,
    prodded=array_of(BOOL, MAXIMUM_VCPUS, "vCPUs"),
    reservations=array_of(optional(_RESERVATION), MAXIMUM_VCPUS, "vCPUs"),
    random=RANDOM_STATE,
    timebases=array_of(S128, _MOST_CORES, "cores"),
)
_STRETCH: Final = fields_of(
    Stretch,
    host=_HOST,
    tick=_TICK,
    machine=MACHINE,
    vcpus=array_of(VCPU, MAXIMUM_VCPUS, "vCPUs"),
    offset=written_as(U64, lambda offset: offset.value, Offset),
    hidden=_HIDDEN,
    typed=TYPED,
    held_back=_VCPU_IDS,
    stepping=_VCPU_IDS,
    end=_TICK,
    executed=array_of(U64, MAXIMUM_VCPUS, "vCPUs"),
)
_PAGE: Final[Kind[Any]] = fields_of(
    PageVersion,
    stretch=U64,
    page=U64,
    contents=Kind(bytes, lambda cursor: cursor.take(PAGE_SIZE)),
)
PAST_PART: Final = fields_of(
    PastPart,
    first=U64,
    stretches=array_of(_STRETCH, 1, "stretches"),
    pages=array_of(_PAGE, PAGES_AT_A_TIME, "pages"),
)
