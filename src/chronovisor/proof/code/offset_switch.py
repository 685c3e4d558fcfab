"""Recognises switches of the timebase by an offset in machine code, and makes claims about them.

The data flow of a TBU40 write is followed back to a sum or difference of a time and an offset. After the
write come the check, the second write, and the stores that keep the new time or remember the offset. The
result is a claim; the prover decides whether it holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from chronovisor.isa.decode import decode
from chronovisor.isa.forms import FIELDS
from chronovisor.isa.instruction import Instruction
from chronovisor.isa.registers import SPR_READ
from chronovisor.proof.code.assumptions import Age, Apart, Assumption, Compared, Place, Register, Steady, Word
from chronovisor.proof.code.claim import CodeClaim
from chronovisor.proof.code.image import CodeImage
from chronovisor.proof.code.time_writes import TimeWrite
from chronovisor.timebase.types import GRANULE, LOW_MASK, MASK64

_WORD = 4
_FAR: Final = 24
"""How many instructions are examined, backward and forward."""
_TAIL: Final = 8
"""The most instructions between the check and the place at which an offset of 0 continues."""
_RETURNS: Final = frozenset({"b", "bclr", "bcctr", "bctar", "rfid", "hrfid"})


@dataclass(frozen=True, slots=True)
class OffsetSwitch:
    """A switch that was recognised."""

    writes: tuple[TimeWrite, ...]
    """The write of TBU40, and the second write if the check leads to one."""
    claim: CodeClaim
    """Claims that the timebase is shifted, and that each kept time is the timebase."""
    remembering: CodeClaim | None
    """Claims that the value added is remembered; None if no store seems to remember it."""

    @property
    def steady(self) -> CodeClaim | None:
        """The claim `remembering`, for an offset that does not change meanwhile."""
        claim = self.remembering
        if claim is None or not isinstance(claim.shifts_by, Word):
            return None
        return replace(claim, assumptions=(*claim.assumptions, Steady(claim.shifts_by)))


@dataclass(frozen=True, slots=True)
class _Step:
    """An instruction with its fields."""

    address: int
    word: int
    found: Instruction

    @property
    def name(self) -> str:
        return self.found.mnemonic

    def field(self, name: str) -> int:
        return FIELDS[name].decode(self.word)

    @property
    def target(self) -> int | None:
        """The target of a branch, if the instruction has it."""
        if self.name not in ("b", "bc"):
            return None
        distance = self.field("LI" if self.name == "b" else "BD")
        return distance if self.field("AA") else self.address + distance

    @property
    def calls(self) -> bool:
        return self.name in ("b", "bc", "bclr", "bcctr") and bool(self.field("LK"))

    def memory(self) -> Word | None:
        """The doubleword that it loads or stores at a fixed distance from a register."""
        if self.name not in ("ld", "std") or not self.field("RA"):
            return None
        return Word(self.field("DS"), self.field("RA"))


@cache
def _registers(found: Instruction, statics: tuple[int, ...]) -> tuple[frozenset[str], frozenset[str]]:
    """The fields that name the general registers that the instruction writes, and reads."""
    written, read = set(), set()
    for statement in found.program(statics).statements():
        name = str(statement.args[0].detail) if statement.args and statement.args[0].op == "operand" else None
        if name is not None and statement.op == "write_file":
            written.add(name)
        elif name is not None and statement.op == "read_file":
            read.add(name)
    return frozenset(written), frozenset(read)


def _writes(step: _Step) -> set[int]:
    written, _ = _registers(step.found, step.found.decode_statics(step.word))
    return {step.field(name) for name in written}


def offset_switches(image: CodeImage, writes: list[TimeWrite]) -> Iterator[OffsetSwitch]:
    """Find the switches among an image's writes of time registers."""
    upper = {write.address: write for write in writes if write.register == "TBU40"}
    done: set[int] = set()
    for write in upper.values():
        if write.address in done:
            continue
        switch = _Recognition(image, upper, write).switch()
        if switch is not None:
            done |= {one.address for one in switch.writes}
            yield switch


