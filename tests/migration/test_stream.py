import random
import struct
from dataclasses import replace
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from move_streams import (
    HEADER,
    MEMORY,
    RUNS,
    BytesPipe,
    commit,
    filled_memory,
    offer,
    read_move,
    state,
    whole_move,
)

from chronovisor.machine.sizes import Topology
from chronovisor.machine.vio.lan import NetworkState
from chronovisor.memory import PAGE_SIZE, GuestMemory
from chronovisor.memory.in_use import runs_in_use
from chronovisor.migration.encoding import KINDS, decode, encode
from chronovisor.migration.errors import StreamError
from chronovisor.migration.messages import Aborted, Accepted, Acknowledged, Query, Ready, Refused, Unknown
from chronovisor.migration.stream import (
    HEAD_SIZE,
    HEADER_SIZE,
    MAXIMUM_RUN,
    MAXIMUM_STATE,
    Header,
    Reader,
    Writer,
)
from chronovisor.papr.logical_lan import CHANGEABLE
from chronovisor.timebase.record import MoveRecord

MOVE = whole_move()
U64 = st.integers(0, (1 << 64) - 1)
S64 = st.integers(-(1 << 63), (1 << 63) - 1)


def refusal(data: bytes) -> str:
    with pytest.raises(StreamError) as caught:
        read_move(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_move_comes_out_as_it_went_in() -> None:
    memory = GuestMemory(MEMORY)
    came = read_move(MOVE, memory)
    sent_state = replace(state(filled_memory(), RUNS), memory=())
    assert came == [offer(), sent_state, commit()]
    assert memory.read(0, MEMORY) == filled_memory().read(0, MEMORY)
    assert set(memory.dirty.take()) == {1, 2, MEMORY // PAGE_SIZE - 1}


@given(
    st.builds(
        MoveRecord, U64, U64, U64, U64, elapsed_ticks=S64, counted_ticks=S64, error_ticks=S64,
        error_bound_ticks=S64, rounding_ticks=S64, wait_ns=S64, downtime_ns=S64,
        elapsed_uncertainty_ticks=S64, ideal_least_ticks=S64, ideal_most_ticks=S64,
        ideal_offset=U64, rounded_offset=U64,
    ),
    st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn", "Zl", "Zp", "Cf", "Co", "Zs")), max_size=99),
)  # fmt: skip
def test_answers_come_out_as_they_went_in(record: MoveRecord, reason: str) -> None:
    answers = (
        Acknowledged(record),
        Aborted(reason),
        Refused(reason),
        Query("ab"),
        Accepted(),
        Ready(),
        Unknown(),
    )
    for message in answers:
        number = next(n for n, (made, _) in KINDS.items() if made is type(message))
        assert decode(number, encode(message)) == message


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(MOVE) - 1), st.integers(1, 255))
def test_a_change_in_any_byte_is_found(at: int, change: int) -> None:
    damaged = bytearray(MOVE)
    damaged[at] ^= change
    refusal(bytes(damaged))


@pytest.mark.parametrize("at", [*range(HEADER_SIZE + 2 * HEAD_SIZE), *range(len(MOVE) - 80, len(MOVE))])
def test_a_change_at_the_seams_is_found(at: int) -> None:
    damaged = bytearray(MOVE)
    damaged[at] ^= 0x80
    refusal(bytes(damaged))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(MOVE) - 1))
def test_an_end_anywhere_is_found(at: int) -> None:
    refusal(MOVE[:at])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_garbage_is_refused(data: bytes, after_header: bool) -> None:
    refusal((HEADER.encode() if after_header else b"") + data)


def test_the_header_is_plain() -> None:
    """Read by hand, at the offsets that the format's description gives."""
    data = Header(64 << 20, 4, 2).encode()
    assert data[:8] == b"\x89CHRONO\n"
    assert struct.unpack_from(">HHIQI", data, 8) == (5, 48, 2, 64 << 20, 4)
    assert struct.unpack_from(">Q", data, 32) == (512_000_000,)
    assert len(data) == 48
    assert struct.unpack_from(">I", data, 44)[0] == crc32(data[:44])


def test_a_newer_version_is_refused_by_its_number() -> None:
    newer = MOVE[:8] + struct.pack(">H", 7) + bytes(3)
    assert "version 7" in refusal(newer)


def test_an_older_version_is_refused_by_its_number() -> None:
    older = MOVE[:8] + struct.pack(">H", 1) + MOVE[10:]
    assert "version 1" in refusal(older)
    assert "update the other side" in refusal(older)


def test_an_offer_of_another_size_than_the_headers_is_refused() -> None:
    assert "header tells of one guest" in refusal(whole_move(replace(HEADER, memory_size=MEMORY * 2)))
    assert "header tells of one guest" in refusal(whole_move(replace(HEADER, vcpus=1)))


