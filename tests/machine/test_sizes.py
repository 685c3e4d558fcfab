"""Numbers as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronovisor.machine import MachineError
from chronovisor.machine.sizes import Topology, parse_duration, parse_size, parse_topology, parse_u64
from chronovisor.timebase.types import Ticks


@pytest.mark.parametrize(
    ("text", "size"),
    [("64M", 64 << 20), ("1g", 1 << 30), ("0x400000", 4 << 20), ("1048576", 1 << 20), (" 2MiB ", 2 << 20)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "M", "-64M", "64X", "1.5G", "0", "4096", "1048577", "0x", "9" * 30 + "T", "64 M B", "١M"]
)
def test_sizes_that_make_no_sense(text: str) -> None:
    with pytest.raises(MachineError, match="memory size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "topology"),
    [("1", Topology(1, 1)), ("4,threads=2", Topology(4, 2)), (" 8 , threads = 8 ", Topology(8, 8))],
)
def test_topologies(text: str, topology: Topology) -> None:
    assert parse_topology(text) == topology


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "two", "3,threads=2", "2,threads=3", "4,threads=0", "4,cores=2", "99999", "1,"]
)
def test_topologies_that_make_no_sense(text: str) -> None:
    with pytest.raises(MachineError):
        parse_topology(text)


@given(st.integers(-(1 << 63), (1 << 64) - 1))
def test_values_of_64_bits_are_taken_modulo(value: int) -> None:
    assert parse_u64(str(value), "it") == parse_u64(hex(value), "it") == value % (1 << 64)


@pytest.mark.parametrize("text", ["", "x", "1.0", "0xg", str(1 << 64), str(-(1 << 63) - 1), "1e9"])
def test_values_that_are_no_numbers_or_too_wide(text: str) -> None:
    with pytest.raises(MachineError, match="timebase origin"):
        parse_u64(text, "timebase origin")


@pytest.mark.parametrize(
    ("text", "ticks"),
    [
        ("1s", 512_000_000),
        ("16.384ms", 1 << 23),
        ("20 ms", 10_240_000),
        ("1.5us", 768),
        ("3ns", 1),
        ("0s", 0),
    ],
)
def test_durations(text: str, ticks: int) -> None:
    assert parse_duration(text, "pause") == Ticks(ticks)


@pytest.mark.parametrize(
    "text", ["", "1", "ms", "-1ms", "1.ms", ".5s", "1e3s", "1h", "999999999s", "nan s", "١s"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(MachineError, match="is no duration"):
        parse_duration(text, "pause")
