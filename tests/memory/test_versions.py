"""What pages held at several moments is what copies of all of them say."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from chronovisor.memory import PAGE_SIZE
from chronovisor.memory.versions import PageVersions

CONTENTS = [bytes((n,)) * PAGE_SIZE for n in range(3)]
CHANGES = st.lists(st.dictionaries(st.integers(0, 4), st.integers(0, 2), max_size=4), min_size=1, max_size=8)


@given(CHANGES, st.data())
def test_every_moment_that_is_kept_is_as_it_was(changes: list[dict[int, int]], data: st.DataObject) -> None:
    versions, now, copies = PageVersions(), {}, []
    for moment, change in enumerate(changes):
        for page, content in change.items():
            versions.note(moment, page, CONTENTS[content])
            now[page] = CONTENTS[content]
        copies.append({page: held for page, held in now.items() if held != CONTENTS[0]})
    first = data.draw(st.integers(0, len(changes) - 1))
    versions.forget_before(first)
    assert [dict(versions.at(moment)) for moment in range(first, len(changes))] == copies[first:]
    assert set(versions.known) == {page for change in changes for page in change}


def test_what_did_not_change_and_what_is_forgotten_costs_nothing() -> None:
    versions = PageVersions()
    for moment in range(10):
        versions.note(moment, 7, CONTENTS[1])
        versions.note(moment, 8, CONTENTS[1 + moment % 2])
        versions.note(moment, 9, CONTENTS[0])
    assert versions.size == 11 * PAGE_SIZE
    versions.forget_before(9)
    assert versions.size == 2 * PAGE_SIZE
    assert dict(versions.at(9)) == {7: CONTENTS[1], 8: CONTENTS[2]}
