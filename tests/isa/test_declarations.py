"""The declarations as a whole: every instruction has one encoding, one text, and a meaning that compiles."""

from __future__ import annotations

import re
from itertools import combinations, product
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from chronovisor.engine.python_source import EXPRESSIONS, STATEMENTS, compile_program
from chronovisor.isa.decode import decode
from chronovisor.isa.forms import FIELDS, Field
from chronovisor.isa.instruction import INSTRUCTIONS, RESERVED, UNIMPLEMENTED, Instruction
from chronovisor.isa.operations import EFFECTS, OPERATIONS, PURE

from .every import of_every_instruction


def draw_word(random: Random, declared: Instruction) -> int:
    return declared.encode(**{field.name: field.decode(random.getrandbits(32)) for field in declared.fields})


def test_no_word_is_two_instructions() -> None:
    for one, other in combinations(INSTRUCTIONS, 2):
        both = one.mask & other.mask
        if one.match & both == other.match & both:
            assert one.mask != other.mask, f"{one} and {other} have one encoding"
            assert both in (one.mask, other.mask), f"{one} and {other} overlap"


@of_every_instruction
def test_words_decode_to_their_instruction(declared: Instruction) -> None:
    random = Random(declared.mnemonic)
    for _ in range(20):
        word = draw_word(random, declared)
        assert decode(word) is declared
        numbers = dict(zip(declared.statics, declared.decode_statics(word), strict=True))
        numbers |= dict(zip(declared.operands, declared.decode_operands(word), strict=True))
        assert all(FIELDS[name].decode(word) == number for name, number in numbers.items())


def test_every_instruction_cites_its_section() -> None:
    declared = [*INSTRUCTIONS, *UNIMPLEMENTED, *RESERVED]
    assert len(declared) > 900
    wrong = [
        each for each in declared if not re.fullmatch(r"Book (I|II|III) [1-9]\d*(\.[1-9]\d*)+", each.cite)
    ]
    assert not wrong


@of_every_instruction
def test_text_says_every_field(declared: Instruction) -> None:
    written = {*declared.assembly_fields, *declared.options, *declared.fixed}
    assert {field.name for field in declared.fields} <= written


@of_every_instruction
def test_fields_do_not_overlap(declared: Instruction) -> None:
    taken = declared.mask
    for field in declared.fields:
        bits = ones(field)
        assert not taken & bits, field.name
        taken |= bits


def ones(field: Field) -> int:
    """The field's bits of the instruction word."""
    return sum(1 << (31 - bit) for first, last in field.pieces for bit in range(first, last + 1))


@of_every_instruction
def test_meaning_compiles_in_all_modes(declared: Instruction) -> None:
    random = Random(declared.mnemonic)
    statics = {declared.decode_statics(draw_word(random, declared)) for _ in range(24)}
    for chosen, sixty_four, little in product(statics, (True, False), (True, False)):
        program = declared.program(chosen, sixty_four, little)
        assert all(statement.op in OPERATIONS for statement in program.statements())
        compile_program(program, little)


def test_evaluator_has_a_row_for_each_operation() -> None:
    assert set(EXPRESSIONS) == PURE
    assert set(EXPRESSIONS) | set(STATEMENTS) == set(OPERATIONS)
    assert not set(EXPRESSIONS) & set(STATEMENTS)
    assert set(STATEMENTS) >= EFFECTS


@given(st.sampled_from(list(FIELDS.values())), st.integers(0, (1 << 32) - 1))
def test_field_encodes_what_it_decodes(field: Field, word: int) -> None:
    assert field.encode(field.decode(word)) == word & ones(field)


@given(st.sampled_from(list(FIELDS.values())), st.integers(-(1 << 33), 1 << 33))
def test_field_refuses_what_does_not_fit(field: Field, number: int) -> None:
    try:
        word = field.encode(number)
    except ValueError:
        return
    assert field.decode(word) == number
