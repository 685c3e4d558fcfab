"""Options that do nothing without another one are refused, in one line and with the status of wrong usage."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import pytest

from chronovisor.cli import COMMANDS, main
from chronovisor.cli.needed_options import _RULES
from chronovisor.cli.status import ExitStatus

GUEST = "hello-le.elf"
REFUSED = {
    f"run {GUEST} --ticks-per-instruction 2": "--clock virtual",
    "receive unix:s --ticks-per-instruction 2": "--clock virtual",
    "restore f --ticks-per-instruction 2 --clock real": "--clock virtual",
    f"run {GUEST} --wait": "--gdb",
    f"run {GUEST} --gdb-time freeze": "--gdb",
    f"run {GUEST} --stay": "--qmp",
    f"run {GUEST} --log-file f": "--log",
    f"run {GUEST} --log-size 1M": "--detach or --console file:FILE",
    "receive unix:s --escape ^a --detach": "a console on the terminal",
    f"run {GUEST} --escape ^a --console none": "a console on the terminal",
    "receive unix:s --append x": "--kernel",
    "restore f --initrd x": "--kernel",
    "restore f --changed-disks": "--disk",
    "migrate one --cancel --time freeze": "the ADDRESS of a destination",
    "migrate one --resolve --token x": "the ADDRESS of a destination",
    "migrate one unix:s --time freeze --max-step 3": "--time catch-up",
    "resume one --max-step 3": "--time catch-up",
    "migrate one unix:s --suspend-limit 3": "--cooperative",
    "migrate one unix:s --progress": "--json",
    f"run {GUEST} --tls-credentials d": "a tls: address",
    "receive tcp:127.0.0.1:0 --allow me": "a tls: address",
    "migrate one unix:s --tls-ca f": "a tls: address",
    "gdb one --tls-key f": "a tls: address",
    f"run {GUEST} --insecure --qmp unix:q": "a tcp: address",
    "gdb one --at unix:g --insecure": "a tcp: address",
    "gdb one --symbols f": "--attach",
    "top --once --interval 2": "a table that renews itself",
    "scan f --no-prove --timeout 3": "--prove",
    "prove --limit 3": "--code",
    "demo --no-linux --packages d": "--linux",
    "clockcheck log --arch ppc64": "--program or --initramfs",
}
TAKEN = (
    # Each fails for another reason: the rules come first.
    f"run {GUEST} --clock virtual --ticks-per-instruction 0",
    "run nosuch --gdb 0 --wait --gdb-time freeze",
    "run nosuch --gdb 127.0.0.1:0 --insecure",
    "run nosuch --initrd i --append x",
    "run nosuch --console file:f --log-size 0",
    "receive defer --tls-credentials d --insecure --allow me",
    "gdb nosuch --at tls:localhost:1 --allow me",
    "migrate nosuch tcp:127.0.0.1:1 --insecure --time catch-up --max-step 3",
)


@pytest.mark.parametrize("line", REFUSED)
def test_what_does_nothing_is_refused(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == ExitStatus.USAGE
    said = capsys.readouterr().err
    assert said.endswith(f" does nothing without {REFUSED[line]}\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize("line", TAKEN)
def test_what_does_something_is_not(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) != ExitStatus.OK
    assert "does nothing" not in capsys.readouterr().err


def test_an_option_of_a_file_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "guest.toml"
    file.write_text(f'image = "{GUEST}"\nticks-per-instruction = 2\n')
    assert main(["run", "--config", str(file)]) == ExitStatus.USAGE
    assert "--ticks-per-instruction does nothing without --clock virtual" in capsys.readouterr().err


def test_each_rule_is_tried_and_knows_its_options() -> None:
    parameters = {
        name
        for command in COMMANDS.values()
        for name in inspect.signature(import_module(command.module).command).parameters
    }
    for rule in _RULES:
        assert set(rule.options) | set(rule.looks_at) <= parameters
        tried = {
            name
            for line, needs in REFUSED.items()
            for name in rule.options
            if needs == rule.needs and f"--{name.replace('_', '-')}" in line
        }
        assert tried, rule
