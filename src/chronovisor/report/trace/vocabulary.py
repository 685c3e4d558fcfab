"""What is in a trace: its tracks, slices, instants, counters and annotations, declared once.

Recorders use these names, docs/traces.md lists them, and tests check that a trace has no others.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from chronovisor.papr.hcalls import Hcall, name_of


class Annotation(NamedTuple):
    """A value that an event carries."""

    name: str
    meaning: str


class Track(NamedTuple):
    """A row of the viewer. A name that ends in N stands for one row a vCPU."""

    name: str
    meaning: str


class Slice(NamedTuple):
    """Something that takes time, or an instant. `inside` names what it can be nested in; "" is nothing."""

    name: str
    track: Track
    meaning: str
    inside: tuple[str, ...] = ("",)
    annotations: tuple[Annotation, ...] = ()


class Counter(NamedTuple):
    """A row with a number. `per_vcpu`: one row a vCPU, whose name has the vCPU's name in front."""

    name: str
    unit: str
    meaning: str
    per_vcpu: bool = True


VCPU: Final = Track("vCPU N", "what the thread of this vCPU does")
GUEST: Final = Track("time of the guest", "when the guest may not run")
MOVES: Final = Track("moves", "moves from here and to here")
TRACKS: Final = (VCPU, GUEST, MOVES)

CORE: Final = Annotation("core", "the number of the host's core")
OFFSET: Final = Annotation("offset", "the timebase offset that the entry added, in ticks (signed)")
HOST_TB: Final = Annotation("host_tb", "the host's timebase at this moment, in ticks")
GUEST_TB: Final = Annotation("guest_tb", "the guest's timebase at this moment, in ticks")
STOLEN: Final = Annotation(
    "stolen", "ticks for which other virtual cores kept the vCPU from a core before this entry"
)
EXIT: Final = Annotation("exit", "why the run ended: an exit reason of KVM's")
WOKEN_BY: Final = Annotation("woken_by", "what ended the wait")
LATE: Final = Annotation("late", "ticks from the expiry of the decrementer to its interrupt")
RUNS: Final = Annotation("runs", "how many runs were only counted")
COUNTED: Final = Annotation(
    "H_…, or a reason",
    "how many exits for this reason, or hypercalls (those that the hypervisor answers are `H_… within the "
    "guest`), were only counted",
)
WHERE: Final = Annotation("where", "to or from where the guest moves")
NUMBER: Final = Annotation("number", "1 for the first round")
OUTCOME: Final = Annotation("outcome", "how the move ended")
REPORT: Final = Annotation("a field of the report", "of a move that succeeded, as `migrate --json` names it")

RUN: Final = Slice(
    "run", VCPU, "KVM_RUN: the vCPU is with the kernel's half of the hypervisor", annotations=(EXIT,)
)
ENTER: Final = Slice(
    "enter", VCPU, "it waits for a core, and the core's timebase becomes the guest's", (RUN.name,)
)
IN_GUEST: Final = Slice(
    "guest",
    VCPU,
    "it executes the guest's instructions; the timebase is the guest's",
    (RUN.name,),
    (CORE, OFFSET, HOST_TB, GUEST_TB, STOLEN, COUNTED),
)
LEAVE: Final = Slice(
    "leave",
    VCPU,
    "the core's timebase becomes the host's again, and the decrementer is kept",
    (RUN.name,),
    (OFFSET,),
)
CEDED: Final = Slice("ceded", VCPU, "it waits in H_CEDE", (RUN.name, IN_GUEST.name), (WOKEN_BY,))
HYPERCALL: Final = Slice(
    "H_…",
    VCPU,
    "a hypercall: inside `guest` the hypervisor answers it, otherwise user space does",
    ("", IN_GUEST.name),
)
EXIT_HANDLED: Final = Slice("exit …", VCPU, "user space handles another exit of this reason")
COUNTED_RUNS: Final = Slice(
    "runs that were only counted",
    VCPU,
    "runs came too fast to be told one by one",
    annotations=(RUNS, COUNTED),
)
PAUSED: Final = Slice("paused", GUEST, "the guest may not run: a command stopped it, or a move")

