"""`chronovisor isa`: the tables of instructions and registers."""

from __future__ import annotations

import json
from typing import Any

import pytest

import chronovisor.cli.isa
from chronovisor.cli import main
from chronovisor.isa.instruction import INSTRUCTIONS, UNIMPLEMENTED
from chronovisor.isa.registers import ALIASES, REGISTERS


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """What the command answers in JSON."""
    assert main(["isa", *arguments, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """What the command prints."""
    assert main(["isa", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_every_instruction_is_listed_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    heading, *rows = lines(capsys)
    assert heading.split() == ["INSTRUCTION", "FORM", "OPCODE", "SECTION", "PRIVILEGE", "EVALUATORS"]
    assert len(rows) == len(INSTRUCTIONS) + len(UNIMPLEMENTED)
    assert max(map(len, rows)) <= 80
    without_meaning = [row for row in rows if row.split()[-2:] == ["-", "-"]]
    assert len(without_meaning) == len(UNIMPLEMENTED)


def test_a_row_says_how_an_instruction_is_declared(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "add") == [
        {
            "instruction": "add[o][.] RT,RA,RB",
            "form": "XO",
            "opcodes": [31, 266],
            "match": "7c000214",
            "mask": "fc0003fe",
            "section": "Book I 3.3.9",
            "privileges": ["problem"],
            "evaluators": {"concrete": "all", "native": "all", "symbolic": "all"},
        }
    ]
    assert lines(capsys, "add")[1].split() == [
        *("add[o][.]", "RT,RA,RB", "XO", "31", "266", "I", "3.3.9", "problem", "c", "n", "s")
    ]


@pytest.mark.parametrize(
    ("mnemonic", "privileges"),
    [
        ("rfid", ["privileged"]),
        ("hrfid", ["hypervisor"]),
        ("tlbie", ["privileged"]),
        ("lwzcix", ["hypervisor"]),
        ("sync", ["problem", "privileged"]),
        ("mfspr", ["problem", "privileged", "hypervisor"]),
        ("treclaim.", []),
    ],
)
def test_privilege(mnemonic: str, privileges: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = answer(capsys, mnemonic)
    assert found["privileges"] == privileges


@pytest.mark.parametrize(
    ("mnemonic", "evaluators"),
    [
        # Native code tells other threads to forget translations.
        ("tlbie", {"concrete": "all", "native": "all", "symbolic": "all"}),
        # Native code reads TB and DEC itself, and no other register that moves by itself.
        ("mfspr", {"concrete": "all", "native": "some", "symbolic": "all"}),
        ("treclaim.", {}),
    ],
)
def test_evaluators(mnemonic: str, evaluators: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = answer(capsys, mnemonic)
    assert found["evaluators"] == evaluators


@pytest.mark.parametrize(
    ("name", "instructions"),
    [
        ("addo.", ["add"]),
        ("addme", ["addme"]),
        ("rldic", ["rldic"]),
        ("rldi", ["rldic", "rldicl", "rldicr", "rldimi"]),
        ("li", ["addi"]),
        ("li64", ["addis", "ori", "oris", "rldicr"]),
        ("mflr", ["mfspr"]),
    ],
)
def test_names(name: str, instructions: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, name)
    assert [each["instruction"].split()[0].split("[")[0] for each in found] == instructions


def test_registers(capsys: pytest.CaptureFixture[str]) -> None:
    found = {each["register"]: each for each in answer(capsys, "--registers")}
    assert set(found) == {*REGISTERS, *ALIASES}
    assert (found["TBU"]["spr_read"], found["TBU"]["spr_write"]) == (269, 285)
    assert (found["TBU40"]["read_by"], found["TBU40"]["written_by"]) == (None, "hypervisor")
    assert {name for name, each in found.items() if each["one_per"] == "core"} == {
        *("TB", "TBU", "TBL", "TBU40", "HDEC", "VTB", "LPCR", "LPIDR", "PCR", "PTCR", "PATE1", "DPDES")
    }
    assert (found["PMC1_U"]["alias_of"], found["PMC1"]["alias_of"]) == ("PMC1", None)
    printed = lines(capsys, "--registers", "tb")
    assert [line.split()[0] for line in printed] == ["REGISTER", "TB", "TBL", "TBU", "TBU40"]
    assert printed[3].split() == ["TBU", "269/285", "32", "problem", "hypervisor", "core"]
    assert max(map(len, printed)) <= 60


def test_a_narrow_terminal_gets_blocks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chronovisor.cli.isa, "terminal_width", lambda: 60)
    assert lines(capsys, "rldic") == [
        "INSTRUCTION  rldic[.] RA,RS,SH6,MB6",
        "FORM         MD",
        "OPCODE       30 2",
        "SECTION      I 3.3.14.1",
        "PRIVILEGE    problem",
        "EVALUATORS   c n s",
    ]


@pytest.mark.parametrize("arguments", [["zz"], ["--registers", "zz"]])
def test_an_unknown_name_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["isa", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "zz" in said
    assert "lists all" in said
