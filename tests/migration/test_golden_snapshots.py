"""Snapshots that earlier versions wrote, and this one when its format was new."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
from golden_snapshots import DIRECTORY, GUESTS

from chronovisor.cli import main
from chronovisor.machine.host import Host
from chronovisor.migration.snapshot_format import OLDEST_VERSION, VERSION
from chronovisor.migration.snapshot_restore import opened, restore_from
from chronovisor.timebase.history import AwayClock

ALL = sorted(path for path in DIRECTORY.glob("format-*/*.xz") if not path.name.endswith(".json.xz"))
TOO_OLD = [path for path in ALL if int(path.parent.name.removeprefix("format-")) < OLDEST_VERSION]
KEPT = [path for path in ALL if path not in TOO_OLD]


@pytest.fixture(params=KEPT, ids=[f"{path.parent.name} {path.stem}" for path in KEPT])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A kept snapshot, unpacked, and where it was packed."""
    path = tmp_path / request.param.stem
    path.write_bytes(lzma.decompress(request.param.read_bytes()))
    return path, request.param


def test_this_version_has_some() -> None:
    assert {(path.parent.name, path.stem) for path in KEPT} >= {
        (f"format-{VERSION}", name) for name in GUESTS
    }


@pytest.mark.parametrize("packed", TOO_OLD, ids=lambda path: path.parent.name)
def test_one_that_is_too_old_is_refused_by_its_number(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old"
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    assert main(["inspect", str(path)]) != 0
    number = packed.parent.name.removeprefix("format-")
    assert f"format version {number}" in capsys.readouterr().err


def test_they_hold_what_they_held(kept: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    path, packed = kept
    assert main(["inspect", str(path), "--json"]) == 0
    told = lzma.decompress(packed.with_name(f"{packed.stem}.json.xz").read_bytes())
    assert json.loads(capsys.readouterr().out) == json.loads(told)
    assert main(["inspect", str(path)]) == 0


@pytest.mark.parametrize("clock", ["virtual", "real"])
def test_their_guests_go_on(kept: tuple[Path, Path], clock: str) -> None:
    path, packed = kept
    _, cpu, vcpus, threads = GUESTS[packed.stem]
    cores = vcpus // threads
    with (
        Host(clock=clock, cpu=cpu, cores=cores, threads=threads, tb_origin=77) as host,
        opened(path) as reader,
    ):
        restored = restore_from(reader, host)
        assert restored.hop.clock == AwayClock.NONE
        assert [hop.kind for hop in restored.guest.history.hops] == [
            "move", "resume", "resume", "resume", *["set"] * vcpus, "restore",
        ]  # fmt: skip
        guest = restored.start(running=False)
        guest.console.type("q")
        assert guest.run(120).ok
        told = dict(pair.split("=") for pair in guest.console_text.split() if "=" in pair)
        assert told["back"] == told["lost"] == "0"
        assert told["memory"] == "intact"
        assert int(told["taken"]) > 40
