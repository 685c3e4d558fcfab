"""What holds for every test: in CI nothing is skipped, no test fails because the machine is slow, and long
tests run only if `make soak` asks for them.
"""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import soak
from hypothesis import settings

NOTHING_IS_SKIPPED = os.environ.get("CI") == "true"

# Hypothesis would fail an example that takes longer than 200 ms.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


def pytest_configure() -> None:
    # A shell starts its background jobs with SIGINT ignored, and the commands under test would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not soak.PERCENT and item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.skip(reason="CHRONOVISOR_SOAK is not set: `make soak` sets it"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    report: pytest.TestReport = outcome.get_result()
    if NOTHING_IS_SKIPPED and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"nothing may be skipped where CI is true: {reason}"
