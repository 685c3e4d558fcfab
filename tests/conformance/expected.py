"""Every answer of the embedded provider, as it should be: `embedded_answers.json`.

An answer that changes fails the suite, and so does one that is no longer given. After a change that is meant,
write the file anew, `python -m conformance.expected` in `tests/`, and read the difference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from conformance.questions import Answers, ask_all

FILE: Final = Path(__file__).parent / "embedded_answers.json"


def expected() -> dict[str, Answers]:
    """Return the answers by question."""
    answers: dict[str, Answers] = json.loads(FILE.read_text())
    return answers


if __name__ == "__main__":
    FILE.write_text(json.dumps(ask_all("embedded"), indent=1) + "\n")
