"""What is asked of every provider about registers and guests' time.

A question is a function of a system; its answers are named, and are equal on all providers or listed in
`differences`. Answers that are True or False are promises: what must hold is True.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from chronovisor.kvm.interface import HostOptions, System
from chronovisor.kvm.provider import open_system
from chronovisor.timebase.clock import RealTime

Answers = dict[str, Any]
Question = Callable[[System], Answers]

_QUESTIONS: Final[dict[str, Question]] = {}


def question(ask: Question) -> Question:
    """Have this function asked."""
    assert ask.__doc__, "a question says what it asks"
    _QUESTIONS[ask.__name__] = ask
    return ask


def questions() -> dict[str, Question]:
    """All questions by name, in the order in which they are asked."""
    import conformance.decrementer_questions
    import conformance.machine_questions
    import conformance.offset_questions
    import conformance.shared_area_questions  # noqa: F401

    return _QUESTIONS


def ask_all(provider: str, engine: str = "auto") -> dict[str, Answers]:
    """Ask everything of a provider: the answers by question."""
    system = open_system(HostOptions(source=RealTime(), engine=engine), provider)
    try:
        return {name: ask(system) for name, ask in questions().items()}
    finally:
        system.close()
