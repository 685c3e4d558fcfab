"""The demonstration, as a whole program; and that it says so where something is not as it should be."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chronovisor.cli import main
from chronovisor.cli.demo import move, register, sabotage, switch
from chronovisor.cli.demo.findings import Act
from chronovisor.cli.demo.travel import Travelled, in_virtual_time
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.kvm.embedded import system
from chronovisor.kvm.embedded.system import EmbeddedSystem
from chronovisor.proof.sabotage import SABOTAGES
from chronovisor.timebase.types import GRANULE, Ticks

HOP = {
    "from_origin", "to_origin", "guest_tb_before", "guest_tb_after", "elapsed_ticks", "counted_ticks",
    "error_ticks", "error_bound_ticks", "rounding_ticks", "wait_ns", "downtime_ns",
    "elapsed_uncertainty_ticks",
    "ideal_least_ticks", "ideal_most_ticks", "ideal_offset", "rounded_offset",
}  # fmt: skip
YEAR = 31_557_600 * 512_000_000
ORIGIN = 0x0C5_3A7E_1234_5600


COMMAND = [sys.executable, "-c", "import sys; from chronovisor.cli import main; sys.exit(main())"]


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "demo", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    picture = tmp_path_factory.mktemp("demo") / "moves.png"
    done = demo("--json", "--picture", str(picture), "--seed", "7", "--clock", "virtual")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert picture.read_bytes().startswith(b"\x89PNG")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_the_register_as_told(told: dict[str, Any]) -> None:
    seen = told["register"]
    assert (seen["default"], seen["set"], seen["kept"]) == (0, 0x1234567, 0x2000000)
    assert seen["kept_after"] == seen["guest_jump"] == 0x2000000
    assert min(seen["entries"], seen["exits"]) >= 1000
    assert "TBU40" in seen["without_tbu40"]


def test_the_switch_as_told(told: dict[str, Any]) -> None:
    steps = " | ".join(told["switch"]["steps"])
    assert re.search(
        r"mftb .*TBU40 .*mftb .*wrapped .*2\^24 more.* guest's.* let in .* out .* out .*"
        r"timebase is the host's.* dec_expires",
        steps,
    )
    assert told["switch"]["log_entries"] > 0
    assert told["switch"]["log_entries_outside"] == 0


def test_the_hops_as_told(told: dict[str, Any]) -> None:
    check_hops(told["hops"])


def check_hops(hops: list[dict[str, int]]) -> None:
    assert len(hops) >= 5
    for hop in hops:
        assert set(hop) == HOP
        advance = hop["guest_tb_after"] - hop["guest_tb_before"]
        assert advance >= 0
        assert advance - hop["elapsed_ticks"] == hop["error_ticks"]
        assert abs(hop["error_ticks"]) <= hop["error_bound_ticks"]
        assert abs(hop["rounding_ticks"]) <= GRANULE // 2
        assert abs(hop["downtime_ns"] - hop["elapsed_ticks"] * 125 // 64) <= 1
        assert hop["wait_ns"] <= hop["downtime_ns"]
    for one, next_one in itertools.pairwise(hops):
        assert next_one["from_origin"] == one["to_origin"]
        assert next_one["guest_tb_before"] > one["guest_tb_after"]
    phases = [(hop["to_origin"] - hop["from_origin"]) % GRANULE for hop in hops]
    assert phases.count(0) == 3
    distances = [hop["to_origin"] - hop["from_origin"] for hop in hops]
    assert max(distances) > YEAR
    assert min(distances) < -YEAR


def test_the_rest_as_told(told: dict[str, Any]) -> None:
    assert told["backward_steps"] == 0
    longest = max(hop["guest_tb_after"] - hop["guest_tb_before"] for hop in told["hops"])
    assert longest <= told["largest_step_ticks"] <= longest + 2_000_000
    counted = told["decrementer"]
    assert counted["expected"] == counted["taken"] > 100
    assert counted["lost"] == 0
    assert len(told["sabotage"]) == 4
    assert all(entry["caught"] and entry["by"] and entry["name"] for entry in told["sabotage"])
    assert told["verdict"] == "ok"
    assert told["linux"] is None
    assert "virtual clock" in told["linux_left_out"]


def test_the_moves_in_real_time_go_from_process_to_process(tmp_path: Path) -> None:
    """The whole program, as `make demo` runs it."""
    picture = tmp_path / "moves.png"
    done = demo("--json", "--picture", str(picture), "--seed", "7", "--no-linux")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    told = json.loads(done.stdout)
    check_hops(told["hops"])
    assert told["backward_steps"] == 0
    assert told["largest_step_ticks"] >= max(h["guest_tb_after"] - h["guest_tb_before"] for h in told["hops"])
    assert told["decrementer"]["expected"] == told["decrementer"]["taken"] > 100
    assert told["decrementer"]["lost"] == 0
    assert told["verdict"] == "ok"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_is_shown_is_plain_where_it_is_piped(tmp_path: Path) -> None:
    done = demo("--picture", str(tmp_path / "moves.png"), "--seed", "8", "--clock", "virtual")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert str(tmp_path / "moves.png") in done.stdout
    assert done.stdout.count("✓") > 20
    assert "✗" not in done.stdout


def test_the_same_number_shows_the_same(told: dict[str, Any], tmp_path: Path) -> None:
    picture = str(tmp_path / "moves.png")
    again = json.loads(demo("--json", "--picture", picture, "--seed", "7", "--clock", "virtual").stdout)
    assert {**again, "picture": ""} == {**told, "picture": ""}


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    done = demo("--picture", str(tmp_path / "nowhere" / "moves.png"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr


@pytest.mark.parametrize("wrong", SABOTAGES[::3], ids=lambda sabotage: sabotage.name)
def test_a_hypervisor_with_a_part_made_wrong_fails_the_acts(
    wrong: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demonstration itself on a hypervisor that is broken throughout: it must not end well."""
    make = EmbeddedSystem.__init__

    def make_wrong(self: EmbeddedSystem, hypervisor: Hypervisor) -> None:
        make(self, hypervisor)
        wrong.assemble(hypervisor)

    monkeypatch.setattr(EmbeddedSystem, "__init__", make_wrong)
    monkeypatch.setattr(system, "VirtualMachine", wrong.machine)
    status = main(["demo", "--json", "--picture", str(tmp_path / "moves.png"), "--clock", "virtual"])
    assert status != 0
    captured = capsys.readouterr()
    if captured.out:
        assert json.loads(captured.out)["verdict"] == "failed"


