"""The questions about registers and guests' time that every provider is asked.

A question is a function of a system. Its answers have names. They are equal on all providers, or listed in
`differences`. An answer that is True or False is a promise, and must be True.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from chronovisor.kvm.interface import HostOptions, System
from chronovisor.kvm.provider import open_system
from chronovisor.timebase.clock import RealTime

Answers = dict[str, Any]
Question = Callable[[System], Answers]

_UNDISTURBED: Final = 1.5
"""Seconds that a question takes at most unless the machine holds it up."""

_QUESTIONS: Final[dict[str, Question]] = {}


def question(ask: Question) -> Question:
    """Register this function as a question."""
    assert ask.__doc__, "a question needs a docstring that says what it asks"
    _QUESTIONS[ask.__name__] = ask
    return ask


def questions() -> dict[str, Question]:
    """All questions by name, in the order in which they are asked."""
    import conformance.controller_questions
    import conformance.debugging_questions
    import conformance.decrementer_questions
    import conformance.machine_questions
    import conformance.offset_questions
    import conformance.shared_area_questions  # noqa: F401

    return _QUESTIONS


def ask_all(provider: str, engine: str = "auto") -> dict[str, Answers]:
    """Ask a provider all questions. Return the answers by question."""
    system = open_system(HostOptions(source=RealTime(), engine=engine), provider)
    try:
        return {name: undisturbed(ask, system) for name, ask in questions().items()}
    finally:
        system.close()


def undisturbed(ask: Question, system: System) -> Answers:
    """The answers to a question. It is asked again if one is False and the machine has held it up for so long
    that a decrementer of 32 bits, which is set for 2 seconds, may have expired meanwhile.
    """
    for _ in range(20):
        begun = monotonic()
        answers = ask(system)
        if False not in answers.values() or monotonic() - begun < _UNDISTURBED:
            break
    return answers
