"""Handlers that a test needs, compiled before it begins: from then on native code is what runs.

Only what a test executes is compiled: the work does not grow with the number of instructions that exist.
"""

from __future__ import annotations

from collections.abc import Iterable

from chronovisor.engine.native.library import library
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.native.sets import numbers
from chronovisor.isa.decode import decode


def ensure(words: Iterable[tuple[int, Mode]]) -> None:
    """Wait until the everyday handlers and those of these instruction words are loaded, each in its mode."""
    wanted: dict[Mode, set[int]] = {}
    for word, mode in words:
        wanted.setdefault(mode, set()).add(word)
    for mode, some in sorted(wanted.items()):
        found = [(decode(word), word) for word in sorted(some)]
        keys = [(one, one.meaning_statics(word)) for one, word in found if one in numbers()]
        library(mode).ensure(dict.fromkeys(keys))
