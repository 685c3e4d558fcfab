"""Where QEMU's decimal integers in vector registers are not the book's, or the book leaves them open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chronovisor.isa.decode import decode
from chronovisor.isa.forms import FIELDS

from .case import Case, Outcome

_WHOLE: Final = (1 << 128) - 1
_CR6: Final = 0xF0

#: The instructions that these functions are about.
ALL: Final = (
    "bcdadd. bcdsub. bcdcpsgn. bcdsetsgn. bcds. bcdsr. bcdus. bcdtrunc. bcdutrunc. bcdcfn. bcdctn. bcdcfz. "
    "bcdctz. bcdcfsq. bcdctsq."
)


def _source(case: Case, name: str) -> int:
    assert case.vectors is not None
    return case.vectors.vsr[32 + FIELDS[name].decode(case.words[0])]


def _target(case: Case) -> str:
    return f"vs{32 + FIELDS['VRT'].decode(case.words[0])}"


def _all(case: Case) -> dict[str, int]:
    return {_target(case): _WHOLE, "CR": _CR6}


def undefined(case: Case, outcome: Outcome) -> dict[str, int]:
    """The target, if an operand is not valid or an integer has more than 31 digits."""
    field = (outcome.cr >> 4) & 0xF
    instruction = decode(case.words[0])
    assert instruction is not None
    too_large = instruction.mnemonic == "bcdcfsq." and field & 1
    return {_target(case): _WHOLE} if field == 1 or too_large else {}


def _has_wrong_digits(digits: int) -> bool:
    return any(digits >> shift & 0xF > 9 for shift in range(0, 128, 4))


def unseen_operands(case: Case) -> dict[str, int]:
    """A sum or difference of numbers with wrong digits."""
    wrong = any(_has_wrong_digits(_source(case, name) >> 4) for name in ("VRA", "VRB"))
    return _all(case) if wrong else {}


def zeros(case: Case) -> dict[str, int]:
    """Whether a sum of zeros is less or greater than 0."""
    return {} if (_source(case, "VRA") | _source(case, "VRB")) >> 4 else {"CR": 0xC0, _target(case): 0xF}


def nothing_left(_: Case, outcome: Outcome) -> dict[str, int]:
    """Whether a number that lost all its digits is zero."""
    return {"CR": 0xE0} if outcome.cr >> 4 & 3 == 3 else {}


def replaced_source(case: Case) -> dict[str, int]:
    """A target that is the source as well."""
    word = case.words[0]
    return _all(case) if FIELDS["VRT"].decode(word) == FIELDS["VRB"].decode(word) else {}


def shifted_far(case: Case) -> dict[str, int]:
    """A shift to the right by more than 31 digits."""
    return _all(case) if 0x80 <= _source(case, "VRA") >> 64 & 0xFF < 0x100 - 31 else {}


def compared_unsigned(_: Case) -> dict[str, int]:
    """What CR field 6 says of a number without a sign."""
    return {"CR": _CR6}


def truncated_to_most(case: Case) -> dict[str, int]:
    """A truncation to the largest length that there is."""
    return _all(case) if _source(case, "VRA") >> 64 & 0xFFFF == 0xFFFF else {}


def _unseen_digits(bits: int) -> Callable[[Case], dict[str, int]]:
    def unseen(case: Case) -> dict[str, int]:
        upper = _source(case, "VRB") >> bits
        return _all(case) if _has_wrong_digits(upper) else {}

    return unseen


above_zoned: Final = _unseen_digits(4 + 64)
"""A number with wrong digits above those that a zoned decimal takes."""

above_national: Final = _unseen_digits(4 + 28)
"""A number with wrong digits above those that a national decimal takes."""
