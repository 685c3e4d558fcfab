"""Instructions, declared: ``@instruction("add[o][.] RT,RA,RB", XO, 31, 266)`` over a meaning.

The decorator's text is the assembly template of the book with its options in brackets; the form and
opcodes say how it is encoded; the function below it says what it does, over the notation of
``chronovisor.isa.notation``. The function's parameters after ``m`` name the fields that it uses.
Decoding, encoding, assembly, disassembly and every evaluator come from this one declaration.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from types import FunctionType
from typing import TYPE_CHECKING

from chronovisor.isa.forms import FIELDS, Field, Form, Kind, without_hints
from chronovisor.isa.registers import Privilege
from chronovisor.isa.values import Meaning, Program
from chronovisor.isa.verifier import verify

if TYPE_CHECKING:
    from chronovisor.isa.notation import Machine

_OPTIONS = {"o": "OE", "l": "LK", "a": "AA"}
_MNEMONIC = re.compile(r"^([a-z0-9_]+\.?)((?:\[[ol.a]\])*)$")


@dataclass(frozen=True)
class Instruction:
    """One declared instruction."""

    assembly: str
    """The assembly template, with the mnemonic's options in brackets."""
    mnemonic: str
    options: tuple[str, ...]
    syntax: str
    form: Form
    opcode: int
    extended_opcode: int | None
    fixed: dict[str, int]
    statics: tuple[str, ...]
    operands: tuple[str, ...]
    meaning: Meaning
    cite: str

    def __hash__(self) -> int:
        return hash((self.mnemonic, self.syntax))

    def __repr__(self) -> str:
        return f"<instruction {self.mnemonic}>"

    @cached_property
    def implemented(self) -> bool:
        """Whether the instruction has a meaning here: it is one of INSTRUCTIONS."""
        return any(declared is self for declared in INSTRUCTIONS)

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields that vary: those that the meaning uses and those that the assembly names."""
        return tuple(
            FIELDS[name]
            for name in dict.fromkeys((*self.statics, *self.operands, *self.assembly_fields, *self.options))
        )

    @cached_property
    def assembly_fields(self) -> tuple[str, ...]:
        """The fields that the assembly template names, in its order."""
        return tuple(re.findall(r"[A-Z][A-Za-z0-9]*", self.syntax))

    @cached_property
    def mask(self) -> int:
        """Ones where an instruction word must agree with :attr:`match`."""
        return self._bits(ones=True)

    @cached_property
    def match(self) -> int:
        """The opcode bits of the instruction word."""
        return self._bits(ones=False)

    def _bits(self, ones: bool) -> int:
        bits = (0x3F if ones else self.opcode) << 26
        if self.form.extended_opcode is not None and self.extended_opcode is not None:
            first, last = self.form.extended_opcode
            size = last - first + 1
            bits |= (((1 << size) - 1) if ones else self.extended_opcode) << (31 - last)
        for name, number in self.fixed.items():
            field = FIELDS[name]
            bits |= field.encode((1 << field.width) - 1 if ones else number)
        return bits

    def encode(self, **numbers: int) -> int:
        """The instruction word with these field numbers, others zero; ValueError if one does not fit."""
        word = self.match
        known = {field.name for field in self.fields}
        for name, number in numbers.items():
            if name not in known:
                raise ValueError(f"{self.mnemonic} has no field {name}")
            word |= FIELDS[name].encode(number)
        return word

    def decode_operands(self, word: int) -> tuple[int, ...]:
        """The numbers of the operand fields in ``word``, in the meaning's order."""
        return tuple(FIELDS[name].decode(word) for name in self.operands)

    def decode_statics(self, word: int) -> tuple[int, ...]:
        """The numbers of the static fields in ``word``, in the meaning's order."""
        return tuple(FIELDS[name].decode(word) for name in self.statics)

    def meaning_statics(self, word: int) -> tuple[int, ...]:
        """As `decode_statics`, with the bits cleared that make no difference to the meaning: BO's hints."""
        numbers = self.decode_statics(word)
        return tuple(
            without_hints(number) if name == "BO" else number
            for name, number in zip(self.statics, numbers, strict=True)
        )

    @cache  # noqa: B019 - instructions live as long as the program
    def program(
        self, statics: tuple[int, ...] = (), sixty_four: bool = True, little: bool = False
    ) -> Program:
        """What the instruction does, traced for given static fields and machine mode."""
        m = self._traced(statics, sixty_four, little)
        name = f"{self.mnemonic}{''.join(f'_{s}{v}' for s, v in zip(self.statics, statics, strict=True))}"
        return verify(m.trace.program(name.replace(".", "_"), self.operands))

    def privilege(self, statics: tuple[int, ...] = ()) -> Privilege:
        """The least privilege with which the instruction, with these static fields, can be executed."""
        return self._traced(statics, sixty_four=True, little=False).needs

    def _traced(self, statics: tuple[int, ...], sixty_four: bool, little: bool) -> Machine:
        from chronovisor.isa.notation import Machine

        m = Machine(sixty_four=sixty_four, little=little)
        fields: dict[str, object] = dict(zip(self.statics, statics, strict=True))
        fields.update((name, m.operand(name)) for name in self.operands)
        self.meaning(m, **fields)
        return m


