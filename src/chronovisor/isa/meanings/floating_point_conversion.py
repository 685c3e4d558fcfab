"""Floating-point rounding and conversion (Power ISA 3.0B Book I 4.6.7)."""

from __future__ import annotations

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.ieee import Rounding
from chronovisor.isa.ieee.formats import BINARY32, BINARY64, Format
from chronovisor.isa.meanings.floating_point_arithmetic import compute, finish_double
from chronovisor.isa.meanings.floating_point_exceptions import INVALID, finish
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value


@meaning("frsp")
def frsp(m: Machine, FRT: Value, FRB: Value, Rc: int) -> None:
    result, raised = compute(m, "round", BINARY32, m.fpr[FRB])
    finish_double(m, FRT, BINARY32, result, raised, Rc)


def _declare_from_integer(mnemonic: str, integer: str, precision: Format) -> None:
    @meaning(mnemonic)
    def from_integer(m: Machine, FRT: Value, FRB: Value, Rc: int) -> None:
        result, raised = compute(m, f"{integer} to", precision, m.fpr[FRB])
        finish_double(m, FRT, precision, result, raised, Rc)


def _declare_to_integer(mnemonic: str, integer: str, toward_zero: bool) -> None:
    @meaning(mnemonic)
    def to_integer(m: Machine, FRT: Value, FRB: Value, Rc: int) -> None:
        rounding = int(Rounding.TOWARD_ZERO) if toward_zero else m["FPSCR"]
        result, raised = m.ieee(f"binary64 to {integer}", m.fpr[FRB], rounding)

        def write() -> None:
            # The book leaves the upper half of a word's result undefined.
            m.fpr[FRT] = result.sext(64) if integer.startswith("signed") else result.zext(64)

        # FPRF is undefined: it stays.
        finish(m, raised, write, None, Rc)


def integral(m: Machine, form: Format, operand: Value, rounding: Rounding) -> tuple[Value, Value]:
    """A number rounded to an integer in a mode of the instruction's own, which does not raise XX."""
    result, raised = m.ieee(f"integral {form.name}", operand, int(rounding))
    return result, raised & INVALID


def _declare_integral(mnemonic: str, rounding: Rounding) -> None:
    @meaning(mnemonic)
    def round_to_integral(m: Machine, FRT: Value, FRB: Value, Rc: int) -> None:
        result, raised = integral(m, BINARY64, m.fpr[FRB], rounding)
        finish_double(m, FRT, BINARY64, result, raised, Rc)


for _letter, _integer in (("", "signed"), ("u", "unsigned")):
    _declare_from_integer(f"fcfid{_letter}", f"{_integer}64", BINARY64)
    _declare_from_integer(f"fcfid{_letter}s", f"{_integer}64", BINARY32)
    for _size, _width in (("w", 32), ("d", 64)):
        _declare_to_integer(f"fcti{_size}{_letter}", f"{_integer}{_width}", toward_zero=False)
        _declare_to_integer(f"fcti{_size}{_letter}z", f"{_integer}{_width}", toward_zero=True)

#: The last letter of a rounding instruction, and its mode.
_ROUNDINGS = {
    "n": Rounding.NEAREST_AWAY,
    "z": Rounding.TOWARD_ZERO,
    "p": Rounding.UP,
    "m": Rounding.DOWN,
}

for _letter, _rounding in _ROUNDINGS.items():
    _declare_integral(f"fri{_letter}", _rounding)
