"""Lines of QEMU's human monitor, answered by the commands of QMP: for `qmp-shell -H`, and for scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from chronovisor.cli.guest_commands import GuestCommands
from chronovisor.cli.monitor_expressions import ExpressionError, ExtraneousError, Format, evaluate
from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.registers import RegisterError
from chronovisor.machine.control import ControlError
from chronovisor.machine.errors import MachineError
from chronovisor.machine.qmp.session import Implementation

_LINE: Final = "\r\n"


class _Line(NamedTuple):
    """What the human monitor takes. Names and descriptions are as QEMU's `help` has them."""

    names: tuple[str, ...]
    parameters: str
    help: str

    def shown(self, prefix: str) -> str:
        return f"{prefix}{'|'.join(self.names)} {self.parameters} -- {self.help}{_LINE}"


_COMMANDS: Final = (
    _Line(("cont", "c"), "", "resume emulation"),
    _Line(("help", "?"), "[cmd]", "show the help"),
    _Line(("info",), "[subcommand]", "show various information about the system state"),
    _Line(("print", "p"), "/fmt expr", "print expression value (use $reg for CPU register access)"),
    _Line(("quit", "q"), "", "quit the emulator"),
    _Line(("stop", "s"), "", "stop emulation"),
    _Line(("system_powerdown",), "", "send system power down event"),
    _Line(("system_reset",), "", "reset the system"),
    _Line(("x",), "/fmt addr", "virtual memory dump starting at 'addr'"),
    _Line(("xp",), "/fmt addr", "physical memory dump starting at 'addr'"),
)
_EXPRESSIONS: Final = ("print", "x", "xp")
"""The commands whose argument is an expression."""
_INFO: Final = (
    _Line(("cpus",), "", "show infos for each CPU"),
    _Line(("name",), "", "show the current VM name"),
    _Line(
        ("registers",),
        "[-a|vcpu]",
        "show the cpu registers (-a: show register info for all cpus; vcpu: specific vCPU to query; show the "
        "current CPU's registers if no argument is specified)",
    ),
    _Line(("status",), "", "show the current VM status (running|paused)"),
    _Line(("version",), "", "show the version of QEMU"),
)


class HumanMonitor:
    """Answers lines by QMP's `commands`; `guest` has its registers and memory for people."""

    def __init__(self, commands: Mapping[str, Implementation], guest: GuestCommands) -> None:
        self._commands = commands
        self._guest = guest

    def answer(self, given: dict[str, Any]) -> str:
        """Answer `human-monitor-command`. What is wrong with a line is in the answer, as with QEMU.

        MachineError for a vCPU that is not there.
        """
        vcpu = given.get("cpu-index", 0)
        self._guest.check_vcpu(vcpu)
        words = given["command-line"].split()
        if not words:
            return ""
        # A format may follow at once.
        name, slash, format_ = words[0].partition("/")
        words[:1] = [name, slash + format_] if slash else [name]
        prefix, known, name, *rest = _resolved(words)
        if known is None:
            return f"unknown command: '{prefix}{name}'{_LINE}"
        first = known.names[0]
        if first in _EXPRESSIONS and not prefix:
            return self._expression(known, name, rest, vcpu)
        if first == "registers" and len(rest) == 1 and rest[0].isdecimal():
            vcpu, rest = int(rest[0][:9]), []
            if not self._guest.has_vcpu(vcpu):
                return f"CPU#{vcpu} not available{_LINE}"
        if rest and first != "help" and (first, rest) != ("registers", ["-a"]):
            return (
                f"{'|'.join(known.names)}: extraneous characters at the end of line{_LINE}"
                f'Try "help {prefix}{first}" for more information{_LINE}'
            )
        try:
            if prefix:
                return self._info(first, bool(rest), vcpu)
            if first in ("help", "info"):
                return _help(rest if first == "help" else ["info"])
            self._commands[first]({})
        except (MachineError, KvmError, ControlError) as error:
            return f"Error: {error}{_LINE}"
        return ""

    def _expression(self, known: _Line, name: str, words: Sequence[str], vcpu: int) -> str:
        first = known.names[0]
        has_format = bool(words) and words[0].startswith("/")
        try:
            shown_as = Format.parse(words[0]) if has_format else Format()
            value = evaluate(" ".join(words[has_format:]), lambda register: self._register(vcpu, register))
            if first == "print":
                return f"{shown_as.shown(value)}{_LINE}"
            size = shown_as.count * shown_as.size
            memory = self._guest.read_memory(None if first == "xp" else vcpu, value, size)
            order: Literal["little", "big"] = "little" if self._guest.is_little_endian(vcpu) else "big"
        except ExpressionError as error:
            of = f"{'|'.join(known.names)}: " if isinstance(error, ExtraneousError) else ""
            return f'{of}{error}{_LINE}Try "help {name}" for more information{_LINE}'
        except (MachineError, KvmError, ControlError) as error:
            return f"Error: {error}{_LINE}"
        return "".join(f"{line}{_LINE}" for line in shown_as.lines(value, memory, order))

    def _register(self, vcpu: int, name: str) -> int:
        try:
            return self._guest.register(vcpu, name)
        except RegisterError:
            raise ExpressionError("unknown register") from None

    def _info(self, what: str, of_all: bool, vcpu: int) -> str:
        if what == "name":
            name = self._ask("query-name").get("name")
            return "" if name is None else f"{name}{_LINE}"
        if what == "status":
            status = self._ask("query-status")
            other = "" if status["status"] in ("running", "paused") else f" ({status['status']})"
            return f"VM status: {'running' if status['running'] else 'paused'}{other}{_LINE}"
        if what == "version":
            version = self._ask("query-version")
            number = ".".join(str(version["qemu"][part]) for part in ("major", "minor", "micro"))
            return f"{number} ({version['package']}){_LINE}"
        if what == "registers" and not of_all:
            return self._guest.registers(vcpu)
        cpus = self._ask("query-cpus-fast")
        if what == "registers":
            return "".join(self._guest.registers(cpu["cpu-index"]) for cpu in cpus)
        return "".join(
            f"{'*' if cpu['cpu-index'] == vcpu else ' '} CPU #{cpu['cpu-index']}: "
            f"thread_id={cpu['thread-id']}{_LINE}"
            for cpu in cpus
        )

    def _ask(self, command: str) -> Any:
        return self._commands[command]({})


def _resolved(words: Sequence[str]) -> tuple[str, _Line | None, str, *tuple[str, ...]]:
    """Return "info " if it is a line of that kind, what it is, if it is known, its name, and what follows."""
    prefix, table = ("info ", _INFO) if words[0] == "info" and len(words) > 1 else ("", _COMMANDS)
    name, *rest = words[1:] if prefix else words
    return prefix, next((known for known in table if name in known.names), None), name, *rest


def _help(words: Sequence[str]) -> str:
    if not words:
        return "".join(known.shown("") for known in _COMMANDS)
    if words == ["info"]:
        return "".join(known.shown("info ") for known in _INFO)
    prefix, known, name, *_ = _resolved(words)
    return f"unknown command: '{prefix}{name}'{_LINE}" if known is None else known.shown(prefix)
