"""`chronovisor prove --code`: what it answers, and what it says of what makes no sense."""

import json
from pathlib import Path

import pytest
from test_scan import elf

from chronovisor.cli import main
from chronovisor.cli.status import ExitStatus

CODE = """
        mfspr   r6, TB
        add     r5, r5, r6
        mtspr   TBU40, r5
        mfspr   r7, TB
        cmpld   r7, r5
        bge     0x1000 + 32
        addis   r5, r5, 0x100
        mtspr   TBU40, r5
        std     r5, 0(r3)
"""
RANGE = ["--from", "0x1000", "--to", "0x1020", "--property", "timebase-add=r5"]
WHOLE = ["--assume", "r5 & 0xffffff = 0"]


@pytest.fixture
def code(tmp_path: Path) -> str:
    path = tmp_path / "code.elf"
    path.write_bytes(elf(CODE))
    return str(path)


def test_a_proof_says_what_it_rests_on(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "--code", code, *RANGE, *WHOLE]) == ExitStatus.OK
    told = capsys.readouterr().out
    assert told.startswith(f"{code}: 0x1000 up to 0x1020, 8 instructions, little-endian\n")
    assert "\n  at the end the timebase is what it was, the ticks that passed, and r5\n" in told
    assert "\n  fewer than 16777216 ticks (32.8 ms) pass in the range\n" in told
    assert "\n  r5 & 0xffffff = 0x0\n" in told
    assert "\nproven, in " in told
    assert told.endswith("the limit is tight: with one tick more it is refuted\n")


def test_a_counterexample_is_a_story_and_a_failure(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["prove", "--code", code, *RANGE[:3], "0x1024", *RANGE[4:], *WHOLE, "--keeps", "0(r3)"]
    assert main(asked) == ExitStatus.FAILED
    told = capsys.readouterr().out
    assert "\nit stores to 0(r3)\n" in told
    assert " ticks ahead of it\n" in told
    assert "\nrefuted: not so: at the end 0(r3) is the timebase but for the ticks since it was read" in told
    assert main([*asked, "--json"]) == ExitStatus.FAILED
    answer = json.loads(capsys.readouterr().out)
    assert (answer["outcome"], answer["byte_order"]) == ("refuted", "little")
    assert answer["counterexample"]["timebase"] >= 1 << 32
    assert answer["counterexample"]["steps"][2]["text"] == "mtspr TBU40,r5"


@pytest.mark.parametrize(
    ("options", "status", "why"),
    [
        (["--from", "0x1000"], ExitStatus.USAGE, "--code also needs --to"),
        (["--from", "0x1010", "--to", "0x1000"], ExitStatus.USAGE, "the range runs backwards"),
        (["--from", "nowhere", "--to", "0x1000"], ExitStatus.USAGE, "there is no code called 'nowhere'"),
        (["--from", "0x1000", "--to", "0x2000"], ExitStatus.USAGE, "0x2000, where the file has no code"),
        (["--from", "0x1000", "--to", "0x1020", "--assume", "r5 is nice"], ExitStatus.USAGE, "no assumption"),
        (["--from", "0x1000", "--to", "0x1020", "--keeps", "r99"], ExitStatus.USAGE, "'r99' is no place"),
        (
            ["--from", "0x1000", "--to", "0x1020", "--timeout", "0"],
            ExitStatus.USAGE,
            "a time-out is a number",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(
    code: str, capsys: pytest.CaptureFixture[str], options: list[str], status: ExitStatus, why: str
) -> None:
    assert main(["prove", "--code", code, "--property", "timebase-add=r5", *options]) == status
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1


def test_no_such_property_and_no_such_file(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "--code", code, *RANGE[:5], "monotone"]) == ExitStatus.USAGE
    assert "'monotone' is not a property" in capsys.readouterr().err
    assert main(["prove", "--code", "/nowhere", *RANGE]) == ExitStatus.BAD_IMAGE
    assert main(["prove", "--from", "0x1000"]) == ExitStatus.USAGE
    assert "give --code FILE" in capsys.readouterr().err


def test_too_little_time_is_undecided(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "--code", code, *RANGE, *WHOLE, "--timeout", "0.001"]) == ExitStatus.FAILED
    assert "undecided: time-out of 0.001 s" in capsys.readouterr().out
