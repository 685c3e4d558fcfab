"""The one machine that all tests here ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from real_kvm.machine import Machine, booted


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A real kernel with KVM HV and this project in it, booted once."""
    with booted() as machine:
        yield machine
