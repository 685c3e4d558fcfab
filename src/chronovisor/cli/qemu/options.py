"""QEMU's options that are taken, as data: the parser, the help and docs/qemu.md are made from it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from chronovisor.cli.qemu.character_devices import (
    take_chardev,
    take_gdb,
    take_mon,
    take_monitor,
    take_object,
    take_qmp,
    take_serial,
)
from chronovisor.cli.qemu.machine_options import (
    take_accelerator,
    take_cpu,
    take_icount,
    take_machine,
    take_memory,
    take_name,
    take_rtc,
    take_smp,
)
from chronovisor.cli.qemu.option import Option, QemuOptionError, Settings, key_values, only
from chronovisor.cli.qemu.storage_and_network import (
    take_device,
    take_disk,
    take_drive,
    take_net,
    take_netdev,
    take_nic,
)
from chronovisor.machine.guest_log import MEANINGS


def _sets(option: str, value: str | None = None) -> Callable[[Settings, str], None]:
    """Take an option that becomes `option`, with its own argument or with `value`."""
    return lambda settings, text: settings.set(option, text if value is None else value)


def _nothing(settings: Settings, text: str) -> None:
    """Take an option that says what is so anyway."""


def _only_none(settings: Settings, text: str) -> None:
    if text != "none":
        raise QemuOptionError("can be none alone")


def _display(settings: Settings, text: str) -> None:
    _only_none(settings, text)
    settings.has_display = False


def _nographic(settings: Settings, text: str) -> None:
    settings.on_terminal = True


def _bios(settings: Settings, text: str) -> None:
    if not os.access(text, os.R_OK):
        raise QemuOptionError(f"Could not find LPAR firmware {text!r}")


def _action(settings: Settings, text: str) -> None:
    values = key_values(text, "")
    only(values, *_ACTIONS)
    for key, value in values.items():
        if value not in _ACTIONS[key]:
            raise QemuOptionError(f"{key} can be {' or '.join(_ACTIONS[key])}")
    if values.get("reboot") == "shutdown":
        settings.set("--no-reboot")


_ACTIONS: Final = {"reboot": ("reset", "shutdown"), "panic": ("shutdown",), "shutdown": ("poweroff",)}


def _incoming(settings: Settings, text: str) -> None:
    if text != "defer" and not text.startswith(("tcp:", "unix:")):
        raise QemuOptionError(
            "a guest can come to tcp:HOST:PORT of this machine's loopback, to unix:PATH, or with defer"
        )
    settings.incoming = text


def _log(settings: Settings, text: str) -> None:
    for item in text.split(","):
        if item not in MEANINGS:
            raise QemuOptionError(f"{item!r} is not logged; there are {', '.join(MEANINGS)}")
    settings.set("--log", text)


OPTIONS: Final = (
    Option(("machine", "M"), "[type=]pseries[,…]", "the machine, and what is so of it", "",
        take_machine, "A version (`pseries-7.2`) makes no difference. Properties are taken if they say "
        "what is so here: `cap-cfpc=broken`, `cap-sbbc=broken`, `cap-ibs=broken`, `cap-ccf-assist=off`, "
        "`cap-htm=off`, `cap-nested-hv=off`, `ic-mode=xics`; `accel=` is as `-accel`."),
    Option(("accel",), "tcg|kvm[,…]", "what executes the guest", "`--provider embedded` or `linux`",
        take_accelerator, "`tcg` is Chronovisor's own engine. `thread=` and `tb-size=` are ignored."),
    Option(("enable-kvm",), "", "the same as -accel kvm", "`--provider linux`", _sets("--provider", "linux")),
    Option(("cpu",), "power9|power8|970|host", "the processor", "`--cpu`", take_cpu,
        "No options after the model."),
    Option(("m",), "[size=]MEGABYTES|SIZE", "the guest's memory (default: 512 MB)", "`--memory`", take_memory,
        "No `slots`, no `maxmem`. Any size: QEMU takes multiples of 256 MiB alone."),
    Option(("smp",), "[cpus=]N[,cores=N][,threads=N][,sockets=N]", "the vCPUs", "`--smp`", take_smp,
        "A socket makes no difference. `maxcpus` can be the number of vCPUs alone."),
    Option(("kernel",), "FILE", "the kernel: a 64-bit Power ELF file", "`--kernel`", _sets("--kernel"),
        "It is needed, because there is no firmware. It starts with a flattened device tree in r3."),
    Option(("initrd",), "FILE", "the initial RAM disk", "`--initrd`", _sets("--initrd")),
    Option(("append",), "TEXT", "the kernel's command line", "`--append`", _sets("--append")),
    Option(("bios",), "FILE", "taken and not used", "", _bios, "The file must be there. The kernel starts "
    "without it."),
    Option(("rtc",), "[base=]utc|localtime|DATE[,clock=host]", "the time of day at the start", "`--rtc`",
        take_rtc),
    Option(("icount",), "[shift=]N[,align=off][,sleep=on|off]", "time counts instructions: 2^N ns for each",
        "`--clock virtual --ticks-per-instruction`", take_icount,
        "An instruction takes a whole number of ticks of 1.953 ns: 2^N ns are rounded to the nearest. No "
        "`auto`, no `rr`. `sleep` makes no difference: a guest that waits takes no real time."),
    Option(("drive",), "file=FILE[,format=raw|qcow2][,readonly=on][,if=scsi|none,id=ID]", "a disk",
        "`--disk`", take_drive,
        "Disks are virtual SCSI, in the order of the options. Options about the host's cache are ignored."),
    Option(("hda",), "FILE", "a disk; also FILE without an option", "`--disk`", take_disk),
    Option(("netdev",), "user|tap,id=ID[,ifname=NAME]", "a network for -device spapr-vlan", "`--net`",
        take_netdev,
        "`user` is passt; of its options there is `hostfwd=tcp|udp:[ADDRESS]:PORT-:PORT`. Without an address "
        "the port is one of this machine's loopback. A tap device must be there."),
    Option(("nic",), "user|tap|none[,ifname=NAME][,mac=ADDRESS]", "a network card and its network", "`--net`",
        take_nic, "As `-netdev`. One card."),
    Option(("net",), "nic[,macaddr=ADDRESS]|user|tap|none[,…]", "a network card, and its network", "`--net`",
        take_net, "As `-netdev`. One card and one network: `-net nic -net user`."),
    Option(("action",), "reboot=reset|shutdown,panic=shutdown,shutdown=poweroff",
        "what is done when the guest reboots", "`--no-reboot`", _action,
        "`panic` and `shutdown` can be what is so anyway."),
    Option(("device",), "scsi-hd,drive=ID|spapr-vlan,netdev=ID[,mac=ADDRESS]|spapr-vscsi", "a device", "",
        take_device,
        "Each disk has an adapter of its own, whatever `spapr-vscsi` says."),
    Option(("nographic",), "", "the console on the terminal", "`--escape ^ax`", _nographic,
        "Ctrl-a x ends the run. Ctrl-a is also passed to the guest; Ctrl-a c leads to no monitor."),
    Option(("display",), "none", "no display", "", _display,
        "There never is one. Without `-serial` the console is then nowhere, as in QEMU, but `chronovisor "
        "console` attaches to it."),
    Option(("serial",), "stdio|mon:stdio|file:FILE|unix:PATH,server=on|null|chardev:ID",
        "the guest's console", "`--console`", take_serial,
        "One console. `tcp:HOST:PORT,server=on` is taken, too. A file holds the newest 16 MiB. The guest "
        "does not wait for a client (`wait=off`). With `stdio` Ctrl-C is the guest's once it reads its "
        "console, and Ctrl-] twice ends the run; with `mon:stdio` Ctrl-a x does."),
    Option(("monitor",), "none", "no human monitor", "", take_monitor, "There never is one."),
    Option(("qmp",), "unix:PATH,server=on|tcp:HOST:PORT,server=on", "QMP, see docs/qmp.md", "`--qmp`",
        take_qmp, "One place, at which several clients can be. The guest waits for none (`wait=off`)."),
    Option(("chardev",), "socket|file|stdio|null,id=ID,…", "a character device for -serial and -mon", "",
        take_chardev),
    Option(("object",), "tls-creds-x509,id=ID,dir=DIR,endpoint=client|server[,verify-peer=on]",
        "the certificates of a socket with tls-creds=ID, and of moves by QMP",
        "`--tls-credentials` and `--object`", take_object,
        "For `-chardev socket`, `-qmp tcp:` and `-serial tcp:`, one directory for all; for moves as many as "
        "you like. Both sides have to show a certificate. No `tls-authz`; every other object is refused."),
    Option(("mon",), "[chardev=]ID,mode=control[,id=ID]", "the same as -qmp", "`--qmp`", take_mon),
    Option(("gdb",), "tcp:[HOST]:PORT|unix:PATH|none", "where gdb connects", "`--gdb`", take_gdb,
        "Only this machine's loopback is listened to (`run --gdb tls:` listens under TLS)."),
    Option(("s",), "", "the same as -gdb tcp::1234", "`--gdb 1234`", _sets("--gdb", "1234")),
    Option(("S",), "", "run nothing before cont, by QMP or gdb", "`--paused`", _sets("--paused")),
    Option(("incoming",), "tcp:HOST:PORT|unix:PATH|defer", "wait for a guest that moves here",
        "`receive --once`", _incoming, "The guest comes from Chronovisor: QEMU's stream is another. It "
        "brings its memory, vCPUs and time of day; `-m` is the most that it may have."),
    Option(("no-reboot",), "", "end if the guest reboots", "`--no-reboot`", _sets("--no-reboot")),
    Option(("name",), "[guest=]NAME", "the guest's name", "`--name`", take_name,
        "It is the name by which `chronovisor ps` lists it, so it must be free, and consist of letters, "
        "digits, `.`, `_` and `-`."),
    Option(("pidfile",), "FILE", "write the process's id there", "`--pidfile`", _sets("--pidfile")),
    Option(("daemonize",), "", "go on in the background", "`--detach`", _sets("--detach"),
        "A line on the standard output says where the console's log is."),
    Option(("d",), "ITEM[,ITEM]", "log unimp or guest_errors", "`--log`", _log,
        "`unimp` is about hypercalls and RTAS services that are not there, `guest_errors` about those whose "
        "arguments are wrong. Every other item is refused: native code executes instructions and enters "
        "interrupts, and logs nothing. The lines are worded otherwise than QEMU's."),
    Option(("D",), "FILE", "where -d goes instead of the standard error", "`--log-file`",
        _sets("--log-file"), "FILE holds the newer half of the newest 16 MiB, FILE.1 the older."),
    Option(("nodefaults",), "", "no devices but those that are asked for", "", _nothing, "So it is anyway."),
    Option(("no-user-config",), "", "read no configuration file", "", _nothing, "None is read anyway."),
    Option(("vga",), "none", "no display", "", _only_none),
    Option(("parallel",), "none", "no parallel port", "", _only_none),
)  # fmt: skip
"""All of them, in the order of the help."""

BY_NAME: Final = {name: option for option in OPTIONS for name in option.names}