MOVE: Final = Slice(
    "move", MOVES, "a guest moves from here, or to here", annotations=(WHERE, OUTCOME, REPORT)
)
DOWNTIME: Final = Slice(
    "downtime",
    MOVES,
    "the guest is stopped for its move, as its source sees it",
    (MOVE.name,),
)
PHASE: Final = Slice("a phase", MOVES, "a phase of the move on this side", ("", MOVE.name, DOWNTIME.name))
ROUND: Final = Slice(
    "round",
    MOVES,
    "memory is gone over once; the last time while the guest is stopped",
    ("copy", "send state"),
    (NUMBER,),
)
FIRST_OF_DOWNTIME: Final = "stop"
"""The phase with which the downtime begins."""

DECREMENTER: Final = Slice(
    "decrementer",
    VCPU,
    "the guest enters the decrementer's interrupt",
    (IN_GUEST.name,),
    (LATE, HOST_TB, GUEST_TB),
)
EXTERNAL: Final = Slice(
    "external interrupt", VCPU, "the guest enters it", (IN_GUEST.name,), (HOST_TB, GUEST_TB)
)
OTHER_INTERRUPT: Final = Slice(
    "other interrupt",
    VCPU,
    "the guest enters a system reset or a machine check",
    (IN_GUEST.name,),
    (HOST_TB, GUEST_TB),
)

SLICES: Final = (
    RUN,
    ENTER,
    IN_GUEST,
    LEAVE,
    CEDED,
    HYPERCALL,
    EXIT_HANDLED,
    COUNTED_RUNS,
    PAUSED,
    MOVE,
    DOWNTIME,
    PHASE,
    ROUND,
)
INSTANTS: Final = (DECREMENTER, EXTERNAL, OTHER_INTERRUPT)

OFFSET_COUNTER: Final = Counter(
    "timebase offset", "ticks", "how far the guest's timebase is ahead of the host's"
)
STOLEN_COUNTER: Final = Counter(
    "stolen time", "ns", "how long other virtual cores have kept the vCPU from a core, in all"
)
INSTRUCTIONS: Final = Counter("instructions", "", "how many instructions the vCPU has executed, in all")
WITHIN: Final = Counter(
    "hypercalls within the guest",
    "",
    "how many hypercalls programs have answered within the guest, in all: these are only counted",
)
DECREMENTERS: Final = Counter(
    "decrementers in native code",
    "",
    "how many decrementer interrupts native code has entered by itself, in all: these are only counted",
)
EXTERNALS: Final = Counter(
    "external interrupts in native code",
    "",
    "how many external interrupts native code has entered by itself, in all: these are only counted",
)
PAGE_FAULTS: Final = Counter(
    "page faults in native code",
    "",
    "how many storage interrupts native code has entered by itself, in all: these are only counted",
)
WORK: Final = (INSTRUCTIONS, WITHIN, DECREMENTERS, EXTERNALS, PAGE_FAULTS)
"""In the order of `timebase.run_trace.Work`."""
COUNTERS: Final = (OFFSET_COUNTER, STOLEN_COUNTER, *WORK)

UNKNOWN_HYPERCALL: Final = "H_unknown"
UNKNOWN_NUMBER: Final = -1
KICKED: Final = "INTR"
"""The exit reason of a vCPU that was kicked."""
WITHIN_GUEST: Final = " within the guest"
"""What the name of a count ends in if the hypervisor answered the hypercall within the guest."""
HYPERCALL_NAMES: Final = {int(number): name_of(number) for number in Hcall}
"""By number. A guest can call with any number: what is not here has one name together."""
INTERRUPTS: Final = {"DECREMENTER": DECREMENTER.name, "EXTERNAL": EXTERNAL.name}
"""The names of instants by those of the interrupts; all others are `OTHER_INTERRUPT`."""


def phase_name(name: str) -> str:
    """Return what the slice of a move's phase is called, by the name of the phase in `migration.phases`."""
    return name.lower().replace("_", " ")
