"""Files that are replaced whole, and the links that lead to them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chronovisor.migration.whole_file import ForeignLinkError, replacing, resolved

SOMEBODY = 12345


class FailureError(Exception):
    """What goes wrong while a file is written."""


def fail_behind(written: int) -> None:
    raise FailureError


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(FailureError), replacing(path) as file:
        fail_behind(file.write(b"half"))
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_paths_are_resolved_as_the_system_does(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "relative").symlink_to("../c")
    (tmp_path / "c").symlink_to(tmp_path / "a" / "b")
    (tmp_path / "loop").symlink_to("loop")
    for text in ("a/relative/file", "c/../x", "a/b/new/newer", "a/./b", "c"):
        assert resolved(tmp_path / text) == (tmp_path / text).resolve()
    with pytest.raises(OSError, match="too many symbolic links"):
        resolved(tmp_path / "loop")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to somebody else")
def test_a_link_of_somebody_elses_is_not_followed_where_everybody_writes(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (shared / "trap").symlink_to(precious)
    (shared / "way").symlink_to(tmp_path)
    with replacing(shared / "trap") as file:
        file.write(b"ours")
    for name in ("trap", "way"):
        os.lchown(shared / name, SOMEBODY, SOMEBODY)
    for path in (shared / "trap", shared / "way" / "precious"):
        with pytest.raises(ForeignLinkError, match="another user's"), replacing(path) as file:
            file.write(b"stolen")
    assert precious.read_text() == "ours"
    # The directory's owner may lay links in it.
    os.chown(shared, SOMEBODY, SOMEBODY)
    assert resolved(shared / "trap") == precious
