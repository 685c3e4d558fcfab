"""Regions broken on purpose, each in one way: what the comparison of random programs must find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from llvmlite import ir

from chronovisor.engine.native.emitter import word
from chronovisor.engine.native.layout import PAGE_SHIFT
from chronovisor.engine.native.pages import DecodedPages
from chronovisor.engine.regions import (
    addresses,
    bit_registers,
    condition_register,
    discovery,
    lowering,
    strips,
)
from chronovisor.engine.regions.code import Site
from chronovisor.engine.regions.exits import ExitLowering
from chronovisor.engine.regions.lowering import EntryLowering
from chronovisor.engine.regions.registers import Known, RegisterLowering
from chronovisor.engine.regions.statements import StatementLowering
from chronovisor.engine.regions.strips import StripLowering
from chronovisor.isa.values import Value, When

Break = Callable[[pytest.MonkeyPatch], None]


def _a_register_is_not_stored(patch: pytest.MonkeyPatch) -> None:
    whole = RegisterLowering._store

    def store(low: RegisterLowering, key: tuple[str, int | None], value: ir.Value) -> None:
        if key != ("GPR", 9):
            whole(low, key, value)

    patch.setattr(RegisterLowering, "_store", store)


def _settle_bits(low: RegisterLowering) -> None:
    for register in low._bits.values():
        register.settle()


def _a_tight_loop_is_left_without_its_registers(patch: pytest.MonkeyPatch) -> None:
    whole = EntryLowering._go_to

    def go_to(low: EntryLowering, offset: int, done: int) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(RegisterLowering, "leave_loop", _settle_bits)
            whole(low, offset, done)

    patch.setattr(EntryLowering, "_go_to", go_to)


def _a_region_is_left_from_a_tight_loop_without_its_registers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(EntryLowering, "_way_out", EntryLowering._end)


def _a_tight_loop_is_known_only_on_ways_within_it(patch: pytest.MonkeyPatch) -> None:
    whole = RegisterLowering.known_in_loop
    patch.setattr(RegisterLowering, "known_in_loop", lambda low: whole(low) if low.is_in_loop else Known())


def _a_tight_loop_is_entered_in_its_middle_with_old_bits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RegisterLowering, "enter_loop_again", lambda low: None)


def _changes_of_bits_are_not_settled(patch: pytest.MonkeyPatch) -> None:
    for kind in (bit_registers.BitRegister, condition_register.ConditionRegister):
        patch.setattr(kind, "settle", lambda register: None)


def _a_field_is_put_in_another_place(patch: pytest.MonkeyPatch) -> None:
    whole = condition_register.ConditionRegister._field
    patch.setattr(
        condition_register.ConditionRegister, "_field", lambda register, low: whole(register, low ^ 4)
    )


def _a_tight_loop_leaves_the_summary_overflow_out(patch: pytest.MonkeyPatch) -> None:
    kind = condition_register.ConditionRegister
    patch.setattr(kind, "summary_overflow", lambda register: ir.Constant(ir.IntType(1), 0))


def _a_tight_loop_forgets_what_it_compared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(condition_register._PlaceOfComparisons, "set", lambda place, value: None)


def _a_tight_loop_takes_its_comparisons_for_signed_ones(patch: pytest.MonkeyPatch) -> None:
    whole = bit_registers.compared

    def compared(sites: Iterable[Site]) -> dict[int, bit_registers.Comparison]:
        return {low: replace(kind, is_signed=True) for low, kind in whole(sites).items()}

    patch.setattr(bit_registers, "compared", compared)
    _a_tight_loop_takes_what_it_compares_for_signed_numbers(patch)


def _a_tight_loop_takes_what_it_compares_for_signed_numbers(patch: pytest.MonkeyPatch) -> None:
    whole = condition_register._PlaceOfComparisons._moved

    def moved(
        place: condition_register._PlaceOfComparisons, operand: ir.Value, kind: bit_registers.Comparison
    ) -> ir.Value:
        return whole(place, operand, place._kind if place._kind.is_signed else kind)

    patch.setattr(condition_register._PlaceOfComparisons, "_moved", moved)


def _what_is_known_before_a_condition_is_known_behind_it(patch: pytest.MonkeyPatch) -> None:
    whole = RegisterLowering._when

    def when(low: RegisterLowering, guarded: When) -> None:
        before = low.present()
        whole(low, guarded)
        low.resume(before)

    patch.setattr(RegisterLowering, "_when", when)


def _an_exit_counts_one_too_many(patch: pytest.MonkeyPatch) -> None:
    whole = EntryLowering._exit

    def leave(low: EntryLowering, exit: Any, done: int, **rest: Any) -> None:
        whole(low, exit, done + 1, **rest)

    patch.setattr(EntryLowering, "_exit", leave)


def _a_loop_counts_nothing(patch: pytest.MonkeyPatch) -> None:
    whole = EntryLowering._go_to
    patch.setattr(EntryLowering, "_go_to", lambda low, offset, done: whole(low, offset, 0))


def _pages_are_not_checked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(EntryLowering, "_check_page", lambda low, offset, done: None)


def _changed_code_stays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DecodedPages, "_take_out", lambda pages, page: None)


def _one_bit_of_a_field_is_lost(patch: pytest.MonkeyPatch) -> None:
    whole = bit_registers.replaced

    def replaced(site: Site, v: Value) -> tuple[str, int, Value] | None:
        found = whole(site, v)
        return None if found is None else (found[0], found[1] & (found[1] - 1), found[2])

    patch.setattr(bit_registers, "replaced", replaced)


def _a_carry_is_kept_for_the_whole_region(patch: pytest.MonkeyPatch) -> None:
    whole = bit_registers.BitRegister.replace

    def replace(register: bit_registers.BitRegister, ones: int, *rest: Any) -> None:
        whole(register, ones & ~(1 << 29), *rest)

    patch.setattr(bit_registers.BitRegister, "replace", replace)


def _a_tight_loop_begins_with_another_carry(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(bit_registers.BitRegister, "_moved", lambda register, number, inside: word(1 << inside))


def _a_bit_is_extracted_from_the_place_beside(patch: pytest.MonkeyPatch) -> None:
    whole = StatementLowering._extracted

    def extracted(low: StatementLowering, v: Value) -> bit_registers.Extracted:
        of = whole(low, v).of
        return bit_registers.Extracted(
            {n: (low.b.lshr(value, word(1)), inside) for n, (value, inside) in of.items()}
        )

    patch.setattr(StatementLowering, "_extracted", extracted)


def _a_shift_goes_too_far(patch: pytest.MonkeyPatch) -> None:
    def further(site: Site, v: Value) -> addresses.Shifted | None:
        found = addresses.shifted(site, v)
        return None if found is None else replace(found, by=found.by + 1)

    patch.setattr(lowering, "shifted", further)


def _a_strip_goes_on_in_the_next_page(patch: pytest.MonkeyPatch) -> None:
    whole = StripLowering._fewer

    def fewer(low: StripLowering, rounds: ir.Value, value: ir.Value, most: int, step: int) -> ir.Value:
        return whole(low, rounds, value, most + abs(step), step)

    patch.setattr(StripLowering, "_fewer", fewer)


def _a_strip_goes_back_to_the_page_before(patch: pytest.MonkeyPatch) -> None:
    whole = StripLowering._fewer

    def fewer(low: StripLowering, rounds: ir.Value, value: ir.Value, most: int, step: int) -> ir.Value:
        return whole(low, rounds, value, most, step) if step > 0 else rounds

    patch.setattr(StripLowering, "_fewer", fewer)


def _an_index_has_all_its_bits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(strips, "_low_terms", lambda origin: ())


def _a_strip_is_longer_than_its_budget(patch: pytest.MonkeyPatch) -> None:
    whole = StripLowering._affordable

    def affordable(low: StripLowering, loop: strips.StraightLoop) -> ir.Value:
        return low.b.add(whole(low, loop), word(1))

    patch.setattr(StripLowering, "_affordable", affordable)


def _rounds_that_are_not_done_are_paid(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StripLowering, "end_strip", lambda low: setattr(low, "strip", None))


def _a_region_is_left_from_a_strip_as_if_it_were_done(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StripLowering, "_left", lambda low, done: ExitLowering._left(low, done))


def _a_register_goes_on_with_the_sum_of_others(patch: pytest.MonkeyPatch) -> None:
    whole = addresses._step

    def step(term: addresses.Term, after: Mapping[int, addresses.Address]) -> int | None:
        found = whole(term, after)
        return 8 if found is None and isinstance(term, addresses.Register) else found

    patch.setattr(addresses, "_step", step)


def _the_way_to_the_next_entry_is_short(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(discovery, "_longest", lambda edges, entry, entries: 1)


def _an_inner_loop_does_not_look_at_its_budget(patch: pytest.MonkeyPatch) -> None:
    whole = EntryLowering._branch

    def branch(low: EntryLowering, offset: int) -> None:
        if offset == low.entry:
            whole(low, offset)
        else:
            low.b.branch(low.blocks[offset])

    patch.setattr(EntryLowering, "_branch", branch)


def _stores_are_not_logged(patch: pytest.MonkeyPatch) -> None:
    whole = EntryLowering._look_up
    patch.setattr(
        EntryLowering, "_look_up", lambda low, ea, size, use, store: whole(low, ea, size, "load", False)
    )


def _only_the_first_byte_of_a_span_is_looked_up(patch: pytest.MonkeyPatch) -> None:
    whole = EntryLowering._look_up
    patch.setattr(EntryLowering, "_look_up", lambda low, ea, size, use, store: whole(low, ea, 1, use, store))


def _the_last_page_of_an_access_is_taken_for_all_others(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(EntryLowering, "_room", lambda low, size: (1 << 64) - 1)


def _an_access_may_begin_in_the_last_page_and_end_behind_it(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(EntryLowering, "_room", lambda low, size: 1 << PAGE_SHIFT)


def _a_return_goes_to_the_first_call(patch: pytest.MonkeyPatch) -> None:
    whole = EntryLowering._jump_by_register

    def jump(low: EntryLowering, done: int) -> None:
        returns = low.region.returns
        if returns and low.site.is_indirect and not low.site.links:
            low._go_to(returns[0], done)
        else:
            whole(low, done)

    patch.setattr(EntryLowering, "_jump_by_register", jump)


MUTANTS: dict[str, Break] = {
    name.removeprefix("_").replace("_", " "): found
    for name, found in list(globals().items())
    if name.startswith("_") and getattr(found, "__module__", None) == __name__ and found is not _settle_bits
}
