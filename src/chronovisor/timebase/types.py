"""Times as types: a host's time, a guest's time, a duration and the offset between the two kinds of time.

A timebase is a 64-bit counter, so both kinds of time are modular: they have no order, only a signed
difference (`Ticks`). The operators define what mixes; nothing else does:

    HostTime  + Offset = GuestTime        GuestTime - Offset = HostTime
    X + Ticks = X      X - Ticks = X      X - X = Ticks

A sum of two kinds that do not belong together raises `TypeError`.

A moment by a tick source (`SourceTime`) is a third kind: the hypervisor's deadlines are of it. It does not
wrap, so it has an order, and it is read several times at each entry, so it is a plain int at run time, known
to the type checker alone. It cannot be mixed with the other two at run time either, because they accept no
int. `HostClock.at` and `HostClock.ticks_at` convert it.
"""

from __future__ import annotations

from typing import Final, NewType, NoReturn, overload

FREQUENCY = 512_000_000
"""Ticks per second of every timebase here (POWER7 to POWER10)."""

MASK64 = (1 << 64) - 1
"""The 64 bits of a timebase."""

LOW_BITS = 24
"""Bits of the timebase that a write to TBU40 leaves alone."""

GRANULE = 1 << LOW_BITS
"""Every offset is a multiple of so many ticks: 2^24, 32.768 ms, the least by which TBU40 can shift a
timebase.
"""

LOW_MASK = GRANULE - 1
"""The low 24 bits of a timebase, which no software moves."""

_NS_PER_SECOND = 1_000_000_000

SourceTime = NewType("SourceTime", int)
"""A moment by a tick source: ticks since the source's beginning."""


def signed64(value: int) -> int:
    """Return the low 64 bits of `value` read as two's complement: -2^63 to 2^63-1."""
    return ((value + (1 << 63)) & MASK64) - (1 << 63)


class Ticks:
    """A signed duration, in ticks of the timebase; of any size (not modular)."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value: Final[int] = value if type(value) is int else _integer(value, "Ticks")
        """The duration in ticks."""

    @classmethod
    def from_ns(cls, ns: int) -> Ticks:
        """Return the whole ticks in `ns` nanoseconds, rounded towards the past (floor)."""
        return cls(_integer(ns, "nanoseconds") * FREQUENCY // _NS_PER_SECOND)

    @property
    def ns(self) -> int:
        """The duration in whole nanoseconds, rounded towards the past (floor)."""
        return self.value * _NS_PER_SECOND // FREQUENCY

    @property
    def seconds(self) -> float:
        """The duration in seconds, for people to read; never compute with it."""
        return self.value / FREQUENCY

    def __add__(self, other: Ticks) -> Ticks:
        return Ticks(self.value + other.value) if isinstance(other, Ticks) else NotImplemented

    def __sub__(self, other: Ticks) -> Ticks:
        return Ticks(self.value - other.value) if isinstance(other, Ticks) else NotImplemented

    def __mul__(self, times: int) -> Ticks:
        return Ticks(self.value * times) if isinstance(times, int) else NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> Ticks:
        return Ticks(-self.value)

    def __abs__(self) -> Ticks:
        return Ticks(abs(self.value))

    def __eq__(self, other: object) -> bool:
        return self.value == other.value if isinstance(other, Ticks) else NotImplemented

    def __lt__(self, other: Ticks) -> bool:
        return self.value < other.value if isinstance(other, Ticks) else NotImplemented

    def __le__(self, other: Ticks) -> bool:
        return self.value <= other.value if isinstance(other, Ticks) else NotImplemented

    def __gt__(self, other: Ticks) -> bool:
        return self.value > other.value if isinstance(other, Ticks) else NotImplemented

    def __ge__(self, other: Ticks) -> bool:
        return self.value >= other.value if isinstance(other, Ticks) else NotImplemented

    def __bool__(self) -> bool:
        return bool(self.value)

    def __int__(self) -> int:
        return self.value

    def __hash__(self) -> int:
        return hash((Ticks, self.value))

    def __repr__(self) -> str:
        return f"Ticks({self.value})"


class Offset:
    """How far a guest's timebase is ahead of its host's, modulo 2^64: always a multiple of 2^24 ticks.

    Raises `ValueError` for a value that is not such a multiple or does not fit 64 bits. `rounded_up` makes an
    offset of any value.
    """

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        if type(value) is not int:
            _integer(value, "an offset")
        if not 0 <= value <= MASK64:
            raise ValueError(f"offset {value:#x} does not fit 64 bits: give it modulo 2^64")
        if value & LOW_MASK:
            raise ValueError(f"offset {value:#x} is no multiple of 2^24: Offset.rounded_up makes it one")
        self.value: Final[int] = value
        """The offset in ticks, 0 to 2^64-1 (a guest behind its host has a large one)."""

    @property
    def signed(self) -> int:
        """The offset in ticks, -2^63 to 2^63-1 (negative if the guest is behind its host)."""
        return signed64(self.value)

    @classmethod
    def rounded_up(cls, value: int) -> Offset:
        """Return the offset that a kernel makes of `value` (ticks): the next multiple of 2^24, modulo
        2^64."""
        return cls((_integer(value, "an offset") + LOW_MASK) & ~LOW_MASK & MASK64)

    def __add__(self, other: Offset) -> Offset:
        return Offset((self.value + other.value) & MASK64) if isinstance(other, Offset) else NotImplemented

    def __sub__(self, other: Offset) -> Offset:
        return Offset((self.value - other.value) & MASK64) if isinstance(other, Offset) else NotImplemented

    def __neg__(self) -> Offset:
        return Offset(-self.value & MASK64)

    def __eq__(self, other: object) -> bool:
        return self.value == other.value if isinstance(other, Offset) else NotImplemented

    def __bool__(self) -> bool:
        return bool(self.value)

    def __hash__(self) -> int:
        return hash((Offset, self.value))

    def __repr__(self) -> str:
        return f"Offset({self.value:#x})"


class _Time:
    """The common part of host time and guest time: 64 bits, modular, compared only by signed difference."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        whole = value if type(value) is int else _integer(value, type(self).__name__)
        self.value: Final[int] = whole & MASK64
        """The timebase value in ticks, 0 to 2^64-1."""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _Time) and type(other) is not type(self):
            raise TypeError(
                f"a {type(self).__name__} and a {type(other).__name__} are never equal or different: "
                "convert one by the offset first"
            )
        return self.value == other.value if isinstance(other, _Time) else NotImplemented

    def _no_order(self, other: object) -> NoReturn:
        raise TypeError(
            "times are modulo 2^64 and have no order: compare the sign of their difference (a - b)"
        )

    __lt__ = __le__ = __gt__ = __ge__ = _no_order

    def __hash__(self) -> int:
        return hash((type(self), self.value))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value:#x})"


