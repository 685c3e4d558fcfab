"""The device tree, as an independent reader finds it."""

import shutil
import subprocess
from typing import Any

import fdt
import pytest

from chronovisor.kvm.interface import HostFacts
from chronovisor.machine import rtas
from chronovisor.machine.devicetree import VTY_UNIT, TreeOptions, flatten
from chronovisor.machine.sizes import Topology

POWER9 = HostFacts("embedded", 0x4E1200, 512_000_000, 2, 2, True, 56, 4096)


def options(bootargs: str = "a b") -> TreeOptions:
    return TreeOptions(5 << 30, Topology(4, 2), POWER9, rtas.tokens(), bootargs)


def words(tree: Any, path: str) -> list[int]:
    where, name = path.rsplit("/", 1)
    return list(tree.get_property(name, where or "/").data)


@pytest.fixture
def tree() -> Any:
    return fdt.parse_dtb(flatten(options()))


def test_memory_of_more_than_32_bits(tree: Any) -> None:
    assert words(tree, "/memory@0/reg") == [0, 0, 1, 1 << 30]


def test_a_node_a_core_and_a_server_a_thread(tree: Any) -> None:
    cores = tree.get_node("/cpus").nodes
    assert [node.name for node in cores] == ["PowerPC,POWER@0", "PowerPC,POWER@2"]
    servers = [list(node.get_property("ibm,ppc-interrupt-server#s").data) for node in cores]
    assert servers == [[0, 1], [2, 3]]
    for node in cores:
        assert list(node.get_property("timebase-frequency").data) == [512_000_000]
        # LPCR[LD] is 0 where a guest starts, so its decrementer is not the large one.
        assert node.get_property("ibm,dec-bits") is None


def test_the_processor_has_radix_trees_and_no_transactional_memory(tree: Any) -> None:
    length, kind, *features = tree.get_property("ibm,pa-features", "/cpus/PowerPC,POWER@0").data
    assert (length, kind) == (len(features), 0)
    assert features[40] & 0x80
    assert not features[22] & 0x80


def test_rtas_services_have_different_tokens(tree: Any) -> None:
    tokens = {
        name: words(tree, f"/rtas/{name}")[0]
        for name in (
            *("display-character", "power-off", "get-time-of-day", "set-time-of-day"),
            *("start-cpu", "query-cpu-stopped-state", "stop-self", "ibm,os-term"),
        )
    }
    assert len(set(tokens.values())) == len(tokens)


def test_the_console_is_where_stdout_points(tree: Any) -> None:
    path = tree.get_property("linux,stdout-path", "/chosen").value
    assert words(tree, f"{path}/reg") == [VTY_UNIT]


@pytest.mark.parametrize("text", ["", "console=hvc0 -v 'x y'", "Grüße", "a" * 3000])
def test_the_command_line_is_handed_on_byte_for_byte(text: str) -> None:
    tree = fdt.parse_dtb(flatten(options(bootargs=text)))
    found = tree.get_property("bootargs", "/chosen")
    assert text.encode() + b"\0" in flatten(options(bootargs=text))
    if text.isascii() and text:
        assert found.value == text


@pytest.mark.skipif(shutil.which("dtc") is None, reason="needs dtc")
def test_the_device_tree_compiler_has_nothing_against_it() -> None:
    done = subprocess.run(["dtc", "-I", "dtb", "-O", "dts"], input=flatten(options()), capture_output=True)
    assert done.returncode == 0
    # It does not know the PAPR's names of a processor's cache properties and of its console.
    assert [
        line for line in done.stderr.decode().splitlines() if "Warning" in line and "vty" not in line
    ] == []
