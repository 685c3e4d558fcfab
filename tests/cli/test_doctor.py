"""`chronovisor doctor` on a machine without the kernel's KVM for Power."""

import json
import os

import pytest

from chronovisor.cli import main

elsewhere = pytest.mark.skipif(os.uname().machine in ("ppc64le", "ppc64"), reason="this is a Power machine")


@elsewhere
def test_it_says_what_this_machine_can_do_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["provider"] == "embedded"
    assert found["timebase_frequency"] == 512_000_000
    assert found["tbu40"] is True
    assert found["capabilities"]["ONE_REG"] == 1
    assert any(os.uname().machine in each and "KVM" in each for each in found["missing"])


def test_it_says_so_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for word in ("provider", "TBU40", "512000000 Hz", "vCPUs", "PPC_PAPR"):
        assert word in printed


@elsewhere
@pytest.mark.parametrize("command", [["run", "hello-le.elf"], ["receive", "tcp:127.0.0.1:0"]])
def test_the_kernels_kvm_where_there_is_none(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--provider", "linux"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "take the embedded provider" in said


@pytest.mark.parametrize(
    ("option", "value"),
    [("--cpu", "power8"), ("--engine", "concrete"), ("--tb-origin", "1"), ("--clock", "virtual")],
)
def test_what_a_real_host_cannot_be(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "hello-le.elf", "--provider", "linux", option, value]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "embedded" in said
