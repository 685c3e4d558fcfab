"""What is proven of the switch, for every timebase, every offset and every timing.

The bodies run the production code: `shift` and `Switch` of `chronovisor.timebase.offset`, on a `CoreTimebase`
whose clock is read at unknown ticks. With another shifter they make the same claims about that shifter; so
mutants are refuted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeAlias, cast

from chronovisor.hypervisor.dispatch_log_writer import DispatchLogWriter
from chronovisor.hypervisor.world_switch import WorldSwitch
from chronovisor.proof.paths import Case, any_word
from chronovisor.proof.prover import Claim, Tight
from chronovisor.proof.sabotage import HostTimeInLog, OffsetReadAgain
from chronovisor.proof.unknown_time import ToldTimebase, UnknownCore
from chronovisor.timebase.offset import (
    Applied,
    Switch,
    SwitchBreachError,
    shift,
)
from chronovisor.timebase.types import GRANULE, LOW_BITS, LOW_MASK, MASK64, Offset, signed64

AnyShifter: TypeAlias = Callable[[Any, Any], Any]

LONGEST_SWITCH = 1 << 63
"""Ticks (570 years). Up to here a signed difference of two times tells how long a switch took."""

BELOW_EVER = "no switch takes 2^63 ticks (570 years)"


def any_offset(case: Case, name: str = "offset") -> Offset:
    """Return an unknown offset: any 64-bit multiple of 2^24."""
    return Offset(case.any(f"{name} / 2^24", 0, (1 << (64 - LOW_BITS)) - 1) << LOW_BITS)


def in_time(case: Case, core: UnknownCore, limit: int) -> None:
    """Assume that a switch took less than `limit` ticks. This is 2^24, except where the limit is tested."""
    case.assume(
        "fewer than 2^24 ticks (32.8 ms) pass between a switch's first reading and its last access",
        core.time.since_first < limit,
    )


def entry(case: Case, shifter: AnyShifter = shift, limit: int = GRANULE, unit: int = GRANULE) -> None:
    """After an entry T = H + o. The offset is a multiple of `unit`."""
    core = UnknownCore(case)
    offset = case.any("offset / 2^24" if unit == GRANULE else f"offset / {unit}", 0, MASK64 // unit) * unit
    shifter(core.timebase, offset)
    in_time(case, core, limit)
    timebase, host = core.later()
    expected = (host.value + offset) & MASK64
    case.tell(lambda: f"with the offset {offset:#x} it should be {expected:#x}")
    case.require("T = H + o", timebase == expected)


def exit_(case: Case, shifter: AnyShifter = shift, limit: int = GRANULE) -> None:
    """After an exit T = H, whatever the offset that was applied."""
    core = UnknownCore(case)
    applied = any_offset(case, "applied offset")
    core.timebase.adjust = applied.signed
    shifter(core.timebase, (-applied).value)
    in_time(case, core, limit)
    timebase, host = core.later()
    case.require("T = H", timebase == host.value)


class _OneAttempt(Switch):
    # After a failed attempt T = H, as before the first. So one attempt stands for any number.
    ATTEMPTS = 1


def round_trip(
    case: Case,
    shifter: AnyShifter = shift,
    world_switch: type[WorldSwitch] = WorldSwitch,
) -> None:
    """An entry, a stay, another offset set meanwhile, and an exit as the `world_switch` makes it."""
    switch, offset = _OneAttempt(shifter), any_offset(case)
    try:
        applied = switch.enter(UnknownCore(case, "H at the entry").timebase, offset)
    except SwitchBreachError:
        return
    case.require("the offset kept for the exit is the one that was added", applied == offset)
    # The core as a sound entry leaves it (`entry_at_any_pace`), at any later time.
    core = UnknownCore(case, "H at the exit")
    core.timebase.adjust = offset.signed
    machine = SimpleNamespace(switch=switch, observer=None, scheduler=None, source=core.time, run_queue=None)
    stay = SimpleNamespace(applied=applied, core=SimpleNamespace(timebase=core.timebase, hmer=0))
    vcore = SimpleNamespace(offset=any_offset(case, "offset set meanwhile"))
    world_switch(cast(Any, machine))._restore_host_time(cast(Any, stay), cast(Any, vcore))
    case.assume(BELOW_EVER, core.time.since_first < LONGEST_SWITCH)
    timebase, host = core.later()
    case.require("after the exit, T = H", timebase == host.value)


def entry_at_any_pace(case: Case, shifter: AnyShifter = shift, longest: int = LONGEST_SWITCH) -> None:
    """However long each step of an entry takes: T = H + o afterwards, or the entry is refused and T = H."""
    core = UnknownCore(case)
    offset = any_offset(case)
    try:
        _OneAttempt(shifter).enter(core.timebase, offset)
        expected = offset.value
    except SwitchBreachError:
        expected = 0
    case.assume(BELOW_EVER, core.time.since_first < longest)
    timebase, host = core.later()
    what = "T = H + o" if expected else "after a refused entry T = H"
    case.require(what, timebase == (host.value + expected) & MASK64)


def exit_at_any_pace(case: Case, shifter: AnyShifter = shift, longest: int = LONGEST_SWITCH) -> None:
    """However long each step of an exit takes: T = H afterwards."""
    core = UnknownCore(case)
    applied = any_offset(case, "applied offset")
    core.timebase.adjust = applied.signed
    Switch(shifter).leave(core.timebase, Applied(applied))
    case.assume(BELOW_EVER, core.time.since_first < longest)
    timebase, host = core.later()
    case.require("T = H", timebase == host.value)


def never_back(case: Case, longest: int = LONGEST_SWITCH, same: bool = True) -> None:
    """Of two readings of a guest's time, on any cores of its host, the later is not less. Each core is as an
    entry leaves it (`entry_at_any_pace`).
    """
    core, offset = UnknownCore(case), any_offset(case)
    core.timebase.adjust = offset.signed
    other = ToldTimebase(case, core.time)
    other.adjust = (offset if same else any_offset(case, "offset of the other")).signed
    first = core.timebase.read()
    second = other.read()
    case.assume("readings are less than 2^63 ticks (570 years) apart", core.time.since_first < longest)
    case.require("P4: the guest's time has not gone back", signed64(second - first) >= 0)


def low_bits(case: Case) -> None:
    """Any write to TBU40, at any time, leaves the low 24 bits of T equal to those of H."""
    core = UnknownCore(case)
    core.timebase.adjust = any_offset(case, "what is applied").signed
    core.timebase.write_tbu40(any_word(case, "what is written to TBU40"))
    timebase, host = core.later()
    case.require("the low 24 bits of T and H are equal", timebase & LOW_MASK == host.value & LOW_MASK)


def zero(case: Case, shifter: AnyShifter = shift, offset: int = 0) -> None:
    """An offset of 0 writes nothing, on entry and on exit."""
    core = UnknownCore(case)
    before = case.any("what is applied", -(1 << 63), (1 << 63) - 1)
    core.timebase.adjust = before
    core.timebase.has_tbu40 = False  # a write would raise
    done = shifter(core.timebase, offset)
    case.require("T is what it was", core.timebase.adjust == before)
    case.require("the switch says that it moved nothing", not done.moved)


def logged(case: Case, log: type[DispatchLogWriter] = DispatchLogWriter) -> None:
    """The dispatch trace log records the moment of a dispatch in guest time."""
    core, applied = UnknownCore(case), Applied(any_offset(case, "applied offset"))
    core.timebase.adjust = applied.signed
    host = core.timebase.tod()
    core.time.still = True
    stay = SimpleNamespace(core=SimpleNamespace(timebase=core.timebase), applied=applied)
    moment = log.moment(cast(Any, None), cast(Any, stay))
    case.require("P8: the moment is H + o", moment == host + applied)


def rounding_up(
    case: Case, rounded: Callable[[int], Offset] = Offset.rounded_up, limit: int = GRANULE
) -> None:
    """A value that is set is rounded up to a multiple of 2^24; a multiple is kept as it is."""
    value = any_word(case, "value set")
    offset = rounded(value)
    case.require("the offset kept is a multiple of 2^24", offset.value & LOW_MASK == 0)
    up = (offset.value - value) & MASK64
    case.require("the rounding adds less than 2^24 ticks", up < limit)
    case.require("a multiple is kept as it is", bool(value & LOW_MASK) | (up == 0))


CLAIMS = (
    Claim(
        "switch-entry",
        "P2",
        "after an entry T = H + o",
        entry,
        (
            Tight("the switch takes one tick longer", partial(entry, limit=GRANULE + 1)),
            Tight("the offset is a multiple of 2^23 only", partial(entry, unit=GRANULE // 2)),
        ),
    ),
    Claim(
        "switch-exit",
        "P2",
        "after an exit T = H",
        exit_,
        (Tight("the switch takes one tick longer", partial(exit_, limit=GRANULE + 1)),),
    ),
    Claim(
        "switch-round-trip",
        "P2",
        "the exit subtracts what the entry added, whatever offset was set meanwhile",
        round_trip,
        (
            Tight(
                "the exit subtracts the offset that is set by then",
                partial(round_trip, world_switch=OffsetReadAgain),
            ),
        ),
    ),
    Claim(
        "switch-entry-at-any-pace",
        "P2",
        "however long an entry's steps take, T = H + o afterwards, or the entry is refused and T = H",
        entry_at_any_pace,
        (Tight("the entry takes one tick longer", partial(entry_at_any_pace, longest=LONGEST_SWITCH + 1)),),
    ),
    Claim(
        "switch-exit-at-any-pace",
        "P2",
        "however long an exit's steps take, T = H afterwards",
        exit_at_any_pace,
        (Tight("the exit takes one tick longer", partial(exit_at_any_pace, longest=LONGEST_SWITCH + 1)),),
    ),
    Claim(
        "guest-never-back",
        "P4",
        "of two readings of a guest's time, on any of its vCPUs and cores, the later is not less",
        never_back,
        (
            Tight("the readings are one tick further apart", partial(never_back, longest=LONGEST_SWITCH + 1)),
            Tight("the other core has another offset", partial(never_back, same=False)),
        ),
    ),
    Claim("switch-low-bits", "P1", "no write to TBU40, at any time, puts two cores out of step", low_bits),
    Claim(
        "switch-zero",
        "P2",
        "an offset of 0 writes nothing",
        zero,
        (Tight("the offset is 2^24", partial(zero, offset=GRANULE)),),
    ),
    Claim(
        "offset-rounding",
        "P3",
        "a value that is set is rounded up to a multiple of 2^24, by less than 2^24 ticks",
        rounding_up,
        (Tight("the rounding adds less than 2^24 - 1 ticks", partial(rounding_up, limit=GRANULE - 1)),),
    ),
    Claim(
        "log-in-guest-time",
        "P8",
        "the dispatch trace log records each dispatch at the time that the guest would read",
        logged,
        (Tight("the log records host time", partial(logged, log=HostTimeInLog)),),
    ),
)