def framed(number: int, kind: int, addr: int, payload: bytes, size: int | None = None) -> bytes:
    head = struct.pack(
        ">IHHIQII", number, kind, 0, len(payload) if size is None else size, addr, 0, crc32(payload)
    )
    return head + struct.pack(">I", crc32(head)) + payload


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (framed(0, 100, MEMORY, bytes(PAGE_SIZE)), "comes for a guest of"),
        (framed(0, 100, MEMORY - PAGE_SIZE, bytes(2 * PAGE_SIZE)), "comes for a guest of"),
        (framed(0, 100, (1 << 64) - PAGE_SIZE, bytes(PAGE_SIZE)), "comes for a guest of"),
        (framed(0, 100, 8, bytes(PAGE_SIZE)), "no pages"),
        (framed(0, 100, 0, bytes(100)), "no pages"),
        (framed(0, 100, 0, b""), "no pages"),
        (framed(0, 100, 0, b"", MAXIMUM_RUN + PAGE_SIZE), "makes no sense"),
        (framed(0, 101, 8, struct.pack(">Q", PAGE_SIZE)), "no pages"),
        (framed(0, 101, 0, struct.pack(">Q", 100)), "no pages"),
        (framed(0, 101, 0, struct.pack(">Q", 0)), "no pages"),
        (framed(0, 101, 0, struct.pack(">Q", MEMORY + PAGE_SIZE)), "no pages"),
        (framed(0, 101, MEMORY, struct.pack(">Q", PAGE_SIZE)), "comes for a guest of"),
        (framed(0, 101, 0, bytes(7)), "makes no sense"),
        (framed(0, 101, 0, bytes(9)), "makes no sense"),
        (framed(0, 4, 0, b"", MAXIMUM_STATE + 1), "makes no sense"),
        (framed(0, 2, 0, b"", 1 << 20), "makes no sense"),
        (framed(0, 2, 1, b""), "makes no sense"),
        (framed(1, 2, 0, b""), "frame 1 comes when frame 0 is due"),
        (framed(0, 2, 0, b"\0"), "too many"),
        (framed(0, 99, 0, b""), "unknown kind"),
        (framed(0, 8, 0, b"\0\0\0\x04a\x1b[0"), "cannot be printed"),
        (framed(0, 8, 0, b"\0\0\0\x01\xff"), "UTF-8"),
        (framed(0, 8, 0, b"\xff\xff\xff\xffx"), "takes 1000"),
        (framed(0, 6, 0, struct.pack(">Qqqqq", 1, 9, 8, 0, 0)), "interval is empty"),
    ],
)
def test_frames_that_no_sender_writes_are_refused(frame: bytes, words: str) -> None:
    pipe = BytesPipe(frame)
    with pytest.raises(StreamError, match=words):
        Reader(pipe).message(GuestMemory(MEMORY))
    assert pipe.largest <= MAXIMUM_RUN


def test_memory_is_taken_only_where_it_is_expected() -> None:
    with pytest.raises(StreamError, match="none is expected"):
        Reader(BytesPipe(framed(0, 100, 0, bytes(PAGE_SIZE)))).message()


def test_registers_are_kvms_own() -> None:
    """An unknown id, one that is not carried (TB_OFFSET), and one that comes twice."""
    sent = state(filled_memory(), [])
    good = encode(sent)
    first = next(iter(sent.vcpus[0].one_regs))
    from chronovisor.kvm.ids import ONE_REG_BY_NAME

    ids = {name: struct.pack(">Q", ONE_REG_BY_NAME[name].id) for name in (first, "TB_OFFSET", "DABR", "DSCR")}
    assert ids["DABR"] in good
    assert decode(4, good) == sent
    for wrong, words in (
        (struct.pack(">Q", 5), "unknown id"),
        (ids["TB_OFFSET"], "unknown id"),
        (ids["DSCR"], "twice"),
    ):
        with pytest.raises(StreamError, match=words):
            decode(4, good.replace(ids["DABR"], wrong, 1))


def test_zero_pages_cost_nothing() -> None:
    memory = GuestMemory(64 << 20)
    memory.write(1 << 20, b"x")
    pipe = BytesPipe()
    Writer(pipe).message(state(memory, runs_in_use(memory)))
    assert len(pipe.data) < PAGE_SIZE + 16_384


def test_a_generator_goes_over_and_goes_on() -> None:
    generator = random.Random(7)
    sent = state(filled_memory(), [])
    sent = replace(sent, machine=replace(sent.machine, random_state=generator.getstate()))
    came = decode(4, encode(sent))
    assert came == replace(sent, memory=())
    other = random.Random()
    other.setstate(came.machine.random_state)
    assert other.random() == generator.random()
    for odd in ((4, generator.getstate()[1], None), (3, (1,), None), (3, generator.getstate()[1], 0.5)):
        with pytest.raises(StreamError, match="generator"):
            encode(replace(sent, machine=replace(sent.machine, random_state=odd)))


def test_what_a_guest_asked_of_its_network_goes_over() -> None:
    sent = state(filled_memory(), [])
    disk, network = sent.machine.devices
    assert isinstance(network, NetworkState)
    for attributes in (0, int(CHANGEABLE)):
        devices = (disk, replace(network, attributes=attributes))
        asked = replace(sent, machine=replace(sent.machine, devices=devices))
        assert decode(4, encode(asked)) == replace(asked, memory=())


def test_a_topology_that_no_guest_has_is_refused() -> None:
    payload = encode(offer(topology=Topology(2, 1)))
    with pytest.raises(StreamError, match="vCPUs"):
        decode(1, payload.replace(struct.pack(">II", 2, 1), struct.pack(">II", 0, 1), 1))
