"""`chronovisor prove`: what it says, and that only what is proven passes."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator

import pytest

from chronovisor.cli import main
from chronovisor.cli.status import ExitStatus
from chronovisor.proof import claims, switch
from chronovisor.proof.paths import Case
from chronovisor.proof.prover import Claim, Tight, Verdict, prove
from chronovisor.proof.sabotage import shift_without_check


def bounded(limit: int, case: Case) -> None:
    x = case.any("x", 0, 1000)
    case.assume("it is even", x % 2 == 0)
    case.tell(lambda: f"x is {x}")
    case.require("it is below the limit", x + 1 < limit)


def vacuous(case: Case) -> None:
    x = case.any("x", 0, 1)
    case.assume("it is 2", x + 0 == 2)
    case.require("anything", x > 5)


def hard(case: Case) -> None:
    a, b = case.any("a", 2, 2**64), case.any("b", 2, 2**64)
    case.require("they are not its factors", a * b != (2**61 - 1) * (2**62 + 135))


def claim(body, *tight) -> Claim:  # type: ignore[no-untyped-def]
    return Claim("the-name", "P9", "what is claimed", body, tuple(Tight("one further", t) for t in tight))


def holds(case: Case) -> None:
    bounded(1002, case)


def does_not_hold(case: Case) -> None:
    bounded(1001, case)


PROVEN = claim(holds, does_not_hold)


def proving(monkeypatch: pytest.MonkeyPatch, *claimed: Claim) -> None:
    monkeypatch.setattr(claims, "CLAIMS", claimed)
    monkeypatch.setattr("multiprocessing.cpu_count", lambda: 0)


def test_all_proven_is_success(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    proving(monkeypatch, PROVEN)
    assert main(["prove"]) == ExitStatus.OK
    printed = capsys.readouterr().out
    assert "P9" in printed
    assert "what is claimed" in printed
    assert "a  it is even" in printed
    assert "1 of 1 claims proven" in printed


@pytest.mark.parametrize(
    ("other", "timeout", "said"),
    [
        (claim(does_not_hold), "60", "the-name is refuted: not so: it is below the limit. With x = 0x3e8"),
        (claim(vacuous), "60", "the-name says nothing: its assumptions never hold together"),
        # The claim that holds has to be proven within that time too.
        (claim(hard), "3", "the-name is undecided: time-out of 3 s, 0 paths done"),
        (claim(holds, holds), "60", "the-name is not shown to be tight: one further: proven"),
    ],
    ids=["refuted", "vacuous", "undecided", "not tight"],
)
def test_anything_else_is_a_failure(
    other: Claim,
    timeout: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    proving(monkeypatch, PROVEN, other)
    assert main(["prove", "--timeout", timeout]) == ExitStatus.FAILED
    printed = capsys.readouterr().out
    assert said in printed
    assert "1 of 2 claims proven" in printed


def test_json_is_one_object(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    proving(monkeypatch, PROVEN, claim(does_not_hold))
    assert main(["prove", "--json"]) == ExitStatus.FAILED
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] == "not proven"
    first, second = answer["claims"]
    assert first["holds"]
    assert first["outcome"] == "proven"
    assert first["assumptions"] == ["it is even"]
    assert first["tight"][0]["outcome"] == "refuted"
    assert first["tight"][0]["counterexample"] == {
        "not_so": "it is below the limit",
        "values": {"x": 1000},
        "story": ["x is 1000"],
    }
    assert second["outcome"] == "refuted"


def test_a_counterexample_is_told_and_can_be_run_as_a_test(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the numbers made small."""

    def without_the_check(case: Case) -> None:
        switch.entry(case, shifter=shift_without_check)

    monkeypatch.setattr("chronovisor.proof.prover.MINIMISING", 600.0)
    proving(monkeypatch, Claim("a-wrong-one", "P2", "what is claimed", without_the_check))
    assert main(["prove"]) == ExitStatus.FAILED
    printed = capsys.readouterr().out
    story, _, test = printed.partition("as a test case:\n")
    assert story.endswith(
        """\
  H = 0xffffff: TB is read: 0xffffff
  H = 0x1000000, 1 ticks later: TBU40 is written: 0x1ffffff
  H = 0x1000000, 0 ticks later: TB is read: 0x1000000
  H = 0x1000000, 0 ticks later: no write
  H = 0x1000000, 0 ticks later: TB is read: 0x1000000
  with the offset 0x1000000 it should be 0x2000000
"""
    )
    names: dict[str, Callable[[], None]] = {}
    exec(textwrap.dedent(test.rpartition("\n0 of 1")[0]), names)
    with pytest.raises(AssertionError):
        names["test_a_wrong_one"]()
    proving(monkeypatch, Claim("a-wrong-one", "P2", "mended", switch.entry))
    names["test_a_wrong_one"]()


def test_the_user_says_how_many_processes_prove(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def prove_each(claimed: tuple[Claim, ...], timeout: float, processes: int) -> Iterator[Verdict]:
        asked.append(processes)
        return (prove(claim, timeout) for claim in claimed)

    monkeypatch.setattr(claims, "CLAIMS", (PROVEN,))
    monkeypatch.setattr(claims, "prove_each", prove_each)
    monkeypatch.setattr("multiprocessing.cpu_count", lambda: 5)
    assert main(["prove", "--jobs", "3"]) == ExitStatus.OK
    assert main(["prove"]) == ExitStatus.OK
    assert asked == [3, 5]
    assert main(["prove", "--jobs", "0"]) == ExitStatus.USAGE


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_out_that_makes_no_sense(timeout: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "--timeout", timeout]) == ExitStatus.USAGE
    said = capsys.readouterr().err
    assert "--timeout" in said
    assert said.count("\n") == 1


def test_without_z3_it_says_so_in_one_line() -> None:
    program = (
        "import sys; sys.modules['z3'] = None; from chronovisor.cli import main; sys.exit(main(['prove']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == ExitStatus.FAILED
    assert done.stdout == ""
    assert "z3 is not installed" in done.stderr
    assert done.stderr.count("\n") == 1
