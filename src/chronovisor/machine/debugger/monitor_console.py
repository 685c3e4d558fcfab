"""What `monitor` in gdb reaches: the guest's time, registers by KVM's names, how addresses are meant, and the
lines of QEMU's human monitor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.registers import RegisterError, register_size
from chronovisor.machine.debugger.gdb_commands import Commands
from chronovisor.machine.debugger.inspector import Inspector
from chronovisor.machine.errors import MachineError
from chronovisor.timebase.types import MASK64

_OURS: Final = {
    "time": "time -- the host's and the guest's timebase, each vCPU's offset and decrementer (ticks)",
    "reg": "reg name [value] -- show or set a register of the chosen thread by KVM's name (TB_OFFSET, ...)",
    "memory": "memory real|effective -- what the addresses of memory and breakpoints mean from now on",
    "endian": "endian little|big -- in which order registers are sent; say the same to gdb: `set endian`",
}
"""What `help` says of each command that is not of the human monitor."""
_HELP: Final = ("help", "?")


class MonitorConsole:
    """Answers lines of `monitor` in one session, whose `commands` know the chosen vCPU.

    `guest_time` is the stopped guest's timebase. `human` answers lines of the human monitor, which are about
    the guest as it is, and not as it was.
    """

    def __init__(
        self,
        inspector: Inspector,
        commands: Commands,
        guest_time: Callable[[], int],
        human: Callable[[str, int], str] | None,
    ) -> None:
        self._inspector = inspector
        self._commands = commands
        self._guest_time = guest_time
        self._human = human

    def answer(self, line: str) -> bytes:
        """Do what a line asks for, and return what to print: lines, or what was wrong."""
        try:
            said = self._answer(line.split())
            if said is None:
                said = self._human_answer(line)
        except (RegisterError, KvmError, MachineError, ValueError) as error:
            said = f"{error}\n"
        return said.encode(errors="replace")

    def _answer(self, words: list[str]) -> str | None:
        """Answer what is not of the human monitor; None for what may be."""
        match words:
            case [] | ["help" | "?"]:
                return "".join(f"{shown}\n" for shown in _OURS.values()) + self._human_answer("help")
            case ["help" | "?", name] if name in _OURS:
                return f"{_OURS[name]}\n"
            case ["time"]:
                return self._time()
            case ["reg", name]:
                return self._shown(name)
            case ["reg", name, value]:
                self._inspector.write(self._commands.chosen, name, int(value, 0))
                return self._shown(name)
            case ["memory", ("real" | "effective") as kind]:
                self._inspector.real_addresses = kind == "real"
                return f"addresses are {kind}\n"
            case ["endian", ("little" | "big") as order]:
                self._commands.order = "little" if order == "little" else "big"
                return f"registers are sent in {order}-endian order: say `set endian {order}` too\n"
            case [name, *_] if name in _OURS:
                return f"{_OURS[name]}\n"
        return None

    def _human_answer(self, line: str) -> str:
        if self._human is None:
            return "" if line == "help" else f"unknown command: '{line.strip()}'\n"
        is_help = line.split()[0] in _HELP
        if self._inspector.in_the_past and not is_help:
            return "the guest is shown as it was: continue to the present first\n"
        return self._human(line, self._commands.chosen.id).replace("\r\n", "\n")

    def _time(self) -> str:
        inspector = self._inspector
        clock = inspector.shown.system.clock
        host, frequency = clock.now().value, clock.source.frequency
        now = inspector.shown.timebase().value if inspector.in_the_past else self._guest_time()
        lines = [f"host timebase   {host:#018x}", f"guest timebase  {now:#018x}"]
        for vcpu in inspector.vcpus:
            offset, expiry = inspector.read(vcpu, "TB_OFFSET"), inspector.read(vcpu, "DEC_EXPIRY")
            left = (expiry - now) & MASK64
            signed = left - (1 << 64) if left >> 63 else left
            lines.append(f"vCPU {vcpu.id}: offset {offset:#x}, DEC {signed} ({signed / frequency:+.6f} s)")
        return "\n".join(lines) + "\n"

    def _shown(self, name: str) -> str:
        value = self._inspector.read(self._commands.chosen, name)
        return f"{name.upper()} {value:#0{2 + 2 * register_size(name)}x}\n"
