"""The one machine that all tests here ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from real_kvm.machine import Machine, booted
from real_kvm.traveller import PORT


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A real kernel with KVM HV and this project in it, booted once."""
    with booted(forwarded=[PORT]) as machine:
        yield machine


@pytest.fixture(scope="session")
def bare_machine() -> Iterator[Machine]:
    """The same kernel on the bare (emulated) processor: it writes TBU40 itself."""
    with booted("bare") as machine:
        yield machine
