"""Where the embedded provider and the real kernel answer a question differently, and why.

Every difference is listed here with both answers; one that is not listed, or listed and not there, fails the
suite. `docs/conformance.md` is made of this table: `python -m conformance.document` in `tests/`.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple


class Difference(NamedTuple):
    """Two answers to one question."""

    question: str
    item: str
    embedded: Any
    kernel: Any
    reason: str


_STALE: Final = (
    "Linux keeps a decrementer interrupt that it queued while the vCPU had ceded the processor, and gives it "
    "to the guest at its next entry though DEC_EXPIRY was set to the future meanwhile: it looks at exits "
    "alone whether the interrupt is still due. The embedded provider looks at the deadline itself."
)
_DRIFT: Final = (
    "Linux keeps a decrementer at each exit as DEC + TB, two readings one after the other: the expiry moves "
    "forward by what lies between them, at every exit. The embedded provider's deadline is kept as it is."
)
_PAGE: Final = (
    "Linux refuses an area that crosses one of the host's pages, which have 64 KiB here; the PAPR wants none "
    "that crosses 4 KiB, and the embedded provider refuses that."
)
_MMIO: Final = (
    "Linux leaves an access where the guest has no memory to user space, as a device's (KVM_EXIT_MMIO); no "
    "machine here has devices in memory, and the embedded provider gives the guest a data storage interrupt."
)
_REASONS: Final = (
    "Linux gives each dispatch the one reason 7, that the processor's turn had come; the embedded provider "
    "says why it was dispatched, as the PAPR has it."
)

DIFFERENCES: Final = (
    *(
        Difference(
            "expiry_moved_after_an_interrupt",
            f"ceded, then an offset of {offset:#x}: none comes",
            True,
            False,
            _STALE,
        )
        for offset in (0, 3 << 24)
    ),
    Difference("expiry_over_exits", "the same to the tick", True, False, _DRIFT),
    Difference("registering_by_hypercall", "across a page", (1 << 64) - 4, 0, _PAGE),
    Difference("area_and_log_over_runs", "reasons", "others", "its turn alone", _REASONS),
    Difference("outside_memory", "exit", "hypercall", "MmioExit", _MMIO),
    Difference("outside_memory", "address", "", "0x1000000", _MMIO),
)


def compare(embedded: dict[str, dict[str, Any]], kernel: dict[str, dict[str, Any]]) -> list[str]:
    """Return what is not as the table says, a line each: nothing where both answer as they should."""
    listed = {(d.question, d.item): (d.embedded, d.kernel) for d in DIFFERENCES}
    wrong = []
    for name in sorted(embedded.keys() | kernel.keys()):
        ours, theirs = embedded.get(name, {}), kernel.get(name, {})
        for item in sorted(ours.keys() | theirs.keys()):
            answers = (ours.get(item), theirs.get(item))
            expected = listed.pop((name, item), None)
            if expected is None and answers[0] != answers[1]:
                wrong.append(f"{name}: {item}: embedded {answers[0]!r}, the kernel {answers[1]!r}")
            elif expected is not None and answers != expected:
                wrong.append(f"{name}: {item}: {answers}, and the table says {expected}")
    return wrong + [f"{name}: {item}: listed and never asked" for name, item in listed]
