"""`chronovisor doctor`: what this machine can do for guests, and what it lacks."""

from __future__ import annotations

import json
import os
import platform
from importlib.util import find_spec
from textwrap import fill
from typing import Annotated, Any, Final

import typer

from chronovisor.cli.output import terminal_width
from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.ids import Cap
from chronovisor.kvm.interface import HostOptions, System
from chronovisor.kvm.provider import open_system, settled
from chronovisor.report.columns import aligned
from chronovisor.timebase.clock import RealTime

_PACKAGES: Final = {
    "llvmlite": "the embedded provider's native engine; without it guests are interpreted, slowly",
    "z3": "`chronovisor prove`",
    "matplotlib": "the picture of `chronovisor demo`",
}
"""The packages that not every machine needs (they have no wheels for Power), and what each is for."""
_LIMITS: Final = {
    "vCPUs": Cap.MAX_VCPUS,
    "vCPU ids": Cap.MAX_VCPU_ID,
    "threads of a virtual core": Cap.PPC_SMT,
    "advised vCPUs": Cap.NR_VCPUS,
}


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> None:
    """Show what this machine can do for guests: the provider that `run` takes, what the kernel's KVM offers,
    how it keeps guests' time, its limits, and what is missing.
    """
    found = examine()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    rows, width = _rows(found), terminal_width()
    indent = " " * (2 + max(len(label) for label, _ in rows))
    for line in aligned(rows):
        print(line if width is None else fill(line, width, subsequent_indent=indent))


def examine() -> dict[str, Any]:
    """Examine this machine. This changes nothing and leaves nothing open."""
    options = HostOptions(source=RealTime())
    provider = settled(options, "auto")
    missing = []
    try:
        open_system(options, "linux").close()
    except KvmError as error:
        missing.append(f"the kernel's KVM (--provider linux): {error.message}")
    missing += [
        f"the package {name}, for {purpose}" for name, purpose in _PACKAGES.items() if find_spec(name) is None
    ]
    system = open_system(options, provider)
    try:
        return {
            "machine": os.uname().machine,
            "kernel": os.uname().release,
            "python": platform.python_version(),
            "provider": provider,
            **_host(system),
            "missing": missing,
        }
    finally:
        system.close()


def _host(system: System) -> dict[str, Any]:
    host = system.host
    return {
        "processor": f"{host.pvr:#x}",
        "timebase_frequency": host.frequency,
        "timebase": f"{system.clock.now().value:#x}",
        "tbu40": host.has_tbu40,
        "decrementer_bits": host.dec_bits,
        "page_size": host.page_size,
        "limits": {name: system.check_extension(cap) for name, cap in _LIMITS.items()},
        "capabilities": {cap.name: value for cap in Cap if (value := system.check_extension(cap))},
    }


def _rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    tbu40 = "yes: guests keep time of their own" if found["tbu40"] else "no: guests have the host's time"
    limits = ", ".join(f"{value} {name}" for name, value in found["limits"].items())
    rows = [
        ("machine", f"{found['machine']}, Linux {found['kernel']}, Python {found['python']}"),
        ("provider", f"{found['provider']}, which `run` and `receive` take"),
        ("processor", f"version {found['processor']}"),
        ("timebase", f"{found['timebase_frequency']} Hz, reads {found['timebase']}"),
        ("TBU40", tbu40),
        ("decrementer", f"{found['decrementer_bits']} bits if a guest makes it large, 32 otherwise"),
        ("pages", f"{found['page_size']} bytes"),
        ("limits", limits),
        ("capabilities", " ".join(found["capabilities"])),
    ]
    return rows + [("missing", each) for each in found["missing"]]