#: Every declared instruction that has a meaning, in the order of declaration.
INSTRUCTIONS: list[Instruction] = []

#: Instructions of facilities that have no meanings yet. What they end in is known.
UNIMPLEMENTED: list[Instruction] = []

#: Opcodes that the book keeps for later hints. They do nothing.
RESERVED: list[Instruction] = []


def instruction(
    assembly: str,
    form: Form,
    opcode: int,
    extended_opcode: int | None = None,
    *,
    cite: str,
    static: tuple[str, ...] = (),
    **fixed: int,
) -> Callable[[Meaning], Meaning]:
    """Declare an instruction; the function below is its meaning.

    ``cite`` is the section of Power ISA 3.0B that describes the instruction. ``static`` names operand fields
    that this meaning needs to know when it is traced (for example a register number that sets how often a
    loop runs). ``fixed`` gives fields that are part of the opcode.
    """

    def declare(meaning: Meaning) -> Meaning:
        encoding = (form, opcode, extended_opcode)
        INSTRUCTIONS.append(_declared(assembly, encoding, fixed, static, meaning, cite))
        return meaning

    return declare


def section(cite: str) -> partial[Callable[[Meaning], Meaning]]:
    """Return `instruction` for the instructions of one section of Power ISA 3.0B."""
    return partial(instruction, cite=cite)


def unimplemented(
    assembly: str,
    form: Form,
    opcode: int,
    extended_opcode: int | None = None,
    *,
    cite: str,
    **fixed: int,
) -> Callable[[Meaning], Meaning]:
    """Declare an instruction that has no meaning yet; the function is what stands in for it."""

    def declare(meaning: Meaning) -> Meaning:
        encoding = (form, opcode, extended_opcode)
        UNIMPLEMENTED.append(_declared(assembly, encoding, fixed, (), meaning, cite))
        return meaning

    return declare


def reserved(name: str, form: Form, opcode: int, extended_opcode: int) -> Callable[[Meaning], Meaning]:
    """Declare an opcode that the book reserves; the function below is what it does until then."""

    def declare(meaning: Meaning) -> Meaning:
        RESERVED.append(_declared(name, (form, opcode, extended_opcode), {}, (), meaning, "Book I 1.8.3"))
        return meaning

    return declare


def _head(assembly: str) -> re.Match[str]:
    matched = _MNEMONIC.match(assembly.partition(" ")[0])
    if matched is None:
        raise ValueError(f"{assembly!r} does not begin with a mnemonic and its options in brackets")
    return matched


def mnemonic_of(assembly: str) -> str:
    """The mnemonic in an assembly template, without its options."""
    return _head(assembly)[1]


@cache
def parameters(function: Callable[..., object]) -> tuple[str, ...]:
    """The names of a function's parameters, as `inspect.signature` has them, which takes longer."""
    unwrapped = inspect.unwrap(function)
    if isinstance(unwrapped, FunctionType) and not hasattr(unwrapped, "__signature__"):
        code = unwrapped.__code__
        return code.co_varnames[: code.co_argcount]
    return tuple(inspect.signature(function).parameters)


def _declared(
    assembly: str,
    encoding: tuple[Form, int, int | None],
    fixed: dict[str, int],
    static: tuple[str, ...],
    meaning: Meaning,
    cite: str,
) -> Instruction:
    _, _, syntax = assembly.partition(" ")
    matched = _head(assembly)
    form, opcode, extended_opcode = encoding
    options = re.findall(r"\[(.)\]", matched[2])
    names = parameters(meaning)[1:]
    for name in (*names, *fixed):
        if name not in FIELDS:
            raise ValueError(f"{assembly!r}: {name} is not an instruction field")
    is_static = {n for n in names if FIELDS[n].kind is Kind.STATIC or n in static}
    return Instruction(
        assembly=assembly,
        mnemonic=matched[1],
        options=tuple(form.record if option == "." else _OPTIONS[option] for option in options),
        syntax=syntax.strip(),
        form=form,
        opcode=opcode,
        extended_opcode=extended_opcode,
        fixed=dict(fixed),
        statics=tuple(n for n in names if n in is_static),
        operands=tuple(n for n in names if n not in is_static),
        meaning=meaning,
        cite=cite,
    )
