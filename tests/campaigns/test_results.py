"""What is written of a campaign survives, counts once, and belongs to one campaign."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from chronovisor.campaigns import results as module
from chronovisor.campaigns.campaign import CampaignError, Failure, Result
from chronovisor.campaigns.results import FILE, Header, created, resumed

HEADER = Header.here("sums", 7, {"numbers": 100}, endless=False)
RESULTS = [Result(3, [1, {"a": 2}]), Result(0, None, (Failure("wrong", {"case": 1}),)), Result(5, "x" * 200)]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    with created(tmp_path, HEADER) as results:
        for task, result in enumerate(RESULTS):
            results.add(task, result)
    return tmp_path


def test_what_was_written_is_read(written: Path) -> None:
    with resumed(written, "sums") as results:
        assert results.header == HEADER
        assert [results.get(task) for task in range(4)] == [*RESULTS, None]


def test_a_result_counts_once(written: Path) -> None:
    before = (written / FILE).read_bytes()
    with resumed(written, "sums") as results:
        results.add(0, Result(99, "another"))
    assert (written / FILE).read_bytes() == before
    # Even if it is in the file twice.
    again = json.dumps({"task": 0, **asdict(Result(99, "another"))}).encode() + b"\n"
    (written / FILE).write_bytes(before + again)
    with resumed(written, "sums") as results:
        assert results.get(0) == RESULTS[0]
        assert len(results) == 3


def test_a_file_that_ends_anywhere_gives_the_tasks_that_are_whole(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.os, "fsync", lambda file: None)
    whole = (written / FILE).read_bytes()
    header = whole.index(b"\n") + 1
    for end in range(header, len(whole) + 1):
        (written / FILE).write_bytes(whole[:end])
        with resumed(written, "sums") as results:
            lines = whole[:end].count(b"\n") - 1
            assert len(results) == lines
            for task, result in enumerate(RESULTS):
                results.add(task, result)
        assert (written / FILE).read_bytes() == whole


@pytest.mark.parametrize(
    ("header", "campaign", "words"),
    [
        (HEADER, "fleet", "has results of the campaign sums, not of fleet"),
        (Header("sums", 7, {}, False, "0.0.1 (abc)"), "sums", "has results of 0.0.1 (abc); this is"),
        (Header("sums", 7, {}, False, HEADER.code, format=9), "sums", "does not begin with the header"),
    ],
)
def test_results_of_another_campaign_are_refused(
    tmp_path: Path, header: Header, campaign: str, words: str
) -> None:
    with created(tmp_path, header):
        pass
    with pytest.raises(CampaignError) as refused, resumed(tmp_path, campaign):
        pass
    assert words in str(refused.value)


@pytest.mark.parametrize("line", [b"", b"{}", b"null\n", b'{"format": 1}\n', b"\xff\xfe\n"])
def test_a_file_without_a_header_is_refused(tmp_path: Path, line: bytes) -> None:
    (tmp_path / FILE).write_bytes(line)
    with pytest.raises(CampaignError, match="does not begin with the header"), resumed(tmp_path, "sums"):
        pass


@pytest.mark.parametrize("line", [b"{}\n", b"[]\n", b"junk\n", b'{"task":1,"done":1,"data":1,"found":[1]}\n'])
def test_a_line_that_is_no_result_is_named(written: Path, line: bytes) -> None:
    with open(written / FILE, "ab") as file:
        file.write(line)
    with pytest.raises(CampaignError, match=f"{FILE}:5: this is no result"), resumed(written, "sums"):
        pass


def test_two_processes_do_not_write_to_one_directory(written: Path) -> None:
    with resumed(written, "sums"):
        with pytest.raises(CampaignError, match="another process writes"), resumed(written, "sums"):
            pass
        with pytest.raises(CampaignError, match="holds results already"), created(written, HEADER):
            pass


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file grow beyond this: a write that goes beyond is cut short, then fails, as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize("room", [0, 50])
def test_a_full_disk_loses_nothing(written: Path, room: int) -> None:
    before = (written / FILE).read_bytes()
    with resumed(written, "sums") as results:
        with files_of_at_most(len(before) + room), pytest.raises(CampaignError, match="make room, then"):
            results.add(3, RESULTS[2])
        assert (written / FILE).read_bytes() == before
        results.add(3, RESULTS[2])
    with resumed(written, "sums") as results:
        assert results.get(3) == RESULTS[2]


def test_every_result_is_synced_before_it_counts(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(module.os, "fsync", lambda file: synced.append((written / FILE).stat().st_size))
    with resumed(written, "sums") as results:
        results.add(3, RESULTS[0])
    assert synced == [(written / FILE).stat().st_size]
