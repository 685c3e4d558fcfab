"""A debugger's breakpoints and steps on the kernel's own KVM, if QEMU emulates what that needs."""

from __future__ import annotations

import errno

import pytest
from conformance.breakpoint_questions import ask_with_breakpoints

from real_kvm.machine import Machine

pytestmark = pytest.mark.real_kvm


@pytest.mark.parametrize("kind", ["machine", "bare_machine"])
def test_breakpoints_and_steps_are_the_embedded_providers_or_refused(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """QEMU before 8.1 does not tell KVM which instruction interrupted the guest."""
    inside: Machine = request.getfixturevalue(kind)
    answers = inside.call("conformance.breakpoint_questions:ask_with_breakpoints", "linux", limit=120)
    if (refused := answers.get("refused")) is not None:
        assert refused["errno"] == errno.EOPNOTSUPP
        assert "ends no run at them" in refused["words"]
    else:
        assert answers == ask_with_breakpoints("embedded", "concrete")
