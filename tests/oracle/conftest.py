"""What tests that ask QEMU have in common."""

from __future__ import annotations

import os

import pytest

from .qemu import QEMU, available


@pytest.fixture
def qemu() -> None:
    """Skip the test if there is no QEMU to ask. In CI the test fails then: nothing is skipped there."""
    if available():
        return
    reason = f"{QEMU} is not installed (Debian: qemu-system-ppc): no oracle to ask"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
