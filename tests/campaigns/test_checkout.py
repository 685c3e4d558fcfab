"""Campaigns whose tasks are runs of the tests' own campaigns."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from chronovisor.campaigns import checkout
from chronovisor.campaigns.campaign import CampaignError, Result
from chronovisor.campaigns.catalogue import CAMPAIGNS, campaign_named
from chronovisor.campaigns.checkout import Checkout, run


def test_every_campaign_is_there_by_its_name() -> None:
    for name in CAMPAIGNS:
        campaign = campaign_named(name)
        assert campaign.name == name
        assert campaign.parameters
        assert campaign.time_limit > 0


@pytest.mark.parametrize(
    ("name", "cases"),
    [
        ("faults", 3),
    ],
)
def test_a_task_runs_the_cases_of_a_seed(name: str, cases: int) -> None:
    result = campaign_named(name).perform(1, {"tasks": 1, "cases": cases}, 7)
    assert not result.found
    assert result.done >= cases * 3 // 4
    assert result.data["seed"] == 7


FAILS = """
import json
import sys
print("seed", sys.argv[2])
assert int(sys.argv[2]) != 6, f"six, with {sys.argv[3]} cases"
print(json.dumps({"odd": 2, "even": 3}))
"""


def test_a_seed_that_fails_is_found_and_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "long.py").write_text(FAILS)
    monkeypatch.setattr(checkout, "TESTS", tmp_path)
    campaign, given = Checkout("sixes", "numbers", 5, 4, "sixes"), {"tasks": 4, "cases": 5}
    course = campaign.course(4, given, False)
    results: list[Result] = [campaign.perform(4, given, part) for part in next(course).parts]
    with pytest.raises(StopIteration) as stop:
        course.send(results)
    assert stop.value.value.data == {"done": {"odd": 6, "even": 9}, "seeds": 4, "failed": [6]}
    failure = results[2].found[0]
    assert failure.words == "AssertionError: six, with 5 cases"
    again = campaign.replay(4, given, failure.case)
    assert again.fails
    assert again.story[0] == "seed 6"
    assert not campaign.replay(4, given, failure.case | {"seed": 5}).fails
    wrong: Any
    for wrong in ({}, {"seed": "x", "cases": 1}, []):
        with pytest.raises(CampaignError, match="this is no case"):
            campaign.replay(4, given, wrong)
    with pytest.raises(CampaignError, match="tasks=0"):
        campaign.course(4, {"tasks": 0, "cases": 5}, False)


def test_a_run_that_hangs_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "long.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(checkout, "TESTS", tmp_path)
    assert run("sleeps", 1, 1, 0.2).words == "it did not end within 0 s"


def test_without_a_checkout_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "TESTS", tmp_path)
    with pytest.raises(CampaignError, match="needs a checkout"):
        run("oracle", 1, 1, 1)


WORKER = """
import sys
from pathlib import Path
from chronovisor.campaigns import checkout
checkout.TESTS = Path(sys.argv[1])
checkout.run("any", 1, 1, 60)
"""
WAITS = """
import os
import time
from pathlib import Path
Path("pid").write_text(str(os.getpid()))
time.sleep(60)
"""


def test_a_task_ends_with_its_worker(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text(WAITS)
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)])
    told, end = tmp_path / "pid", time.monotonic() + 30
    while not (told.exists() and told.read_text()):
        assert time.monotonic() < end
        time.sleep(0.01)
    # Readable as soon as the process has ended.
    task = os.pidfd_open(int(told.read_text()))
    try:
        worker.kill()
        worker.wait()
        assert select.select([task], [], [], 30)[0], "the task's process is still there"
    finally:
        os.close(task)
