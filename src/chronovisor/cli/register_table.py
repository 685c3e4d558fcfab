"""A vCPU's registers as QEMU's human monitor lays them out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

_IN_A_ROW: Final = 4
_CONDITIONS: Final = ((8, "L"), (4, "G"), (2, "E"))
"""Of a field of CR: less, greater, equal."""
_ROWS: Final = (
    (("SRR0", "SRR0"), ("SRR1", "SRR1"), ("PVR", "PVR"), ("VRSAVE", "VRSAVE")),
    tuple((f"SPRG{number}", f"SPRG{number}") for number in range(4)),
    tuple((f"SPRG{number}", f"SPRG{number}") for number in range(4, 8)),
    (("CFAR", "CFAR"),),
    (("LPCR", "LPCR_64"),),
    (("PTCR", "PTCR"), ("DAR", "DAR"), ("DSISR", "DSISR")),
    (("PID", "PID"), ("TBOFS", "TB_OFFSET"), ("DECEX", "DEC_EXPIRY")),
)
"""What each row shows: QEMU's names and KVM's. A register that the host does not have is left out; the last
row is ours.
"""


def lines(vcpu: int, values: Mapping[str, int], guest_time: int) -> Iterator[str]:
    """Give the lines for registers by KVM's names, of a vCPU whose timebase is `guest_time`."""
    yield ""
    yield f"CPU#{vcpu}"
    first = (("NIP", "PC", "  "), ("LR", "LR", ""), ("CTR", "CTR", ""), ("XER", "XER", ""))
    yield " ".join(f"{name} {values[kvm]:016x}{space}" for name, kvm, space in first) + f" CPU#{vcpu}"
    yield f"MSR {values['MSR']:016x}"
    decrementer = (values["DEC_EXPIRY"] - guest_time) & 0xFFFF_FFFF
    yield f"TB {guest_time >> 32:08d} {guest_time & 0xFFFF_FFFF:08d} DECR {decrementer}"
    yield from _file("GPR", "R", values)
    condition = values["CR"]
    fields = "".join(_shown_field(condition >> shift & 0xF) for shift in range(28, -1, -4))
    yield f"CR {condition:08x}  [{fields} ]"
    yield from _file("FPR", "FPR", values)
    yield f"FPSCR {values['FPSCR']:016x}"
    for row in _ROWS:
        found = [f"{name:>5} {values[kvm]:016x}" for name, kvm in row if kvm in values]
        if found:
            yield " ".join(found)


def _file(name: str, kvm: str, values: Mapping[str, int]) -> Iterator[str]:
    for first in range(0, 32, _IN_A_ROW):
        row = " ".join(f"{values[f'{kvm}{number}']:016x}" for number in range(first, first + _IN_A_ROW))
        yield f"{name}{first:02d} {row}"


def _shown_field(field: int) -> str:
    letter = next((letter for bit, letter in _CONDITIONS if field & bit), "-")
    return f" {letter}{'O' if field & 1 else ' '}"
