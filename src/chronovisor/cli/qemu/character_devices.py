"""QEMU's character devices: where the console and QMP's clients are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chronovisor.cli.qemu.option import QEMU_ESCAPE, QemuOptionError, Settings, key_values, only
from chronovisor.machine.errors import MachineError

_BACKENDS: Final = ("socket", "file", "stdio", "null")
CHARDEV_HELP: Final = "Available chardev backend types:\n" + "".join(f"  {name}\n" for name in _BACKENDS)
OBJECT_HELP: Final = "List of user creatable objects:\n  tls-creds-x509\n"
_SERVER: Final = (
    "server",
    "wait",
    "path",
    "host",
    "port",
    "to",
    "ipv4",
    "ipv6",
    "nodelay",
    "telnet",
    "tls-creds",
)


def take_chardev(settings: Settings, text: str) -> None:
    """`-chardev BACKEND,id=ID,…`: a character device for -serial and -mon."""
    values = key_values(text, "backend")
    backend, name = values.get("backend", ""), values.get("id", "")
    if backend not in _BACKENDS:
        raise QemuOptionError(f"{backend!r} is not available; there are {', '.join(_BACKENDS)}")
    if not name:
        raise QemuOptionError("Parameter 'id' is missing")
    if name in settings.backends:
        raise QemuOptionError(f"there is a character device {name!r} already")
    settings.backends[name] = values
    # What cannot be used is told now.
    _place(Settings(), values)


def take_object(settings: Settings, text: str) -> None:
    """`-object tls-creds-x509,id=ID,dir=DIRECTORY,endpoint=client|server`: what `tls-creds=ID` of a socket
    means, and of a move by QMP.
    """
    # Few command lines have one.
    from chronovisor.cli.qemu.object_text import parse_object

    try:
        given = parse_object(text)
    except MachineError as error:
        raise QemuOptionError(str(error)) from None
    if not given.get("verify-peer", True):
        raise QemuOptionError("a client without a certificate is not let in: verify-peer can be on alone")
    if not given.get("dir"):
        raise QemuOptionError("Missing 'dir' property value")
    if given["id"] in settings.objects:
        raise QemuOptionError(f"there is an object {given['id']!r} already")
    settings.objects[given["id"]] = text
    if given.get("endpoint") == "server":
        settings.credentials[given["id"]] = given["dir"]


def take_serial(settings: Settings, text: str) -> None:
    """`-serial DEVICE`: the guest's console."""
    place = _device(settings, text)
    if text.startswith("mon:") and place == "stdio":
        settings.set("--escape", QEMU_ESCAPE)
    settings.set("--console", place)


def take_qmp(settings: Settings, text: str) -> None:
    """`-qmp DEVICE`: QMP's clients."""
    _set_qmp(settings, _device(settings, text))


def take_mon(settings: Settings, text: str) -> None:
    """`-mon chardev=ID,mode=control`: QMP's clients, too."""
    values = key_values(text, "chardev")
    only(values, "chardev", "id", "mode", "pretty")
    if values.get("mode", "readline") != "control":
        raise QemuOptionError("the human monitor is not available; mode=control is QMP")
    _set_qmp(settings, _device(settings, f"chardev:{values.get('chardev', '')}"))


def take_monitor(settings: Settings, text: str) -> None:
    """`-monitor none`: there is no human monitor."""
    if text not in ("none", "null"):
        raise QemuOptionError("the human monitor is not available; QMP is: -qmp")


def take_gdb(settings: Settings, text: str) -> None:
    """`-gdb DEVICE`: where gdb connects."""
    if text == "none":
        return
    address, _, _ = text.partition(",")
    if address.startswith("tcp:"):
        host, _, port = address.removeprefix("tcp:").rpartition(":")
        settings.set("--gdb", f"{host}:{port}" if host else port)
    elif address.startswith("unix:"):
        settings.set("--gdb", address)
    else:
        raise QemuOptionError("gdb connects to tcp:[HOST]:PORT or unix:PATH")


def _set_qmp(settings: Settings, place: str) -> None:
    if not place.startswith(("unix:", "tcp:", "tls:")):
        raise QemuOptionError("QMP is answered at a socket: unix:PATH,server=on,wait=off")
    settings.set("--qmp", place)


def _device(settings: Settings, text: str) -> str:
    """The place, as `--console` takes it, that a device says: `stdio`, `unix:…`, `chardev:ID`."""
    text = text.removeprefix("mon:")
    kind, _, rest = text.partition(":")
    if kind == "chardev":
        if rest not in settings.backends:
            raise QemuOptionError(f'chardev "{rest}" not found')
        return _place(settings, settings.backends[rest])
    if text in ("stdio", "null", "none"):
        return "stdio" if text == "stdio" else "none"
    if kind == "file":
        return f"file:{rest}"
    if kind == "unix":
        values = key_values(rest, "path")
        return _place(settings, {"backend": "socket", **values})
    if kind == "tcp":
        address, comma, options = rest.partition(",")
        host, _, port = address.rpartition(":")
        values = {"host": host, "port": port, **key_values(comma + options, "")}
        return _place(settings, {"backend": "socket", **values})
    raise QemuOptionError(
        f"{text!r} is not available; there are stdio, mon:stdio, null, none, file:FILE, unix:PATH,server=on "
        f"and "
        "tcp:HOST:PORT,server=on"
    )


def _place(settings: Settings, values: Mapping[str, str]) -> str:
    backend = values["backend"]
    if backend == "stdio":
        only(values, "backend", "id", "mux", "signal")
        return "stdio"
    if backend == "null":
        only(values, "backend", "id")
        return "none"
    if backend == "file":
        only(values, "backend", "id", "path")
        return f"file:{values.get('path', '')}"
    only(values, "backend", "id", "", *_SERVER)
    if values.get("server", "off") != "on":
        raise QemuOptionError("clients connect to it here: say server=on")
    if values.get("telnet", "off") != "off":
        raise QemuOptionError("telnet is not available")
    if "path" in values:
        if "tls-creds" in values:
            raise QemuOptionError("TLS credentials are for a port, not for a unix socket")
        return f"unix:{values['path']}"
    scheme = "tcp"
    if credentials := values.get("tls-creds"):
        settings.protected_by.add(credentials)
        scheme = "tls"
    return f"{scheme}:{values.get('host') or '127.0.0.1'}:{values.get('port', '')}"
