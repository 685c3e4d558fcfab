"""Debian's kernels boot to BusyBox's shell, as they come, without options that make their boot shorter."""

from __future__ import annotations

import re

import pytest

from chronovisor.machine.ending import EndReason
from chronovisor.machine.host import Host
from linux_guest.guests import (
    BOOT_SECONDS,
    COMPLAINTS,
    OWN,
    PATIENT,
    THREE_LINES,
    TRIXIE,
    TRIXIE_64K,
    Kernel,
    Lines,
    busybox,
)

pytestmark = pytest.mark.oracle
APPEND = f"console=hvc0 {PATIENT}"
SHELL = """#!/bin/sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
echo "release: $(busybox uname -rm)"
echo "page: $(busybox awk '/KernelPageSize/ { print $2 * 1024; exit }' /proc/self/smaps)"
echo "cpus: $(busybox nproc)"
echo "sum: $(busybox seq 1 100 | busybox awk '{ s += $1 / 8 } END { printf "%.3f", s }')"
busybox dd if=/dev/urandom of=/tmp/noise bs=4096 count=256 2> /dev/null
busybox gzip -c /tmp/noise | busybox gunzip -c | busybox cmp - /tmp/noise && echo "gzip: same"
busybox sh -c 'busybox kill -SEGV $$'
echo "signal: $?"
busybox sleep 0.1
echo "init: done"
busybox poweroff -f
"""


def boot(kernel: Kernel, init: str, smp: int = 1, append: str = APPEND) -> Lines:
    """Boot until the guest powers off; return what it printed."""
    lines = Lines()
    with Host(cores=smp, engine="regions") as host:
        guest = host.boot(
            kernel.vmlinux(), "512M", smp=smp, append=append, console=lines, initrd=busybox(init)
        )
        end = guest.run(timeout=BOOT_SECONDS)
    assert end.reason is EndReason.POWER_OFF, lines.text[-2000:]
    assert not COMPLAINTS.search(lines.text), lines.text
    return lines


def check_shell(kernel: Kernel, smp: int) -> None:
    lines = boot(kernel, SHELL, smp)
    release = kernel.vmlinux().name.removeprefix("vmlinux-")
    said = dict(line.split(": ", 1) for line in lines.lines if re.fullmatch(r"[a-z]+: .*", line))
    assert said["release"] == f"{release} ppc64le"
    assert said["page"] == str(kernel.page_size)
    assert said["cpus"] == str(smp)
    assert said["sum"] == "631.250"
    assert said["gzip"] == "same"
    assert said["signal"] == str(128 + 11)
    assert said["init"] == "done"


def test_the_newest_kernel_boots_to_a_shell() -> None:
    """Linux 6.12 with pages of 4 KiB, on two vCPUs."""
    check_shell(TRIXIE, smp=2)


@pytest.mark.soak
@pytest.mark.parametrize("smp", [1, 2])
@pytest.mark.parametrize("kernel", [OWN, TRIXIE, TRIXIE_64K], ids=["own", "trixie", "trixie-64k"])
def test_kernels_boot_to_a_shell(kernel: Kernel, smp: int) -> None:
    check_shell(kernel, smp)


@pytest.mark.soak
@pytest.mark.parametrize("kernel", [OWN, TRIXIE, TRIXIE_64K], ids=["own", "trixie", "trixie-64k"])
def test_kernels_boot_to_a_three_line_init(kernel: Kernel) -> None:
    assert "init: running" in boot(kernel, THREE_LINES).lines
