"""`chronovisor-qemu` as a process: it translates QEMU's command line, and runs what it becomes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from chronovisor import __version__
from chronovisor.cli import execute, explain
from chronovisor.cli.output import printable
from chronovisor.cli.qemu import PROGRAM, ended_by
from chronovisor.cli.qemu.character_devices import CHARDEV_HELP, OBJECT_HELP
from chronovisor.cli.qemu.machine_options import ACCELERATOR_HELP, CPU_HELP, MACHINE_HELP
from chronovisor.cli.qemu.option import QemuOptionError, Settings
from chronovisor.cli.qemu.options import BY_NAME, OPTIONS
from chronovisor.cli.qemu.storage_and_network import DEVICE_HELP, NETDEV_HELP, take_disk
from chronovisor.cli.status import ExitStatus
from chronovisor.machine.errors import ImageError
from chronovisor.machine.guest_log import MEANINGS

VERSION: Final = f"QEMU emulator version 7.2.0 (chronovisor {__version__})"
"""The version of QEMU whose command line this is. Scripts look for the first three words and the number."""
_MEMORY: Final = "512M"
"""QEMU's default for this machine."""
_ENDS_WELL: Final = frozenset(
    {ExitStatus.OK, ExitStatus.REBOOT, ExitStatus.PANIC, ExitStatus.QUIT, ExitStatus.ENDED}
)
"""The statuses of `run` for which QEMU's is 0."""
_SIGNALS: Final[dict[object, int]] = {ExitStatus.INTERRUPTED: 2, ExitStatus.ENDED: 15}


class _Answer(Exception):
    """An option that asks something: what to print on the standard output."""


def run(given: Sequence[str]) -> int:
    """Run QEMU's command line and return QEMU's exit status; KeyboardInterrupt for Ctrl-C."""
    try:
        ours = translate(given)
    except _Answer as answer:
        print(answer, end="")
        return 0
    except QemuOptionError as error:
        return _fail(str(error))
    try:
        status = execute(ours)
    except ImageError as error:
        return _fail(f"could not load kernel: {error}")
    except SystemExit as end:
        signal = _SIGNALS.get(end.code)
        return int(end.code not in _ENDS_WELL) if signal is None else ended_by(signal)
    except Exception as error:
        return _fail(explain(error)[0])
    return 0 if status in _ENDS_WELL else 1


def translate(given: Sequence[str]) -> list[str]:
    """Return the command line of `chronovisor` that QEMU's becomes; QemuOptionError says what it cannot."""
    settings = Settings()
    words = iter(given)
    for word in words:
        if not word.startswith("-") or word == "-":
            take_disk(settings, word)
            continue
        name = word[2:] if word.startswith("--") else word[1:]
        if name in ("h", "help"):
            raise _Answer(usage())
        if name == "version":
            raise _Answer(f"{VERSION}\n")
        option = BY_NAME.get(name)
        if option is None:
            raise QemuOptionError(f"{word}: invalid option")
        text = ""
        if option.argument:
            text = next(words, "")
            if not text:
                raise QemuOptionError(f"{word}: requires an argument")
        if text in ("help", "?") and (answer := _LISTS.get(option.names[0])):
            raise _Answer(answer)
        try:
            option.take(settings, text)
        except QemuOptionError as error:
            raise QemuOptionError(f"{' '.join(filter(None, (word, text)))}: {error}") from None
    settings.ours.setdefault("--memory", _MEMORY)
    return settings.arguments()


_LOG_HELP: Final = "Log items (comma separated):\n" + "".join(
    f"{item:<15} {meaning}\n" for item, meaning in MEANINGS.items()
)
_LISTS: Final = {
    "machine": MACHINE_HELP,
    "accel": ACCELERATOR_HELP,
    "cpu": CPU_HELP,
    "device": DEVICE_HELP,
    "netdev": NETDEV_HELP,
    "chardev": CHARDEV_HELP,
    "object": OBJECT_HELP,
    "d": _LOG_HELP,
}
"""What options answer to `help`, by their names."""


def usage() -> str:
    """Return what `-help` prints."""
    lines = [VERSION, f"usage: {PROGRAM} [options]", ""]
    for option in OPTIONS:
        names = ", ".join(f"-{name}" for name in option.names)
        lines += [f"{names} {option.argument}".rstrip(), f"                {option.help}"]
    lines += ["-h, -help", "                this help", "-version", "                the version", ""]
    lines += ["Other options of QEMU's are refused. docs/qemu.md says what differs from QEMU.", ""]
    return "\n".join(lines)


def _fail(message: str) -> int:
    print(f"{PROGRAM}: {printable(' '.join(message.split()))}", file=sys.stderr)
    return 1
