"""An option of QEMU's, and the command line of ours that options add up to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

_VALUE: Final = re.compile(r"((?:[^,]|,,)*)(?:,(?!,)|$)")
_RECEIVES: Final = frozenset(
    {
        *("--name", "--cpu", "--engine", "--provider", "--kernel", "--initrd", "--append", "--qmp", "--stay"),
        *("--console", "--escape", "--detach", "--pidfile", "--memory-limit", "--net", "--tls-credentials"),
    }
)
"""What of `run` is taken by `receive` too."""
_COMES_WITH_GUEST: Final = frozenset({"--memory", "--smp", "--rtc"})
"""What a guest that comes by a move brings along."""


class QemuOptionError(Exception):
    """An option that cannot be taken: what is wrong with its value, for people."""


@dataclass
class Settings:
    """What the options say so far."""

    ours: dict[str, str] = field(default_factory=dict)
    """Options of `run`, with their values; flags have an empty one."""
    incoming: str = ""
    """The address at which a guest is to come; empty to start one."""
    backends: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Character devices by their ids."""
    credentials: dict[str, str] = field(default_factory=dict)
    """Directories of TLS credentials of who listens, by their ids."""
    objects: dict[str, str] = field(default_factory=dict)
    """What is said of objects, by their ids."""
    protected_by: set[str] = field(default_factory=set)
    """The ids of the credentials that character devices name."""
    disks: list[str] = field(default_factory=list)
    """Disks in their order, as `--disk` takes them."""
    drives: dict[str, str] = field(default_factory=dict)
    """Disks that wait for their device, by their ids."""
    networks: dict[str, str] = field(default_factory=dict)
    """Networks that wait for their device, by their ids, as `--net` takes them."""
    card: Mapping[str, str] | None = None
    """What `-net nic` says."""
    at_card: str = ""
    """The network of `-net`, as `--net` takes it."""
    on_terminal: bool = False
    """Whether the console is to be on the terminal, for want of another place: -nographic."""
    has_display: bool = True

    def set(self, option: str, value: str = "") -> None:
        """Have the command line say this; QemuOptionError if it says something else already."""
        if self.ours.get(option, value) != value:
            raise QemuOptionError("there can be only one")
        self.ours[option] = value

    def arguments(self) -> list[str]:
        """Return our command line; QemuOptionError for what does not go together."""
        ours = dict(self.ours)
        if "--qmp" in ours:
            ours["--stay"] = ""
        if "--log" not in ours:
            # QEMU takes -D without -d, and logs nothing.
            ours.pop("--log-file", None)
        if "--console" not in ours and self.on_terminal:
            ours["--escape"] = QEMU_ESCAPE
        if "--console" not in ours and not self.on_terminal and not self.has_display:
            ours["--console"] = "none"
        if self.on_terminal and "--detach" in ours:
            raise QemuOptionError("-nographic cannot be used with -daemonize")
        for name in sorted(self.protected_by):
            # QEMU makes the objects first, wherever they stand.
            if name in self.objects and name not in self.credentials:
                raise QemuOptionError("Expected TLS credentials for a server endpoint")
            if name not in self.credentials:
                raise QemuOptionError(f"No TLS credentials with id {name!r}")
            if ours.setdefault("--tls-credentials", self.credentials[name]) != self.credentials[name]:
                raise QemuOptionError("there can be only one directory of TLS credentials")
        for waiting in (*self.drives, *self.networks):
            raise QemuOptionError(f"{waiting!r} has no -device")
        if (self.card is None) != (not self.at_card):
            raise QemuOptionError("-net: a card and its network belong together: -net nic -net user")
        several = [f"--disk={disk}" for disk in self.disks]
        if "--qmp" in ours:
            several += [f"--object={text}" for text in self.objects.values()]
        if not self.incoming:
            if "--kernel" not in ours:
                raise QemuOptionError("there is no firmware and no disk to start from: give -kernel FILE")
            return ["run", *_words(ours), *several]
        if ours.pop("--no-reboot", None) is not None:
            # Without a kernel a reboot ends the guest.
            for option in ("--kernel", "--initrd", "--append"):
                ours.pop(option, None)
        if "--memory" in ours:
            ours["--memory-limit"] = ours["--memory"]
        ours = {option: value for option, value in ours.items() if option not in _COMES_WITH_GUEST}
        if missing := [option for option in ours if option not in _RECEIVES]:
            raise QemuOptionError(f"-incoming does not go with what becomes {missing[0]}")
        return ["receive", self.incoming, "--once", *_words(ours), *several]


QEMU_ESCAPE: Final = "^ax"
"""The keys that end QEMU at a terminal that it shares with its monitor."""


def _words(options: Mapping[str, str]) -> list[str]:
    # In one word a value may begin with a dash.
    return [f"{option}={value}" if value else option for option, value in options.items()]


@dataclass(frozen=True, slots=True)
class Option:
    """An option of QEMU's that is taken."""

    names: tuple[str, ...]
    """Its names, without the dash; the first is the one that QEMU's manual prefers."""
    argument: str
    """What its argument is called; empty if it has none."""
    help: str
    becomes: str
    """What of `run` it becomes, in Markdown."""
    take: Callable[[Settings, str], None]
    """Take it with its argument; QemuOptionError if it cannot be."""
    differs: str = ""
    """What differs from QEMU, in Markdown."""


def key_values(text: str, implied: str) -> dict[str, str]:
    """Return what QEMU reads in `VALUE,KEY=VALUE,…`, if a first value without a key is that of `implied`.

    `,,` is a comma in a value. A key without a value is on; `noKEY` is off. The last one of a key counts.
    """
    found: dict[str, str] = {}
    for number, match in enumerate(_VALUE.finditer(text)):
        word = match[1].replace(",,", ",")
        if not word and match.end() == len(text) and number:
            break
        key, sign, value = word.partition("=")
        if sign:
            found[key] = value
        elif number == 0:
            found[implied] = word
        elif word.startswith("no"):
            found[word.removeprefix("no")] = "off"
        else:
            found[word] = "on"
    return found


def each_value(text: str, key: str) -> list[str]:
    """Return all values of a key that may be there several times."""
    words = (match[1].replace(",,", ",").partition("=") for match in _VALUE.finditer(text))
    return [value for name, _, value in words if name == key]


def only(values: Mapping[str, str], *known: str) -> None:
    """QemuOptionError if there are other keys than these."""
    for key in values:
        if key not in known:
            raise QemuOptionError(f"{key!r} is not available; there are {', '.join(known)}")
