"""Answers kept as data: lines of JSON, xz-compressed, each a program and the cases that share it.

A case is kept as what differs from the background, an outcome as what differs from the case itself as it
would be had the words done nothing at all. So fifty thousand answers are a few megabytes.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from .case import BACKGROUND, BLOCK_SIZE, MSR_LE, MSR_ME, MSR_SF, Case, Outcome
from .operands import MEMORY_PATTERNS

_TRAPPED = 1 << 17
_SHORT = ("vector", "msr", "srr0", "srr1", "cr", "xer", "lr", "ctr")

Answer = tuple[Case, Outcome]


def save(path: Path, answers: Iterable[Answer]) -> None:
    """Write answers; those that share a program must follow each other."""
    with lzma.open(path, "wt", preset=6, encoding="ascii", newline="\n") as out:
        for (address, words, msr), group in groupby(answers, lambda a: (a[0].address, a[0].words, a[0].msr)):
            line = [address, words, msr, [_pack(case, outcome) for case, outcome in group]]
            out.write(json.dumps(line, separators=(",", ":")) + "\n")


def load(path: Path, wanted: Callable[[list[int]], bool] = lambda words: True) -> Iterator[Answer]:
    """The answers in a file, of programs whose words are `wanted`: each is asked for when its turn comes."""
    with lzma.open(path, "rt", encoding="ascii") as lines:
        for line in lines:
            address, words, msr, packed = json.loads(line)
            for each in packed if wanted(words) else ():
                yield _unpack(address, tuple(words), msr, each)


def programs(path: Path) -> Iterator[Case]:
    """The first case of each program in a file."""
    with lzma.open(path, "rt", encoding="ascii") as lines:
        for line in lines:
            address, words, msr, packed = json.loads(line)
            yield _unpack(address, tuple(words), msr, packed[0])[0]


def count(path: Path) -> dict[bool, int]:
    """How many answers a file has of big-endian (False) and of little-endian cases (True)."""
    found = {False: 0, True: 0}
    with lzma.open(path, "rt", encoding="ascii") as lines:
        for line in lines:
            _, _, msr, packed = json.loads(line)
            found[bool(msr & MSR_LE)] += len(packed)
    return found


def _nothing_done(case: Case) -> Outcome:
    return Outcome(
        vector=0x700,
        msr=MSR_SF | MSR_ME,
        srr0=case.end,
        srr1=case.msr | _TRAPPED,
        gpr=case.gpr,
        cr=case.cr,
        xer=case.xer,
        lr=case.lr,
        ctr=case.ctr,
        sprs=case.sprs,
        memory=case.memory,
    )


def _changes(now: Iterable[int], before: Iterable[int]) -> list[int]:
    out: list[int] = []
    for number, (new, old) in enumerate(zip(now, before, strict=True)):
        if new != old:
            out += (number, new)
    return out


def _changed(before: Iterable[int], changes: list[int]) -> tuple[int, ...]:
    values = list(before)
    for number, value in zip(changes[::2], changes[1::2], strict=True):
        values[number] = value
    return tuple(values)


def _doublewords(memory: bytes) -> list[int]:
    return [int.from_bytes(memory[at : at + 8], "big") for at in range(0, BLOCK_SIZE, 8)]


def _pack(case: Case, outcome: Outcome) -> list[Any]:
    idle = _nothing_done(case)
    return [
        _changes(case.gpr, BACKGROUND),
        [case.cr, case.xer, case.lr, case.ctr],
        case.sprs,
        MEMORY_PATTERNS.index(case.memory),
        _changes((getattr(outcome, name) for name in _SHORT), (getattr(idle, name) for name in _SHORT)),
        _changes(outcome.gpr, case.gpr),
        _changes(outcome.sprs, case.sprs),
        _changes(_doublewords(outcome.memory), _doublewords(case.memory)),
    ]


def _unpack(address: int, words: tuple[int, ...], msr: int, packed: list[Any]) -> Answer:
    gpr, (cr, xer, lr, ctr), sprs, pattern, short, new_gpr, new_sprs, stored = packed
    case = Case(
        words=words,
        address=address,
        msr=msr,
        gpr=_changed(BACKGROUND, gpr),
        cr=cr,
        xer=xer,
        lr=lr,
        ctr=ctr,
        sprs=tuple(sprs),
        memory=MEMORY_PATTERNS[pattern],
    )
    idle = _nothing_done(case)
    shorts = dict(zip(_SHORT, _changed((getattr(idle, name) for name in _SHORT), short), strict=True))
    memory = case.memory
    if stored:
        memory = b"".join(word.to_bytes(8, "big") for word in _changed(_doublewords(memory), stored))
    outcome = Outcome(
        **shorts,
        gpr=_changed(case.gpr, new_gpr) if new_gpr else case.gpr,
        sprs=_changed(case.sprs, new_sprs) if new_sprs else case.sprs,
        memory=memory,
    )
    return case, outcome