class HostTime(_Time):
    """A moment by a host's timebase: 64-bit ticks, modulo 2^64."""

    __slots__ = ()

    @overload
    def __add__(self, other: Ticks) -> HostTime: ...
    @overload
    def __add__(self, other: Offset) -> GuestTime: ...
    def __add__(self, other: Ticks | Offset) -> HostTime | GuestTime:
        if isinstance(other, Ticks):
            return HostTime(self.value + other.value)
        return GuestTime(self.value + other.value) if isinstance(other, Offset) else NotImplemented

    @overload
    def __sub__(self, other: Ticks) -> HostTime: ...
    @overload
    def __sub__(self, other: HostTime) -> Ticks: ...
    def __sub__(self, other: Ticks | HostTime) -> HostTime | Ticks:
        if isinstance(other, Ticks):
            return HostTime(self.value - other.value)
        return Ticks(signed64(self.value - other.value)) if isinstance(other, HostTime) else NotImplemented


class GuestTime(_Time):
    """A moment by the timebase that a guest reads: 64-bit ticks, modulo 2^64."""

    __slots__ = ()

    def __add__(self, other: Ticks) -> GuestTime:
        return GuestTime(self.value + other.value) if isinstance(other, Ticks) else NotImplemented

    @overload
    def __sub__(self, other: Ticks) -> GuestTime: ...
    @overload
    def __sub__(self, other: GuestTime) -> Ticks: ...
    @overload
    def __sub__(self, other: Offset) -> HostTime: ...
    def __sub__(self, other: Ticks | GuestTime | Offset) -> GuestTime | Ticks | HostTime:
        if isinstance(other, Ticks):
            return GuestTime(self.value - other.value)
        if isinstance(other, Offset):
            return HostTime(self.value - other.value)
        return Ticks(signed64(self.value - other.value)) if isinstance(other, GuestTime) else NotImplemented


def _integer(value: int, what: str) -> int:
    # Subclasses are accepted, because a prover's integers are such. A bool is not.
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} is made of whole ticks (int), not of {type(value).__name__}")
    return value
