"""Debian's kernel for 64-bit Power: every write of TBU40, and what becomes of each switch of its KVM."""

import os
from pathlib import Path

import pytest

from chronovisor.cli.debian import CACHE, Packages
from chronovisor.proof.code.claim import CodeFinding, place_value
from chronovisor.proof.code.image import CodeImage, read_code
from chronovisor.proof.code.offset_switch import OffsetSwitch, offset_switches
from chronovisor.proof.code.properties import prove_code, prove_each
from chronovisor.proof.code.time_writes import time_writes
from chronovisor.proof.prover import Outcome
from chronovisor.timebase.types import GRANULE, signed64

pytestmark = pytest.mark.oracle

ENTRY_P9, EXIT_P9 = ("kvmhv_vcpu_entry_p9", False), ("kvmhv_vcpu_entry_p9", True)
ENTRY_P8, EXIT_P8 = ("kvmppc_hv_entry", False), ("kvmhv_switch_to_host", True)
HMI_OUT, HMI_BACK = ("kvmppc_p9_realmode_hmi_handler", True), ("kvmppc_p9_realmode_hmi_handler", False)
ALL = (ENTRY_P9, EXIT_P9, ENTRY_P8, EXIT_P8, HMI_OUT, HMI_BACK)


def _kernel() -> Path:
    """The unpacked kernel package; CI fetches it where it is not there."""
    if os.environ.get("CI") == "true":
        return Packages().kernel()
    found = next(iter(sorted(CACHE.glob("linux-image-*/boot"))), None)
    if found is None:
        pytest.skip(f"no kernel package is unpacked below {CACHE}: python -m chronovisor.cli.debian {CACHE}")
    return found.parent


@pytest.fixture(scope="module")
def image() -> CodeImage:
    return read_code(next((_kernel() / "boot").glob("vmlinux-*")))


@pytest.fixture(scope="module")
def switches(image: CodeImage) -> dict[tuple[str, bool], OffsetSwitch]:
    """By the function that they are in, and whether they subtract."""
    return {
        (function_of(image, switch.claim.start), switch.claim.subtracts): switch
        for switch in offset_switches(image, time_writes(image))
    }


def function_of(image: CodeImage, address: int) -> str:
    found = image.function_at(address)
    assert found is not None
    return found[0]


def test_every_write_of_tbu40_is_found_and_every_switch_recognised(
    image: CodeImage, switches: dict[tuple[str, bool], OffsetSwitch]
) -> None:
    assert switches.keys() == set(ALL)
    written = [write.address for write in time_writes(image) if write.register == "TBU40"]
    in_switches = {write.address for switch in switches.values() for write in switch.writes}
    assert len(in_switches) == 2 * len(ALL)
    # The kernel's debugger writes whatever special purpose register it is asked to.
    assert [function_of(image, at) for at in written if at not in in_switches] == ["xmon_mxspr"]


def test_the_module_sets_decrementers_and_no_timebase() -> None:
    (module,) = (_kernel() / "lib" / "modules").rglob("kvm-hv.ko")
    registers = {write.register for write in time_writes(read_code(module))}
    assert registers == {"DEC", "HDEC"}


@pytest.mark.parametrize("where", ALL)
def test_the_timebase_is_shifted_rightly_and_what_is_kept_of_it_may_be_ahead(
    image: CodeImage, switches: dict[tuple[str, bool], OffsetSwitch], where: tuple[str, bool]
) -> None:
    claim = switches[where].claim
    shifted, halves, *kept = prove_each(image, claim, 120.0)
    assert (shifted.outcome, halves.outcome) == (Outcome.PROVEN, Outcome.PROVEN)
    assert len(kept) == (where in (ENTRY_P9, EXIT_P9))
    for finding in kept:
        assert finding.outcome is Outcome.REFUTED
        assert 0 < ahead(image, finding) < GRANULE


def test_what_the_findings_say_of_this_kernel(
    image: CodeImage, switches: dict[tuple[str, bool], OffsetSwitch]
) -> None:
    told = (Path(__file__).parents[2] / "docs" / "findings.md").read_text()
    if Path(image.name).name.removeprefix("vmlinux-") not in told:
        # They are of one kernel; another's code lies elsewhere.
        assert "6.1.0-50-powerpc64le" in told
        return
    for switch in switches.values():
        function, start = image.function_at(switch.claim.start) or ("", 0)
        at = switch.claim.start - start
        assert f"`{function}+{at:#x}` to `+{switch.claim.end - start:#x}`" in told


def ahead(image: CodeImage, finding: CodeFinding) -> int:
    """By how many ticks the time that is kept is ahead of the timebase."""
    assert finding.run is not None
    (place,) = finding.claim.keeps
    return signed64((place_value(image, place, finding.run) - finding.run.timebase) & ((1 << 64) - 1))


@pytest.mark.parametrize("where", [ENTRY_P9, ENTRY_P8, HMI_BACK])
def test_what_is_remembered_as_applied_is_what_was_added_unless_the_offset_is_loaded_twice(
    image: CodeImage, switches: dict[tuple[str, bool], OffsetSwitch], where: tuple[str, bool]
) -> None:
    switch = switches[where]
    assert switch.remembering is not None
    finding = prove_code(image, switch.remembering, 120.0)
    if where == ENTRY_P8:
        assert finding.outcome is Outcome.PROVEN
        return
    assert finding.requirement == switch.remembering.remembered_words
    assert finding.run is not None
    assert any("another thread sets the word" in step.note for step in finding.run.steps)
    assert switch.steady is not None
    assert prove_code(image, switch.steady, 120.0).outcome is Outcome.PROVEN