def test_sabotage_that_nobody_notices_fails_the_act(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sabotage.watchers, "found", lambda *_: [])
    act = sabotage.play(ORIGIN)
    assert not act.ok
    assert not any(entry["caught"] for entry in act.json["sabotage"])


def test_an_act_that_looked_at_nothing_is_not_well() -> None:
    assert not Act("nothing").ok


@pytest.mark.parametrize("seed", range(2))
def test_the_acts_end_well_whatever_is_drawn(seed: int) -> None:
    chance = random.Random(f"acts {seed}")
    assert register.play(chance.getrandbits(60)).ok
    switched, _ = switch.play(chance.getrandbits(60))
    assert switched.ok, [check.seen for check in switched.checks if not check.ok]
    moved, travelled = move.play(chance, in_virtual_time)
    assert moved.ok, [check.seen for check in moved.checks if not check.ok]
    check_that_doubtful_moves_show_nothing(travelled)


def check_that_doubtful_moves_show_nothing(travelled: Travelled) -> None:
    """The same moves, had none been measured well enough to say that it rounded nothing."""
    passages = [replace(passage, round_trip=Ticks(GRANULE)) for passage in travelled.passages]
    act = Act("doubtful")
    move.judge_in_phase(act, replace(travelled, passages=passages))
    assert act.checks[0].seen.startswith("0 moves between hosts in phase")
    assert not act.ok
