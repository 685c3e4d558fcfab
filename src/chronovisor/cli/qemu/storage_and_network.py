"""QEMU's options about disks and the network, as far as they say what `--disk` and `--net` do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from chronovisor.cli.qemu.option import QemuOptionError, Settings, each_value, key_values, only

_FORWARDED: Final = re.compile(r"(tcp|udp):([^:\[\]]*|\[[^\[\]]*\]):(\d+)-:(\d+)", re.ASCII)
"""A port of this machine that leads to the guest: PROTOCOL:[ADDRESS]:PORT-:PORT."""
_HARMLESS = ("id", "if", "index", "bus", "unit", "cache", "aio", "discard", "detect-zeroes", "media")
_DEVICES: Final = {
    "scsi-hd": ("Storage", 'bus SCSI, desc "virtual SCSI disk"'),
    "spapr-vscsi": ("Storage", "bus spapr-vio-bus"),
    "spapr-vlan": ("Network", "bus spapr-vio-bus"),
}
"""What each device is, and as what QEMU lists it."""
_NETWORKS: Final = ("user", "tap")
DEVICE_HELP: Final = "".join(
    f"{kind} devices:\n"
    + "".join(f'name "{name}", {shown}\n' for name, (of, shown) in _DEVICES.items() if of == kind)
    for kind in ("Storage", "Network")
)
NETDEV_HELP: Final = "Available netdev backend types:\n" + "".join(f"{name}\n" for name in _NETWORKS)


def take_drive(settings: Settings, text: str) -> None:
    """`-drive file=FILE,…`: a disk; with if=none one for a later `-device scsi-hd`."""
    values = key_values(text, "file")
    only(values, "file", "format", "readonly", *_HARMLESS)
    interface = values.get("if", "scsi")
    if interface not in ("scsi", "none"):
        raise QemuOptionError(f"if={interface} is not available; disks are virtual SCSI: if=scsi or if=none")
    if values.get("media", "disk") != "disk":
        raise QemuOptionError("media can be disk alone")
    if not values.get("file"):
        raise QemuOptionError("Parameter 'file' is missing")
    if interface == "none":
        if not values.get("id"):
            raise QemuOptionError("Parameter 'id' is missing")
        settings.drives[values["id"]] = _disk(values)
    else:
        settings.disks.append(_disk(values))


def take_disk(settings: Settings, text: str) -> None:
    """`-hda FILE`, or FILE alone."""
    settings.disks.append(_disk({"file": text}))


def take_device(settings: Settings, text: str) -> None:
    """`-device scsi-hd,drive=ID` or `-device spapr-vlan,netdev=ID`."""
    values = key_values(text, "driver")
    driver = values.get("driver")
    if driver == "spapr-vscsi":
        # Each disk has an adapter of its own.
        only(values, "driver", "id", "reg")
    elif driver == "scsi-hd":
        only(values, "driver", "id", "drive", "bus", "lun", "channel", "scsi-id", "bootindex")
        if values.get("drive") not in settings.drives:
            raise QemuOptionError(f"there is no drive {values.get('drive', '')!r} with if=none before")
        settings.disks.append(settings.drives.pop(values["drive"]))
    elif driver == "spapr-vlan":
        only(values, "driver", "id", "netdev", "mac", "reg")
        if values.get("netdev") not in settings.networks:
            raise QemuOptionError(f"there is no network {values.get('netdev', '')!r} before")
        settings.set("--net", _with_address(settings.networks.pop(values["netdev"]), values))
    else:
        raise QemuOptionError(f"{driver!r} is not available; there are {', '.join(_DEVICES)}")


def take_netdev(settings: Settings, text: str) -> None:
    """`-netdev user|tap,id=ID,…`: a network for a later `-device spapr-vlan`."""
    values = key_values(text, "type")
    only(values, "type", "id", "ifname", "script", "downscript", "hostfwd")
    if not values.get("id"):
        raise QemuOptionError("Parameter 'id' is missing")
    settings.networks[values["id"]] = _network(values, each_value(text, "hostfwd"))


def take_nic(settings: Settings, text: str) -> None:
    """`-nic user|tap,…`: a network card and its network."""
    values = key_values(text, "type")
    if values.get("type") == "none":
        return
    only(values, "type", "id", "model", "mac", "ifname", "script", "downscript", "hostfwd")
    _check_model(values)
    settings.set("--net", _with_address(_network(values, each_value(text, "hostfwd")), values))


def take_net(settings: Settings, text: str) -> None:
    """`-net nic,…` and `-net user|tap,…`: the card, and the network that it is at; `-net none`."""
    values = key_values(text, "type")
    if values.get("type") == "none":
        return
    if values.get("type") == "nic":
        only(values, "type", "model", "macaddr", "netdev", "name", "vlan")
        _check_model(values)
        settings.card = {"mac": values.get("macaddr", "")}
    else:
        only(values, "type", "id", "name", "ifname", "script", "downscript", "hostfwd", "vlan")
        settings.at_card = _network(values, each_value(text, "hostfwd"))
    if settings.card is not None and settings.at_card:
        settings.set("--net", _with_address(settings.at_card, settings.card))


def _check_model(values: Mapping[str, str]) -> None:
    # The name of Linux's driver is the other one that QEMU takes.
    if values.get("model", "spapr-vlan") not in ("spapr-vlan", "ibmveth"):
        raise QemuOptionError("model can be spapr-vlan alone")


def _disk(values: Mapping[str, str]) -> str:
    """The disk as `--disk` takes it."""
    words = [values["file"].replace(",", ",,")]
    if "format" in values:
        words.append(f"format={values['format']}")
    if values.get("readonly", "off") != "off":
        words.append("ro")
    return ",".join(words)


def _network(values: Mapping[str, str], forwarded: Sequence[str]) -> str:
    """The network as `--net` takes it."""
    kind = values.get("type", "")
    if kind == "user" and "ifname" not in values:
        return ",".join(("passt", *map(_port, forwarded)))
    if forwarded:
        raise QemuOptionError("hostfwd is for user alone")
    if kind == "tap" and values.get("ifname"):
        if values.get("script", "no") != "no" or values.get("downscript", "no") != "no":
            raise QemuOptionError("script and downscript can be no: the tap device must be there")
        return f"tap={values['ifname']}"
    raise QemuOptionError(f"{kind!r} is not available; there are {', '.join(_NETWORKS)} (with ifname=NAME)")


def _port(text: str) -> str:
    match = _FORWARDED.fullmatch(text)
    if match is None:
        raise QemuOptionError(
            f"hostfwd={text}: write tcp|udp:[ADDRESS]:PORT-:PORT; the guest has one address"
        )
    address = f"{match[2].strip('[]')}/" if match[2] else ""
    return f"{match[1]}={address}{match[3]}:{match[4]}"


def _with_address(network: str, values: Mapping[str, str]) -> str:
    return f"{network},mac={values['mac']}" if values.get("mac") else network
