"""`chronovisor scan`: what it finds, and what it says of files that are not for it."""

import json
import struct
import sys
from pathlib import Path

import pytest

from chronovisor.cli import main
from chronovisor.cli.status import ExitStatus
from chronovisor.isa.assembly import assemble


def elf(text: str, little: bool = True) -> bytes:
    """An executable of one segment, without sections."""
    code, order = assemble(text, 0x1000, little), "<" if little else ">"
    ident = b"\x7fELF" + bytes([2, 1 if little else 2, 1, 0]) + bytes(8)
    header = struct.pack(order + "HHIQQQIHHHHHH", 2, 21, 1, 0x1000, 64, 0, 2, 64, 56, 1, 64, 0, 0)
    return (
        ident + header + struct.pack(order + "IIQQQQQQ", 1, 5, 120, *[0x1000] * 2, *[len(code)] * 2, 4) + code
    )


@pytest.mark.parametrize("little", [True, False])
def test_every_write_is_shown_among_its_neighbours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], little: bool
) -> None:
    path = tmp_path / "code.elf"
    path.write_bytes(elf("nop; mtspr DEC,r3; mtspr TBU40,r4; mtspr CTR,r5", little))
    assert main(["scan", str(path), "--context", "1"]) == ExitStatus.OK
    assert capsys.readouterr().out == (
        "DEC is written at 0x1004\n"
        "    0x1000  ori r0,r0,0\n"
        "  > 0x1004  mtspr DEC,r3\n"
        "    0x1008  mtspr TBU40,r4\n"
        "\n"
        "TBU40 is written at 0x1008\n"
        "    0x1004  mtspr DEC,r3\n"
        "  > 0x1008  mtspr TBU40,r4\n"
        "    0x100c  mtspr CTR,r5\n"
        "\n"
        f"{path}: 2 writes of registers of time: 1 of DEC, 1 of TBU40\n"
    )


def test_the_answer_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "code.elf"
    path.write_bytes(elf("mtspr TBL,r3"))
    assert main(["scan", str(path), "--json"]) == ExitStatus.OK
    answer = json.loads(capsys.readouterr().out)
    assert answer["byte_order"] == "little"
    (write,) = answer["writes"]
    assert (write["register"], write["address"]) == ("TBL", 0x1000)
    assert write["code"] == [{"address": 0x1000, "word": "7c7c43a6", "text": "mtspr TBL,r3"}]


SWITCH = """
        mfspr   r6, TB
        add     r5, r5, r6
        mtspr   TBU40, r5
        mfspr   r7, TB
        cmpld   r7, r5
        {check}
        addis   r5, r5, 0x100
        mtspr   TBU40, r5
        blr
"""


def test_a_switch_is_recognised_and_proven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "code.elf"
    path.write_bytes(elf(SWITCH.format(check="bge 0x1020")))
    assert main(["scan", str(path)]) == ExitStatus.OK
    told = capsys.readouterr().out
    assert "\n0x1000 up to 0x1020 is a switch: r5 is added to the timebase\n  proven: at the end" in told
    assert told.endswith(f"{path}: 2 writes of registers of time: 2 of TBU40\n")
    assert main(["scan", str(path), "--no-prove"]) == ExitStatus.OK
    assert "is a switch" not in capsys.readouterr().out


def test_a_switch_that_is_wrong_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "code.elf"
    path.write_bytes(elf(SWITCH.format(check="bgt 0x1020") + "mtspr TBU40,r9", little=False))
    assert main(["scan", str(path)]) == ExitStatus.FAILED
    told = capsys.readouterr().out
    assert "\n  refuted: not so: at the end the timebase is what it was" in told
    assert told.endswith("\n0x1024 is not part of a recognised switch\n")
    assert main(["scan", str(path), "--json"]) == ExitStatus.FAILED
    (switch,) = json.loads(capsys.readouterr().out)["switches"]
    assert (switch["from"], switch["to"], switch["offset"]) == ("0x1000", "0x1020", "r5")
    assert switch["findings"][0]["counterexample"]["story"]


def test_without_the_prover_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "code.elf"
    path.write_bytes(elf(SWITCH.format(check="bge 0x1020")))
    monkeypatch.setitem(sys.modules, "z3", None)
    needs_it = ("chronovisor.proof.", "chronovisor.engine.symbolic")
    for name in [name for name in sys.modules if name.startswith(needs_it)]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["scan", str(path)]) == ExitStatus.USAGE
    assert "z3 is not installed" in capsys.readouterr().err
    assert main(["scan", str(path), "--no-prove"]) == ExitStatus.OK


def test_a_file_that_is_none_of_ours_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text"
    path.write_text("hello")
    assert main(["scan", str(path)]) == ExitStatus.BAD_IMAGE
    assert capsys.readouterr().err == f"chronovisor: {path}: this is not an ELF file\n"
    assert main(["scan", str(tmp_path / "nothing")]) == ExitStatus.BAD_IMAGE
    assert main(["scan"]) == ExitStatus.USAGE
