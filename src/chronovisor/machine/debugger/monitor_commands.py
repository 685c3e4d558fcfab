"""What `monitor` in gdb reaches: the guest's time, registers by KVM's names, and how addresses are meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.interface import Vcpu
from chronovisor.kvm.registers import RegisterError, register_size
from chronovisor.machine.debugger.inspector import Inspector
from chronovisor.machine.errors import MachineError
from chronovisor.timebase.types import MASK64

HELP: Final = """\
time                   the host's and the guest's timebase, and each vCPU's offset and decrementer (ticks)
reg NAME [VALUE]       show or set a register of the chosen thread by KVM's name: TB_OFFSET, DEC_EXPIRY, ...
memory real|effective  what the addresses of memory and breakpoints mean from now on
endian little|big      in which order registers are sent; gdb's own `set endian` has to be the same
help                   this
"""


def answer(
    inspector: Inspector,
    vcpu: Vcpu,
    guest_time: Callable[[], int],
    line: str,
    set_little: Callable[[bool], None],
) -> str:
    """Do what a line asks for, for the chosen vCPU, and return what to print: lines, or what was wrong."""
    match line.split():
        case ["help"] | []:
            return HELP
        case ["time"]:
            return _time(inspector, guest_time)
        case ["reg", name]:
            return _with_register(lambda: _shown(inspector, vcpu, name))
        case ["reg", name, value]:
            return _with_register(lambda: _set(inspector, vcpu, name, value))
        case ["memory", ("real" | "effective") as kind]:
            inspector.real_addresses = kind == "real"
            return f"addresses are {kind}\n"
        case ["endian", ("little" | "big") as order]:
            set_little(order == "little")
            return f"registers are sent in {order}-endian order: say `set endian {order}` too\n"
        case _:
            return f"there is no command {line!r}; these are there:\n{HELP}"


def _time(inspector: Inspector, guest_time: Callable[[], int]) -> str:
    clock = inspector.shown.system.clock
    host, frequency = clock.now().value, clock.source.frequency
    now = inspector.shown.timebase().value if inspector.in_the_past else guest_time()
    lines = [f"host timebase   {host:#018x}", f"guest timebase  {now:#018x}"]
    for vcpu in inspector.vcpus:
        offset, expiry = inspector.read(vcpu, "TB_OFFSET"), inspector.read(vcpu, "DEC_EXPIRY")
        left = (expiry - now) & MASK64
        signed = left - (1 << 64) if left >> 63 else left
        lines.append(f"vCPU {vcpu.id}: offset {offset:#x}, DEC {signed} ({signed / frequency:+.6f} s)")
    return "\n".join(lines) + "\n"


def _with_register(access: Callable[[], str]) -> str:
    try:
        return access()
    except (RegisterError, KvmError, MachineError, ValueError) as error:
        return f"{error}\n"


def _shown(inspector: Inspector, vcpu: Vcpu, name: str) -> str:
    return f"{name.upper()} {inspector.read(vcpu, name):#0{2 + 2 * register_size(name)}x}\n"


def _set(inspector: Inspector, vcpu: Vcpu, name: str, text: str) -> str:
    inspector.write(vcpu, name, int(text, 0))
    return _shown(inspector, vcpu, name)
