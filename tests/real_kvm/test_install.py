"""`pip install` on a bare Power system, which has Python and nothing else, and the commands as installed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from real_kvm.machine import Machine

pytestmark = pytest.mark.real_kvm

COMMAND = "/usr/local/bin/chronovisor"


def run(machine: Machine, *command: str, limit: float = 100.0) -> dict[str, Any]:
    ended: dict[str, Any] = machine.call("real_kvm.inside:run_command", *command, limit=limit)
    return ended


@pytest.fixture(scope="module")
def installed(machine: Machine) -> Machine:
    ended = run(
        machine,
        *("/usr/bin/python3.11", "-m", "pip", "install"),
        *("--no-index", "--find-links", "/wheels", "--no-compile", "--no-cache-dir"),
        *("--break-system-packages", "--root-user-action=ignore", "--disable-pip-version-check"),
        "chronovisor",
        limit=150,
    )
    assert ended["status"] == 0, ended["err"]
    print(f"pip install took {ended['seconds']:.1f} s inside")
    return machine


def test_the_commands_run_a_guest_on_the_kernels_kvm(installed: Machine) -> None:
    ended = run(installed, COMMAND, "run", "hello-le.elf", "--json")
    assert ended["status"] == 0, ended["err"]
    assert "decrementer interrupt on time" in ended["out"]
    assert json.loads(ended["err"])["reason"] == "power off"


def test_doctor_says_what_the_machine_can_do(installed: Machine) -> None:
    ended = run(installed, COMMAND, "doctor", "--json")
    assert ended["status"] == 0, ended["err"]
    found = json.loads(ended["out"])
    assert found["provider"] == "linux"
    assert found["machine"] == "ppc64le"
    assert found["tbu40"] is True
    assert found["timebase_frequency"] == 512_000_000
    assert found["capabilities"]["PPC_PAPR"] == 1
    assert any("llvmlite" in each for each in found["missing"])
    assert not any("KVM" in each for each in found["missing"])


def test_nothing_without_wheels_for_power_was_installed(installed: Machine) -> None:
    script = "import importlib.util as u; print([n for n in %r if u.find_spec(n)])"
    names = ["llvmlite", "numpy", "z3", "matplotlib"]
    ended = run(installed, "/usr/bin/python3.11", "-c", script % names)
    assert ended["out"].strip() == "[]"


def test_what_this_host_cannot_be_is_said_in_a_line(installed: Machine) -> None:
    expected = {
        ("--cpu", "power8"): "the processor that it is",
        ("--tb-origin", "1"): "began when it did",
        ("--memory", str((1 << 20) + 4096)): "pages have 65536",
    }
    # One process for all: it takes seconds there to start one.
    script = (
        "from chronovisor.cli import main\n"
        f"for option in {list(expected)!r}:\n"
        "    assert main(['run', 'hello-le.elf', '--provider', 'linux', *option]) == 2\n"
    )
    ended = run(installed, "/usr/bin/python3.11", "-c", script)
    assert ended["status"] == 0, ended["err"]
    for line, said in zip(ended["err"].splitlines(), expected.values(), strict=True):
        assert said in line
