"""What requests to the kernel's KVM cost through the linux provider, beside a C program that makes the same.

Everything is emulated there, Python twenty times slower than on a processor, and other work on the machine
comes between: the figures say how the two compare, not how fast either is. The least of a few is taken.
"""

from __future__ import annotations

import pytest

from real_kvm.machine import Machine

pytestmark = pytest.mark.real_kvm

TIMES = 300
ROUNDS = 3
WHAT = ("a hypercall to user space and back", "KVM_GET_ONE_REG of TB_OFFSET", "KVM_SET_ONE_REG of TB_OFFSET")


def test_figures(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    rounds = [
        [machine.call(f"real_kvm.figures:{by}", TIMES) for by in ("by_c", "by_python")] for _ in range(ROUNDS)
    ]
    with capsys.disabled():
        print(f"\n{'inside the machine, µs, least of 3':44}{'C':>8}{'Python':>9}{'ratio':>8}")
        for number, what in enumerate(WHAT):
            by_c, by_python = (min(each[by][number] for each in rounds) for by in (0, 1))
            print(f"{what:44}{by_c / 1000:8.1f}{by_python / 1000:9.1f}{by_python / by_c:8.1f}")
    assert all(figure > 0 for each in rounds for by in each for figure in by)
