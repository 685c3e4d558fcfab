"""One suite, two providers: what the real kernel answers beside what the embedded provider does."""

from __future__ import annotations

from collections import Counter

import pytest
from conformance.differences import compare
from conformance.expected import expected
from conformance.transcript import NO_REQUESTS, records

from real_kvm.machine import Machine

pytestmark = pytest.mark.real_kvm

TRANSCRIPT = "kvm_transcript"


def test_the_kernel_answers_as_it_did_when_the_transcript_was_made(machine: Machine) -> None:
    replayed = machine.call("conformance.inside:transcript", TRANSCRIPT, limit=120)
    assert replayed["wrong"] == {}
    requests = Counter(r["op"] for r in records(TRANSCRIPT) if r["op"] not in NO_REQUESTS)
    assert replayed["asked"] == requests


def test_both_providers_answer_alike_but_for_what_is_listed(machine: Machine) -> None:
    kernel = machine.call("conformance.questions:ask_all", "linux", limit=120)
    wrong = compare(expected(), kernel)
    assert not wrong, "\n".join(wrong)


def test_both_providers_answer_alike_where_the_kernel_writes_tbu40_itself(bare_machine: Machine) -> None:
    replayed = bare_machine.call("conformance.inside:transcript", "kvm_transcript_powernv9", limit=120)
    assert replayed["wrong"] == {}
    kernel = bare_machine.call("conformance.questions:ask_all", "linux", limit=120)
    wrong = compare(expected(), kernel)
    assert not wrong, "\n".join(wrong)


def test_registers_of_16_bytes_mean_what_the_guest_loaded(machine: Machine) -> None:
    loaded = machine.call("conformance.inside:loaded_by_the_guest")
    low, high = (int.from_bytes(bytes(half), "little") for half in (range(8), range(8, 16)))
    assert int(loaded["VR0"], 0) == (high << 64) | low
    assert int(loaded["FPR1"], 0) == low
    assert int(loaded["VSR1"], 0) >> 64 == low