class _Recognition:
    """Makes a claim from one write of TBU40."""

    def __init__(self, image: CodeImage, upper: dict[int, TimeWrite], write: TimeWrite) -> None:
        self._image = image
        self._upper = upper
        self._write = write

    def switch(self) -> OffsetSwitch | None:
        """The claim about the code around the write, or None if the code is not recognised as a switch."""
        before = list(self._back(self._write.address))
        summed = _last_writer(before, self._write.source)
        if summed is None or summed.name not in ("add", "subf"):
            return None
        earlier = [step for step in before if step.address < summed.address]
        offset, moment = self._operands(summed, earlier)
        if offset is None or moment is None:
            return None
        shifts_by: Place = Register(offset.register)
        if offset.source is not None and offset.source.memory() is not None:
            shifts_by = offset.source.memory() or shifts_by
        sources = [one.source.address for one in (offset, moment) if one.source is not None]
        start = min(sources, default=summed.address)
        skip, may_skip = self._skip(start, before)
        joined, second = self._join()
        if skip is not None and joined <= skip <= joined + _TAIL * _WORD:
            end = skip
        else:
            end = self._behind_stores(start, joined, offset)
        assumptions: list[Assumption] = [Compared(shifts_by, LOW_MASK, "=", 0)]
        read_before = None if moment.source is None else moment.source.memory()
        if read_before is not None:
            assumptions.append(Age(read_before, GRANULE - 1))
        stores = list(self._stores(start, end, offset))
        keeps = tuple(word for word, kind in stores if kind == "time")
        remembers = next((word for word, kind in stores if kind == "offset" and word != shifts_by), None)
        named = [shifts_by, *keeps, remembers, read_before]
        words = tuple(dict.fromkeys(place for place in named if isinstance(place, Word)))
        if len({word.base for word in words}) > 1:
            assumptions.append(Apart(words))
        claim = CodeClaim(start, end, shifts_by, summed.name == "subf", keeps, assumptions=tuple(assumptions))
        remembering = None
        if remembers is not None:
            # If the offset is 0, the code stores nothing, so the place must hold 0 already.
            none = (Compared(remembers, MASK64, "=", 0),) if may_skip else ()
            remembering = replace(
                claim, keeps=(), remembers=remembers, assumptions=(*claim.assumptions, *none)
            )
        writes = (self._write,) if second is None else (self._write, second)
        return OffsetSwitch(writes, claim, remembering)

    # Steps

    def _step(self, address: int) -> _Step | None:
        word = self._image.word(address)
        found = None if word is None else decode(word)
        if word is None or found is None or not found.implemented:
            return None
        return _Step(address, word, found)

    def _back(self, address: int) -> Iterator[_Step]:
        """The instructions before an address that lead to it, the nearest first."""
        for at in range(address - _WORD, address - _FAR * _WORD, -_WORD):
            step = self._step(at)
            if step is None or step.calls or (step.name in _RETURNS and not _is_conditional(step)):
                return
            yield step

    def _forward(self, address: int, most: int = _FAR) -> Iterator[_Step]:
        """The instructions from an address on, up to a branch that is always taken."""
        for at in range(address, address + most * _WORD, _WORD):
            step = self._step(at)
            if step is None:
                return
            yield step
            if step.calls or (step.name in _RETURNS and not _is_conditional(step)):
                return

    # What the data flows from

    def _operands(self, summed: _Step, earlier: list[_Step]) -> tuple[_Operand | None, _Operand | None]:
        """The offset and the time that go into a sum or difference."""
        a, b = (
            _Operand(summed.field(name), _last_writer(earlier, summed.field(name))) for name in ("RA", "RB")
        )
        if summed.name == "subf":
            return (a, b) if b.is_time(earlier) else (None, None)
        for offset, moment in ((a, b), (b, a)):
            if moment.reads_time and not offset.reads_time:
                return offset, moment
        for offset, moment in ((a, b), (b, a)):
            # Neither was just read from TB. The offset is the one that was compared with 0.
            if moment.is_time(earlier) and _compared(earlier, offset.register):
                return offset, moment
        return None, None

    def _skip(self, start: int, before: list[_Step]) -> tuple[int | None, bool]:
        """The address at which an offset of 0 continues, if any; and whether it takes another path."""
        for step in before:
            if step.address <= start or step.calls:
                continue
            if step.name == "bc" and step.target is not None and step.target > self._write.address:
                return step.target, True
            if step.name == "bclr":
                return None, True
        return None, False

    def _behind_stores(self, start: int, joined: int, offset: _Operand) -> int:
        """The end of a range without another end: after the last store of the time or the offset."""
        last = joined
        for step in self._forward(joined, _TAIL):
            if step.name not in ("ld", "std", "addi", "or"):
                break
            behind = step.address + _WORD
            if len(list(self._stores(start, behind, offset))) > len(list(self._stores(start, last, offset))):
                last = behind
        return last

    def _join(self) -> tuple[int, TimeWrite | None]:
        """The address at which the paths with and without the second write meet, and that write."""
        behind = self._write.address + _WORD
        for step in self._forward(behind):
            if step.name != "bc" or step.target is None:
                continue
            for first, other in ((step.address + _WORD, step.target), (step.target, step.address + _WORD)):
                second = self._second(first, other)
                if second is not None:
                    return other, second
        return behind, None

    def _second(self, first: int, other: int) -> TimeWrite | None:
        """The write on a path that leads to `other`."""
        found = None
        for step in self._forward(first, _TAIL):
            if step.address == other:
                return found
            found = self._upper.get(step.address, found)
            if step.name == "b" and step.target == other:
                return found
        return None

    # Where it flows to

    def _stores(self, start: int, end: int, offset: _Operand) -> Iterator[tuple[Word, str]]:
        """The doublewords stored in the range that hold the new time, or the offset."""
        source = None if offset.source is None else offset.source.memory()
        holds: dict[int, str] = {} if source is not None else {offset.register: "offset"}
        for address in range(start, end, _WORD):
            step = self._step(address)
            if step is None:
                continue
            word = step.memory()
            if step.name == "std" and word is not None and step.field("RS") in holds:
                yield word, holds[step.field("RS")]
            copied = holds.get(step.field("RS")) if step.name == "or" else None
            carried = holds.get(step.field("RA")) if step.name in ("addis", "addi") else None
            for register in _writes(step):
                holds.pop(register, None)
                if step.name == "ld" and word is not None and word == source:
                    holds[register] = "offset"
                elif copied is not None and step.field("RS") == step.field("RB"):
                    holds[register] = copied
                elif carried == "time":
                    holds[register] = carried
            if address == self._write.address:
                holds[self._write.source] = "time"


@dataclass(frozen=True, slots=True)
class _Operand:
    """A register of a sum, and the instruction that wrote it last."""

    register: int
    source: _Step | None

    @property
    def reads_time(self) -> bool:
        """Whether it was read from the timebase."""
        source = self.source
        if source is None or source.name not in ("mfspr", "mftb"):
            return False
        register = SPR_READ.get(source.field("SPR" if source.name == "mfspr" else "TBR"))
        return register is not None and register.name == "TB"

    def is_time(self, earlier: list[_Step]) -> bool:
        """Whether it can be a time: read now, or kept in memory since."""
        return self.reads_time or (self.source is not None and self.source.memory() is not None)


def _last_writer(before: list[_Step], register: int) -> _Step | None:
    return next((step for step in before if register in _writes(step)), None)


def _compared(earlier: list[_Step], register: int) -> bool:
    return any(
        step.name in ("cmpi", "cmpli") and step.field("RA") == register and not step.word & 0xFFFF
        for step in earlier
    )


def _is_conditional(step: _Step) -> bool:
    # Bit 0b10100 of BO: branch always.
    return step.name in ("bclr", "bcctr", "bctar") and step.field("BO") & 0b10100 != 0b10100
