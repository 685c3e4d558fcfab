"""The questions that the embedded provider and the real kernel answer differently, with the reasons.

Every difference is listed here with both answers. The suite fails at a difference that is not listed, and at
a listed one that does not occur. `docs/conformance.md` is made from this table: `python -m
conformance.document` in `tests/`.
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
    "Linux keeps a decrementer interrupt that it queued while the vCPU had ceded the processor. It delivers "
    "the interrupt at the next entry, even if DEC_EXPIRY was set to the future meanwhile, since it checks "
    "only at exits whether the interrupt is still due. The embedded provider checks the deadline itself."
)
_DRIFT: Final = (
    "Linux computes the expiry at each exit as DEC + TB, from two readings one after the other. So the "
    "expiry moves forward at every exit by the time between the readings. The embedded provider keeps the "
    "deadline."
)
_PAGE: Final = (
    "Linux refuses an area that crosses a page of the host, which has 64 KiB here. The PAPR forbids areas "
    "that cross 4 KiB, and the embedded provider refuses them."
)
_MMIO: Final = (
    "Linux leaves an access outside the guest's memory to user space, as an access to a device "
    "(KVM_EXIT_MMIO). No machine here has devices in memory, so the embedded provider gives the guest a data "
    "storage interrupt."
)
_REASONS: Final = (
    "Linux records the same reason for each dispatch: 7, the virtual processor's turn. The embedded provider "
    "records the actual reason, as the PAPR asks."
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
    """Return a line for each answer that is not as the table says; none if all are."""
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
