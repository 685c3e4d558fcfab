"""Compiled code on disk: whatever happens to the files, a start gets the right bytes."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from chronovisor.engine.native import code_cache, compiler
from chronovisor.engine.native.code_cache import directory, fetch
from chronovisor.engine.regions import compile as compile_regions

CONTENT = bytes(range(256)) * 64
VERSION = "0123456789abcdef" * 2


class Maker:
    """Makes CONTENT, or what it is told, and counts how often it is asked to."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content = content
        self.asked = 0

    def __call__(self) -> bytes:
        self.asked += 1
        return self.content


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHRONOVISOR_CACHE", str(tmp_path / "code"))
    code_cache._warn_once.cache_clear()
    return tmp_path / "code"


def test_what_was_made_is_kept(place: Path) -> None:
    make = Maker()
    assert [fetch("set", "1", make) for _ in range(3)] == [CONTENT] * 3
    assert make.asked == 1
    assert len(list(place.iterdir())) == 1


def test_another_fingerprint_or_name_is_another_file() -> None:
    first, second, third = Maker(), Maker(b"second"), Maker(b"third")
    assert fetch("set", "1", first) == CONTENT
    assert fetch("set", "2", second) == b"second"
    assert fetch("other", "1", third) == b"third"
    assert fetch("set", "1", Maker(b"wrong")) == CONTENT


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda kept: b"",
    "cut": lambda kept: kept[:-1],
    "cut within the digest": lambda kept: kept[:20],
    "longer": lambda kept: kept + b"\0",
    "a bit of the content": lambda kept: kept[:-1] + bytes([kept[-1] ^ 1]),
    "a bit of the digest": lambda kept: bytes([kept[0] ^ 0x80]) + kept[1:],
    "zeros": lambda kept: bytes(len(kept)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_made_anew(place: Path, damage: Callable[[bytes], bytes]) -> None:
    fetch("set", "1", Maker())
    (file,) = place.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    make = Maker()
    assert fetch("set", "1", make) == CONTENT
    assert make.asked == 1
    assert file.read_bytes() == whole


def test_a_directory_that_cannot_be_written_costs_time_alone(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place.write_text("a file where the directory should be")
    make = Maker()
    assert [fetch("set", "1", make), fetch("set", "1", make)] == [CONTENT] * 2
    assert make.asked == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"], "it is said, and once"
    assert str(place) in caplog.text


def _file(place: Path) -> Path:
    assert fetch("set", "1", Maker()) == CONTENT
    (file,) = place.iterdir()
    return file


DISTRUSTED: dict[str, Callable[[Path], None]] = {
    "others can write to the file": lambda file: file.chmod(0o602),
    "its group can write to the file": lambda file: file.chmod(0o620),
    "others can write to the directory": lambda file: file.parent.chmod(0o777),
    "the file is a symbolic link": lambda file: _link(file),
    "the file is a FIFO": lambda file: _fifo(file),
}


def _link(file: Path) -> None:
    elsewhere = file.rename(file.with_suffix(".elsewhere"))
    file.symlink_to(elsewhere)


def _fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("distrust", DISTRUSTED.values(), ids=DISTRUSTED)
def test_code_that_somebody_else_could_have_written_is_made_anew(
    place: Path, distrust: Callable[[Path], None]
) -> None:
    distrust(_file(place))
    make = Maker(b"anew")
    assert fetch("set", "1", make) == b"anew"
    assert make.asked == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("whose", ["file", "directory"])
def test_code_of_another_user_is_made_anew(place: Path, whose: str) -> None:
    file = _file(place)
    os.chown(file if whose == "file" else place, 65534, 65534)
    assert fetch("set", "1", Maker(b"anew")) == b"anew"


def test_what_fails_to_be_made_leaves_nothing(place: Path) -> None:
    def fail() -> bytes:
        raise RuntimeError("no code")

    with pytest.raises(RuntimeError, match="no code"):
        fetch("set", "1", fail)
    assert not place.exists() or not list(place.iterdir())
    assert fetch("set", "1", Maker()) == CONTENT


def test_a_directory_is_not_listed_for_each_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[Path] = []
    monkeypatch.setattr(code_cache, "_drop_oldest", listed.append)
    monkeypatch.setattr(code_cache, "_written", code_cache._Written())
    monkeypatch.setattr(code_cache, "MOST", 64 * 10 * len(CONTENT))
    for number in range(100):
        fetch(f"page{number}", "1", Maker())
    assert len(listed) == 9


def _start(number: int) -> bytes:
    big = b"".join(bytes([n]) * 4096 for n in range(256))
    return fetch("set", "1", lambda: big)


def test_what_was_not_used_for_longest_goes_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_cache, "MOST", 4 * (len(CONTENT) + 32))
    for number in range(4):
        fetch(f"page{number}", VERSION, Maker())
        path = place / code_cache._file_name(f"page{number}", VERSION)
        os.utime(path, (number, number))
    assert fetch("page0", VERSION, Maker(b"wrong")) == CONTENT
    fetch("page4", VERSION, Maker())
    assert sorted(path.name[:5] for path in place.iterdir()) == ["page0", "page2", "page3", "page4"]


def _no_space(**options: object) -> tuple[int, str]:
    """As `mkstemp`, on a full disk: the kernel's own device says so at each write."""
    _, name = _MKSTEMP(**options)
    return os.open("/dev/full", os.O_WRONLY), name


def _read_only(**options: object) -> tuple[int, str]:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


_MKSTEMP = tempfile.mkstemp


@pytest.mark.parametrize("fails", [_no_space, _read_only])
def test_a_disk_that_takes_nothing_costs_time_alone(
    place: Path,
    fails: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert fetch("before", VERSION, Maker()) == CONTENT
    monkeypatch.setattr(code_cache.tempfile, "mkstemp", fails)
    make = Maker()
    assert [fetch("set", VERSION, make) for _ in range(2)] == [CONTENT] * 2
    assert make.asked == 2
    assert fetch("before", VERSION, Maker(b"wrong")) == CONTENT, "what is there is used"
    assert len(list(place.iterdir())) == 1, "nothing unfinished stays"
    (said,) = caplog.messages
    assert said.startswith(f"compiled code cannot be kept in {place}: ")


def _age(path: Path) -> None:
    os.utime(path, (1, 1))


def test_what_is_there_is_counted_by_kind_and_cleared(place: Path) -> None:
    assert (code_cache.contents(), code_cache.clear()) == ({}, (0, 0)), "there is no directory yet"
    names = ("runtime", "everyday-64le", "pairs-32be", "i_9_1_2-64le", "regions-64le-" + VERSION)
    for name in names:
        fetch(name, VERSION, Maker())
    left, writing = (place / f"runtime-{VERSION}.o{letters}.part" for letters in ("abc", "def"))
    for path in (left, writing):
        path.write_bytes(b"half")
    _age(left)
    found = code_cache.contents()
    assert sum(files for files, _ in found.values()) == len(names) + 2
    assert found["unfinished"] == (2, 8)
    assert found["regions, by page"] == (1, len(CONTENT) + 32)

    others = [place / name for name in ("notes.o", "prog-1.o", "x.part")]
    for path in others:
        path.write_text("somebody's own")
        _age(path)
    assert code_cache.clear() == (len(names) + 1, len(names) * (len(CONTENT) + 32) + 4)
    assert sorted(place.iterdir()) == sorted([*others, writing])
    assert fetch("runtime", VERSION, Maker(b"anew")) == b"anew"


def test_a_directory_that_others_can_write_to_is_not_cleared(place: Path) -> None:
    fetch("set", VERSION, Maker())
    place.chmod(0o777)
    with pytest.raises(PermissionError, match="others can write to it"):
        code_cache.clear()
    assert len(list(place.iterdir())) == 1


def test_starts_at_once_all_get_whole_code(place: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        answers = set(pool.map(_start, range(16)))
    assert answers == {_start(0)}
    assert [file.suffix for file in place.iterdir()] == [".o"]


def test_the_directory_is_the_users_own_unless_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHRONOVISOR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert directory() == Path("/somewhere/chronovisor")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert directory() == Path.home() / ".cache" / "chronovisor"


def test_the_sets_are_whole_whoever_asks_for_them_first() -> None:
    """Else a start that had not declared the instructions yet would keep an empty set for all others."""
    ask = "from chronovisor.engine.native import sets; print(len(sets.everyday_keys()))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 300


def test_what_the_package_brings_needs_no_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brought = place.parent / "brought"
    brought.mkdir()
    monkeypatch.setattr(code_cache, "BROUGHT", brought)
    whole = hashlib.sha256(CONTENT).digest() + CONTENT
    (brought / code_cache._file_name("set", VERSION)).write_bytes(whole)
    make = Maker(b"made")
    assert fetch("set", VERSION, make) == CONTENT
    assert make.asked == 0
    assert not place.exists()
    assert fetch("set", "1", make) == b"made"
    # Damaged: it is made and kept as if the package brought nothing.
    (brought / code_cache._file_name("set", VERSION)).write_bytes(whole[:-1])
    assert [fetch("set", VERSION, make) for _ in range(2)] == [b"made"] * 2
    assert make.asked == 2


_AHEAD = """
import os, pathlib, sys
from chronovisor.kvm.embedded import compile_ahead
# The sets take seconds: tests/test_distribution.py has a package with all of them.
compile_ahead._MODES = compile_ahead._SELDOM_MODES = ()
compile_ahead.main(sys.argv[1])
"""


def test_what_is_compiled_ahead_is_what_this_process_would_use(tmp_path: Path) -> None:
    def ahead(directory: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _AHEAD, str(directory)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    place = tmp_path / "ahead"
    assert ahead(place).returncode == 0
    (place / code_cache._file_name("runtime", VERSION)).write_bytes(b"of other sources")
    made = {path: path.stat().st_ino for path in place.iterdir() if VERSION not in path.name}
    assert len(made) == 3
    assert place / code_cache._file_name("runtime", compiler.fingerprint()) in made
    assert ahead(place).returncode == 0
    # The same files, and the other one is gone.
    assert {path: path.stat().st_ino for path in place.iterdir()} == made
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o644}
    (place / "file").write_bytes(b"")
    said = ahead(place / "file" / "below")
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith("native code was not compiled ahead: ")
    assert len(said.stderr.splitlines()) == 1


def test_the_fingerprints_depend_on_every_module_that_makes_code(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_bytes
    handlers, regions = compiler.fingerprint.__wrapped__, compile_regions.fingerprint.__wrapped__
    before, seen = (handlers(), regions()), 0
    for module in sorted(Path(compiler.__file__).parents[1].rglob("*.py")):
        if module.parent.name not in ("engine", "native", "regions"):
            continue
        with monkeypatch.context() as patch:
            # The function is called in this round of the loop alone.
            patch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path == module))  # noqa: B023
            if module.parent.name != "regions":
                assert handlers() != before[0], module
                patch.setattr(compiler, "fingerprint", handlers)
            assert regions() != before[1], module
        seen += 1
    assert seen > 60
    assert (handlers(), regions()) == before


def test_an_option_is_no_folder_for_code(tmp_path: Path) -> None:
    """Once `--help` made a folder of that name."""
    command = [sys.executable, "-m", "chronovisor.kvm.embedded.compile_ahead"]
    for given, status, words in (["--help"], 0, "DIRECTORY"), ([], 2, "required: DIRECTORY"):
        ended = subprocess.run([*command, *given], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == status
        assert words in ended.stdout + ended.stderr
    assert not list(tmp_path.iterdir())
