"""The trace of an entry or an exit, in words."""

from __future__ import annotations

from chronovisor.timebase.trace import (
    DecrementerKept,
    DispatchLogged,
    Event,
    HostTimeRestored,
    OffsetApplied,
    SecondaryLetIn,
    SwitchBreached,
    Tbu40Written,
    ThreadOut,
    TimebaseRead,
    TimebaseReloaded,
    Wrapped,
)


def described(event: Event) -> tuple[str, str]:
    """Return an event as actor and action, for people. Times are 64-bit ticks in hexadecimal."""
    match event:
        case TimebaseRead(core, value):
            return f"core {core}", f"mftb             {value:#018x}"
        case Tbu40Written(core, value, after_wrap):
            return f"core {core}", f"mtspr TBU40      {value:#018x}{'   (2^24 more)' if after_wrap else ''}"
        case Wrapped(core):
            return f"core {core}", "the low 24 bits are smaller than what was written: they wrapped"
        case OffsetApplied(core, offset):
            return f"core {core}", f"timebase is the guest's: the host's {offset.signed:+#x}"
        case SecondaryLetIn(core, thread, vcpu):
            return f"core {core}", f"thread {thread} let in with vCPU {vcpu}"
        case ThreadOut(core, thread, vcpu):
            return f"core {core}", f"thread {thread} out with vCPU {vcpu}"
        case HostTimeRestored(core, value, applied):
            return (
                f"core {core}",
                f"timebase is the host's {value.value:#018x}: {applied.signed:#x} taken away",
            )
        case DecrementerKept(vcpu, expiry):
            return f"vCPU {vcpu}", f"dec_expires kept {expiry.value:#018x}, host time"
        case DispatchLogged(vcpu, timebase):
            return f"vCPU {vcpu}", f"dispatch logged  {timebase.value:#018x}, guest time"
        case SwitchBreached(core, ticks):
            return f"core {core}", f"the switch took {ticks.value} ticks: the timebase was loaded afresh"
        case TimebaseReloaded(core, errors, value):
            seen = ", ".join(str(error.name).lower().replace("_", " ") for error in errors)
            return f"core {core}", f"timebase failed ({seen}): loaded from the clock {value.value:#018x}"


def line(event: Event) -> str:
    """Return an event as one line."""
    who, what = described(event)
    return f"  {who:<9}{what}"
