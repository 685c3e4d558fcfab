"""Makes `docs/conformance.md` from `page.md`, the questions and the table of differences."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from conformance.differences import DIFFERENCES
from conformance.questions import questions
from conformance.transcript import NO_REQUESTS, NOT_BUILT, records

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "conformance.md"
PAGE: Final = Path(__file__).parent / "page.md"


def document() -> str:
    """Return the page."""
    asked = "".join(
        f"| {name.replace('_', ' ')} | {' '.join((ask.__doc__ or '').split())} |\n"
        for name, ask in questions().items()
    )
    differing = "".join(
        f"| {d.question.replace('_', ' ')} | {d.item} | {_shown(d.embedded)} | {_shown(d.kernel)} |\n"
        for d in DIFFERENCES
    )
    reasons = "".join(f"- {reason}\n" for reason in dict.fromkeys(d.reason for d in DIFFERENCES))
    return PAGE.read_text().format(
        requests=sum(r["op"] not in NO_REQUESTS for r in records("kvm_transcript")),
        missing=", ".join(sorted(NOT_BUILT)),
        questions=asked,
        differences=differing,
        reasons=reasons,
    )


def _shown(answer: object) -> str:
    if isinstance(answer, bool):
        return "yes" if answer else "no"
    return hex(answer) if isinstance(answer, int) else str(answer) or "–"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
