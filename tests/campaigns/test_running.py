"""Campaigns on worker processes that are killed in the middle, and a client that is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import distributed
import pytest
import trustme

from campaigns.sums import CAMPAIGN, TRIED
from chronovisor.campaigns import cluster as cluster_module
from chronovisor.campaigns.campaign import Campaign, CampaignError, with_defaults
from chronovisor.campaigns.case_file import CaseFile
from chronovisor.campaigns.catalogue import CAMPAIGNS, campaign_named
from chronovisor.campaigns.cluster import Cluster, at, local
from chronovisor.campaigns.report import replayed, write
from chronovisor.campaigns.results import FILE, Header, Results, created, resumed
from chronovisor.campaigns.running import Ended, Progress, Run
from chronovisor.cli import campaign as campaign_command
from chronovisor.cli import main
from chronovisor.cli.campaign import Wanted
from chronovisor.cli.status import ExitStatus

TESTS = Path(__file__).parents[1]
FIRST = sum(n * n for n in range(100))
SUM = FIRST + FIRST**2 + (FIRST + 1) ** 2


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(TRIED, str(tmp_path_factory.mktemp("tried")))
        patched.syspath_prepend(TESTS)
        with local(2, deaths=0) as made:
            made.prepare()
            yield made


def test_workers_take_no_profiles(cluster: Cluster) -> None:
    told = cluster._client.run(lambda dask_worker: sorted(dask_worker.periodic_callbacks))
    assert len(told) == 2
    for callbacks in told.values():
        assert "heartbeat" in callbacks
        assert not [name for name in callbacks if name.startswith("profile")]


def run(cluster: Cluster, directory: Path, seconds: float | None = None, **chosen: int) -> Ended:
    header = Header.here(CAMPAIGN.name, 1, {**CAMPAIGN.parameters, **chosen}, seconds is not None)
    told: list[Progress] = []
    with created(directory, header) as results:
        ended = Run(CAMPAIGN, results, cluster, seconds, told.append).to_end()
    assert [one.tasks for one in told] == list(range(1, ended.progress.tasks + 1))
    return ended


def tasks(directory: Path) -> list[int]:
    return [json.loads(line)["task"] for line in (directory / FILE).read_text().splitlines()[1:]]


def test_workers_that_die_or_hang_cost_nothing(cluster: Cluster, tmp_path: Path) -> None:
    # The task that hangs is alone in the second batch. Beside the other one, it may lose its only try to it.
    ended = run(cluster, tmp_path, die_once=3, hang_once=FIRST // 10)
    assert ended.answer.data == SUM
    assert ended.is_whole
    assert not ended.failures
    assert sorted(tasks(tmp_path)) == list(range(11))
    assert ended.progress.units == 102


def test_a_task_that_kills_its_workers_or_raises_is_found(cluster: Cluster, tmp_path: Path) -> None:
    chosen = {"die": 2, "raise": 4, "find": 6}
    ended = run(cluster, tmp_path, **chosen)
    lost = sum(n * n for n in [*range(20, 30), *range(40, 50)])
    first = FIRST - lost
    assert ended.answer.data == first + first**2 + (first + 1) ** 2
    report = write(CAMPAIGN, ended, tmp_path)
    assert [(one["task"], one["words"].split(":")[0]) for one in report["failures"]] == [
        (2, "its worker died or hung, each time that it was tried"),
        (4, "the task ends in ArithmeticError"),
        (6, "a square is odd"),
    ]
    # But for the one that would kill this process.
    for one in report["failures"][1:]:
        assert replayed(CAMPAIGN, CaseFile.read(Path(one["file"]))).fails


def test_what_is_there_is_not_done_again(cluster: Cluster, tmp_path: Path) -> None:
    run(cluster, tmp_path)
    lines = (tmp_path / FILE).read_bytes().splitlines(keepends=True)
    kept = [lines[0], *lines[2:7]]
    (tmp_path / FILE).write_bytes(b"".join(kept) + lines[8][:10])
    with resumed(tmp_path, CAMPAIGN.name) as results:
        ended = Run(CAMPAIGN, results, cluster, None, lambda progress: None).to_end()
    assert ended.answer.data == SUM
    assert (tmp_path / FILE).read_bytes().startswith(b"".join(kept))
    assert sorted(tasks(tmp_path)) == list(range(11))
    assert ended.progress.units == 102
    assert ended.progress.units_now == 102 - sum(json.loads(line)["done"] for line in kept[1:])


def test_an_endless_campaign_ends_by_the_clock(cluster: Cluster, tmp_path: Path) -> None:
    ended = run(cluster, tmp_path, seconds=0.5, ms=10)
    assert not ended.is_whole
    assert ended.progress.units == 10 * len(tasks(tmp_path))
    assert ended.answer.data == sum(n * n for n in range(ended.progress.units))


def test_workers_with_other_code_are_refused_by_name(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "code_version", lambda: "9.9 (other)")
    with pytest.raises(CampaignError, match=r"the worker \S+ has version .*; this is 9.9 \(other\)"):
        cluster.prepare()
    # A worker that comes later is found by its first task.
    with pytest.raises(CampaignError, match=r"the worker tls://\S+ has version .*; this is 9.9 \(other\)"):
        run(cluster, tmp_path)


def test_a_worker_that_does_not_answer_is_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "_ANSWER", "3s")
    worker, process = next(iter(cluster._client.run(os.getpid).items()))
    os.kill(process, signal.SIGSTOP)
    try:
        with pytest.raises(CampaignError, match=f"a worker does not answer; .* is {worker}: end it"):
            cluster.prepare()
    finally:
        os.kill(process, signal.SIGCONT)
    cluster.prepare()


def test_a_campaign_that_cannot_run_at_a_worker_ends(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="no numbers here"):
        run(cluster, tmp_path, cannot=1)


def test_an_address_without_a_scheduler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "_PATIENCE", "500ms")
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(CampaignError, match=f"no scheduler can be reached at {address}"), at(address):
            pass


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "chronovisor", "campaign", CAMPAIGN.name, *arguments]


def test_a_client_that_is_killed_loses_nothing(cluster: Cluster, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    arguments = command("--workers", "1", "--seed", "1", "--set", "ms=50", "--results", str(tmp_path / "it"))
    client = subprocess.Popen(arguments, env=environment, start_new_session=True)
    try:
        while not (tmp_path / "it" / FILE).exists() or len(tasks(tmp_path / "it")) < 3:
            assert client.poll() is None
            time.sleep(0.01)
        client.send_signal(signal.SIGKILL)
    finally:
        client.wait()
        # Its worker would end by itself, later.
        os.killpg(client.pid, signal.SIGKILL)
    there = tasks(tmp_path / "it")
    assert 3 <= len(there) < 11
    with resumed(tmp_path / "it", CAMPAIGN.name) as results:
        ended = Run(CAMPAIGN, results, cluster, None, lambda progress: None).to_end()
    assert ended.answer.data == SUM
    assert tasks(tmp_path / "it")[: len(there)] == there
    assert sorted(tasks(tmp_path / "it")) == list(range(11))


def test_tasks_are_cancelled_at_once_if_a_result_cannot_be_written(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[int] = []
    monkeypatch.setattr(cluster._client, "cancel", lambda futures: cancelled.append(len(futures)))

    def add(*_: object) -> None:
        raise CampaignError("the disk is full")

    monkeypatch.setattr(Results, "add", add)
    with pytest.raises(CampaignError, match="the disk is full") as raised:
        run(cluster, tmp_path / "it")
    assert len(cancelled) == 1, raised


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = main(["campaign", *arguments])
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return status, said.err


def test_what_makes_no_sense_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(TESTS)
    with created(tmp_path / "endless", Header.here(CAMPAIGN.name, 1, CAMPAIGN.parameters, endless=True)):
        pass
    for arguments, status, words in [
        (("fleets",), 2, "there is no campaign 'fleets'"),
        (("no.such.module",), 2, "the module no.such.module has no campaign"),
        (("fleet", "--set", "hosts"), 2, "write NAME=NUMBER"),
        (("fleet", "--set", "host=1"), 1, "fleet has no parameter 'host'"),
        (("fleet", "--set", "hosts=150"), 1, "a fleet has cells of 100 hosts"),
        (("fleet", "--workers", "1", "--scheduler", "tcp://x:1"), 2, "give one"),
        (("fleet", "--resume", "there"), 1, "there/results.jsonl cannot be opened"),
        (("fleet", "--resume", "there", "--seed", "1"), 2, "give none"),
        (("fleet", "--resume", "there", "--share", "1"), 2, "give none"),
        (("all", "--resume", "there"), 2, "for one campaign: name it"),
        (("fleet", "--share", "0"), 2, "'--share'"),
        (("fleet", "--replay", "there"), 1, "there cannot be read"),
        (("fleet", "--replay", "there", "--json"), 1, '{"error": "there cannot be read'),
        (("campaigns.sums", "--resume", "endless"), 1, "ends by the clock: give --hours"),
    ]:
        got, said = refused(capsys, *arguments)
        assert (got, words in said) == (status, True), said
    assert [path.name for path in tmp_path.iterdir()] == ["endless"]


def test_all_campaigns_run_though_one_cannot(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: dict[str, Wanted] = {}

    def run_one(campaign: Campaign, wanted: Wanted) -> ExitStatus:
        ran[campaign.name] = wanted
        if campaign.name == "oracle":
            raise CampaignError("there is no QEMU")
        return ExitStatus.OK

    monkeypatch.setattr(campaign_command, "_run", run_one)
    assert main(["campaign", "all", "--share", "3", "--seed", "5", "--results", "soak"]) == 1
    assert ran.keys() == CAMPAIGNS.keys()
    assert {wanted.results for wanted in ran.values()} == {Path("soak") / f"{name}-5" for name in ran}
    assert {wanted.percent for wanted in ran.values()} == {3}
    said = capsys.readouterr()
    assert said.err == "chronovisor: oracle: there is no QEMU\n"
    assert said.out.split() == [f"{name}:" for name in CAMPAIGNS]


def test_a_share_is_of_what_can_be_cut() -> None:
    fleet, proofs, oracle = (campaign_named(name) for name in ("fleet", "proofs", "oracle"))
    assert with_defaults(fleet, {"days": 7}, 3) == {"hosts": 300, "guests": 3000, "days": 7}
    assert with_defaults(proofs, {}, 3) == proofs.parameters
    assert with_defaults(oracle, {}, 1)["tasks"] == 1
    assert with_defaults(oracle, {"tasks": 7}, 1)["tasks"] == 7


def test_the_cluster_is_not_imported_for_other_commands() -> None:
    program = "import sys, chronovisor.cli as c; c.main(['campaign']); sys.exit('distributed' in sys.modules)"
    done: Any = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "fleet" in done.stdout


@pytest.mark.soak
def test_a_scheduler_elsewhere_is_used_and_may_go_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TRIED, str(tmp_path))
    monkeypatch.syspath_prepend(TESTS)
    monkeypatch.setattr(cluster_module, "_PATIENCE", "5s")
    # Not a context: it is closed in the middle.
    elsewhere = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=60
    )
    address = elsewhere.scheduler_address
    with at(address) as made:
        made.prepare()
        assert run(made, tmp_path / "one").answer.data == SUM
    header = Header.here(CAMPAIGN.name, 1, {**CAMPAIGN.parameters, "ms": 100}, False)

    def hear(progress: Progress) -> None:
        if progress.tasks == 3:
            elsewhere.close()

    with created(tmp_path / "two", header) as results:
        with at(address) as made, pytest.raises(CampaignError, match=f"the scheduler at {address} is gone"):
            Run(CAMPAIGN, results, made, None, hear).to_end()
        assert len(results) >= 3
    assert "Traceback" not in capfd.readouterr().err


def test_a_scheduler_is_reached_by_tls_with_the_right_certificates_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "_PATIENCE", "5s")
    names = {}
    for side in ("ours", "other"):
        authority = trustme.CA()
        names[side] = paths = [tmp_path / f"{side}-{what}.pem" for what in ("ca", "certificate", "key")]
        issued = authority.issue_cert("127.0.0.1")
        for what, path in zip(
            (authority.cert_pem, issued.cert_chain_pems[0], issued.private_key_pem), paths, strict=True
        ):
            what.write_to_path(path)

    def certificates(*given: Path | None) -> Any:
        authority, certificate, key = (one and str(one) for one in given)
        tls = {"ca-file": authority, "client": {"cert": certificate, "key": key}}
        return dask.config.set({f"distributed.comm.tls.{name}": value for name, value in tls.items()})

    authority, certificate, key = map(str, names["ours"])
    security = distributed.Security(
        tls_ca_file=authority,
        require_encryption=True,
        **{f"tls_{role}_cert": certificate for role in ("scheduler", "worker", "client")},
        **{f"tls_{role}_key": key for role in ("scheduler", "worker", "client")},
    )
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tls://",
        security=security,
        dashboard_address="127.0.0.1:0",
        silence_logs=60,
    ) as elsewhere:
        address = elsewhere.scheduler_address
        for given, words in [
            (names["other"], f"no scheduler can be reached at {address}: "),
            ([names["ours"][0], *names["other"][1:]], f"no scheduler can be reached at {address}: "),
            ([None, None, None], f"{address} needs certificates, and Dask's configuration names none"),
            ([tmp_path / "none", *names["ours"][1:]], "cannot be used: .*No such file"),
        ]:
            with certificates(*given), pytest.raises(CampaignError, match=words) as raised, at(address):
                pass
            assert "\n" not in str(raised.value)
        with certificates(*names["ours"]), at(address) as made:
            made.prepare()
            assert run(made, tmp_path / "results").answer.data == SUM


@pytest.mark.soak
def test_a_worker_with_several_threads_is_refused_by_name() -> None:
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0", silence_logs=60
        ) as elsewhere,
        at(elsewhere.scheduler_address) as made,
        pytest.raises(CampaignError, match=r"the worker tcp://\S+ has 2 threads: start it with --nthreads 1"),
    ):
        made.prepare()
