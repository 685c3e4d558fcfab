"""QEMU's options about disks and the network, as far as they say what `--disk` and `--net` do."""

from __future__ import annotations

from collections.abc import Mapping

from chronovisor.cli.qemu.option import QemuOptionError, Settings, key_values, only

_HARMLESS = ("id", "if", "index", "bus", "unit", "cache", "aio", "discard", "detect-zeroes", "media")


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
        raise QemuOptionError(f"{driver!r} is not available; there are scsi-hd, spapr-vscsi and spapr-vlan")


def take_netdev(settings: Settings, text: str) -> None:
    """`-netdev user|tap,id=ID,…`: a network for a later `-device spapr-vlan`."""
    values = key_values(text, "type")
    only(values, "type", "id", "ifname", "script", "downscript")
    if not values.get("id"):
        raise QemuOptionError("Parameter 'id' is missing")
    settings.networks[values["id"]] = _network(values)


def take_nic(settings: Settings, text: str) -> None:
    """`-nic user|tap,…`: a network card and its network."""
    values = key_values(text, "type")
    if values.get("type") == "none":
        return
    only(values, "type", "id", "model", "mac", "ifname", "script", "downscript")
    if values.get("model", "spapr-vlan") != "spapr-vlan":
        raise QemuOptionError("model can be spapr-vlan alone")
    settings.set("--net", _with_address(_network(values), values))


def _disk(values: Mapping[str, str]) -> str:
    """The disk as `--disk` takes it."""
    words = [values["file"].replace(",", ",,")]
    if "format" in values:
        words.append(f"format={values['format']}")
    if values.get("readonly", "off") != "off":
        words.append("ro")
    return ",".join(words)


def _network(values: Mapping[str, str]) -> str:
    """The network as `--net` takes it."""
    kind = values.get("type", "")
    if kind == "user" and "ifname" not in values:
        return "passt"
    if kind == "tap" and values.get("ifname"):
        if values.get("script", "no") != "no" or values.get("downscript", "no") != "no":
            raise QemuOptionError("script and downscript can be no: the tap device must be there")
        return f"tap={values['ifname']}"
    raise QemuOptionError(f"{kind!r} is not available; there are user, and tap with ifname=NAME")


def _with_address(network: str, values: Mapping[str, str]) -> str:
    return f"{network},mac={values['mac']}" if values.get("mac") else network
