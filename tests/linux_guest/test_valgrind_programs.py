"""Instructions print in our guest what they printed on processors, by Valgrind's own tests of them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from chronovisor.cli.debian import FetchError
from chronovisor.machine.ending import EndReason
from chronovisor.machine.host import Host
from linux_guest.guests import OWN, Lines, busybox
from linux_guest.valgrind_programs import COMPILER, PROGRAMS, Program, Programs

pytestmark = pytest.mark.oracle
SECONDS = 1200
"""More than all programs take in one guest: 4 minutes on two cores that did other work too."""
SAMPLE = ("jm-fp", "jm_vec_isa_2_07", "test_isa_2_06_part1", "test_isa_2_07_part2")


@pytest.fixture(scope="module")
def programs() -> Programs:
    if shutil.which(COMPILER) is None or shutil.which("apt-get") is None:
        pytest.skip(f"needs {COMPILER} and Debian's apt, which brings the programs' source")
    try:
        return Programs()
    except FetchError as error:
        pytest.skip(f"apt has no source packages here: {error}")


def _script(chosen: Sequence[Program]) -> Iterator[str]:
    yield "#!/bin/sh"
    yield "busybox mount -t proc proc /proc"
    yield "echo"  # ends the kernel's last line
    for program in chosen:
        yield f"echo 'begin {program.expected}'"
        yield f"/bin/{program.command} 2> /dev/null"
        yield f"echo 'end {program.expected}'"
    yield "busybox poweroff -f\n"


def _printed(text: str, program: Program) -> list[str]:
    found = re.search(rf"^begin {program.expected}\n(.*?)^end {program.expected}$", text, re.M | re.S)
    assert found is not None, f"{program.expected} did not end: {text[-500:]}"
    return found[1].splitlines()


def _compare(programs: Programs, chosen: Sequence[Program], scratch: Path) -> int:
    """Run programs in one guest; the number of lines compared."""
    lines = Lines()
    files = {program.name: programs.compiled(program, scratch) for program in chosen}
    with Host(cores=1, engine="regions") as host:
        guest = host.boot(
            OWN.vmlinux(),
            "512M",
            append="console=hvc0 cryptomgr.notests loglevel=3",
            console=lines,
            initrd=busybox("\n".join(_script(chosen)), files),
        )
        assert guest.run(timeout=SECONDS).reason is EndReason.POWER_OFF, lines.text[-2000:]
    compared = 0
    for program in chosen:
        printed = _printed(lines.text, program)
        wrong = program.differences(printed, programs.expected(program))
        assert not wrong, f"{program.expected}: {len(wrong)} lines differ:\n" + "\n".join(wrong[:10])
        compared += sum(1 for line in printed if not program.open.search(line))
    return compared


def test_a_sample_of_the_programs(programs: Programs, tmp_path: Path) -> None:
    chosen = [program for program in PROGRAMS if program.expected in SAMPLE]
    assert len(chosen) == len(SAMPLE)
    assert _compare(programs, chosen, tmp_path) > 4_500


@pytest.mark.soak
def test_all_programs(programs: Programs, tmp_path: Path) -> None:
    assert _compare(programs, PROGRAMS, tmp_path) > 100_000


def test_a_wrong_line_is_seen() -> None:
    program = next(program for program in PROGRAMS if program.expected == "jm-fp")
    expected = [["fadd 1, 2 => 3", "frsqrte 1 => 4"], ["fadd 1, 2 => 4"]]
    assert not program.differences(["fadd 1, 2 => 3", "frsqrte 1 => 5"], expected)
    assert program.differences(["fadd 1, 2 => 5", "frsqrte 1 => 4"], expected) == [
        "'fadd 1, 2 => 5' instead of 'fadd 1, 2 => 3'"
    ]
    assert program.differences(["fadd 1, 2 => 3"], [expected[0]])
