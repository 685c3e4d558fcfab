"""Segments of a TCP connection that come one behind the other, as one large frame.

A large frame takes a guest little more time than one of 1,500 bytes. So a card merges segments, as others do
in hardware ("large receive offload"), by rules like those of Linux's own merging. Segments of a large frame
differ in their numbers and their data alone, each goes on where the one before it ends, and all but the last
have as much data.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

Frame = bytes | memoryview

SHORTEST_SEGMENT: Final = 55
"""Bytes of a frame with one byte of TCP's data."""
_ETHERNET: Final = 14
_KIND: Final = slice(12, 14)
"""Where Ethernet's header says what it carries."""
_IPV4_KIND, _IPV6_KIND = b"\x08\x00", b"\x86\xdd"
_IPV4: Final = struct.Struct(">14sHH2xHH2x12sIQ4x")
"""Ethernet's header; IP's version and class, size, fragment, lifetime and protocol; addresses and ports; the
number of the first byte; what else TCP says (what it acknowledges, its header's size, its flags, its window).
"""
_IPV6: Final = struct.Struct(">14sIHH36sIQ4x")
"""The same, but that IP's version and class come with a label, and nothing is a fragment."""
_VERSION_4, _VERSION_6 = 0x45, 0x6
"""With the size of the header, in words."""
_WHOLE: Final = 0x4000
"""The packet may not be cut into fragments: the only thing that a fragment's field may say."""
_TCP: Final = 6
_TCP_HEADER: Final = 20
_ACK, _PUSH = 0x10_0000, 0x08_0000
_FLAGS: Final = 0xFFF_0000
"""TCP's flags, in what else TCP says."""
_NUMBERS: Final = (1 << 32) - 1
_TCP_CHECKSUM: Final = 16
_PUSH_PLACE: Final = 13
"""Where TCP's header has these."""
_LARGEST: Final = 65535
"""Bytes of a packet."""


class _Segment(NamedTuple):
    """A frame that may be merged with others."""

    flow: tuple[object, ...]
    """What they have in common."""
    number: int
    """That of the first byte."""
    head: int
    """Bytes of the headers."""
    size: int
    """Bytes of the data."""
    push: int


class Merged(NamedTuple):
    """The first of some frames, merged."""

    frames: int
    """How many."""
    data: bytes
    """The large frame that they are."""
    segment: int
    """Bytes of data of each of them, but the last; 0 if they are not merged."""


def merge(frames: Iterable[Frame], rooms: Sequence[int]) -> Merged:
    """Merge the first of these frames with those behind it, if it can be, else say how many cannot.

    `rooms` are sizes of large frames that are welcome, in rising order. A frame that would leave most of its
    room empty becomes one of the size below: the guest counts the whole room as memory of the connection's.
    """
    run = _run(frames, rooms[-1])
    if not run:
        return Merged(1, b"", 0)
    first, segment = run[0]
    ends, end = list[int](), segment.head
    for _, (_, _, _, size, _) in run:
        end += size
        ends.append(end)
    for room in reversed(rooms):
        count = bisect_right(ends, room)
        if count > 1 and ends[count - 1] * 4 >= room:
            merged = run[:count]
            break
    else:
        return Merged(len(run), b"", 0)
    header = _header(bytes(first[: segment.head]), ends[count - 1], any(one.push for _, one in merged))
    data = [frame[one.head :] for frame, one in merged]
    return Merged(count, b"".join((header, *data)), segment.size)


def _run(frames: Iterable[Frame], most: int) -> list[tuple[Frame, _Segment]]:
    """The frames, from the first on, that may be merged into one of at most so many bytes."""
    run: list[tuple[Frame, _Segment]] = []
    room, flow, number, full = most, None, 0, 0
    for frame in frames:
        segment = _segment(frame)
        if segment is None:
            break
        if not run:
            flow, number, full = segment.flow, segment.number, segment.size
            room = min(most, _LARGEST) - segment.head
        elif segment.number != number or segment.size > full or segment.flow != flow:
            break
        room -= segment.size
        if room < 0:
            break
        run.append((frame, segment))
        number = number + segment.size & _NUMBERS
        if segment.size < full:
            break
    return run


def _segment(frame: Frame) -> _Segment | None:
    """Take a frame apart; None if it is no segment with data, or a special one."""
    if len(frame) < SHORTEST_SEGMENT:
        return None
    kind = frame[_KIND]
    if kind == _IPV4_KIND:
        ethernet, version, size, cut, life, ends, number, more = _IPV4.unpack_from(frame)
        head, end = _IPV4.size, _ETHERNET + size
        if version >> 8 != _VERSION_4 or cut & ~_WHOLE or life & 0xFF != _TCP:
            return None
    elif kind == _IPV6_KIND and len(frame) > _IPV6.size:
        ethernet, version, size, life, ends, number, more = _IPV6.unpack_from(frame)
        cut, head = 0, _IPV6.size
        end = head - _TCP_HEADER + size
        if version >> 28 != _VERSION_6 or life >> 8 != _TCP:
            return None
    else:
        return None
    options = (more >> 28 & 0xF) * 4 - _TCP_HEADER
    behind = head + options
    # What fills a short frame up is not the packet's.
    if more & _FLAGS & ~_PUSH != _ACK or options < 0 or end != len(frame) or behind >= end:
        return None
    flow = (ethernet, version, cut, life, ends, more & ~_PUSH, bytes(frame[head:behind]))
    return _Segment(flow, number, behind, end - behind, more & _PUSH)


def _header(header: bytes, size: int, push: bool) -> bytes:
    """The headers of a large frame of so many bytes. That of TCP has no checksum."""
    made = bytearray(header)
    if header[_KIND] == _IPV4_KIND:
        tcp = _IPV4.size - _TCP_HEADER
        struct.pack_into(">H", made, _ETHERNET + 2, size - _ETHERNET)
        struct.pack_into(">H", made, _ETHERNET + 10, 0)
        total = sum(struct.unpack_from(">10H", made, _ETHERNET))
        struct.pack_into(">H", made, _ETHERNET + 10, -total % 0xFFFF)
    else:
        tcp = _IPV6.size - _TCP_HEADER
        struct.pack_into(">H", made, _ETHERNET + 4, size - tcp)
    struct.pack_into(">H", made, tcp + _TCP_CHECKSUM, 0)
    if push:
        made[tcp + _PUSH_PLACE] |= _PUSH >> 16
    return bytes(made)
