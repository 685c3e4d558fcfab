"""The options about the host, for every command that makes one."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias

import typer


class Clock(StrEnum):
    """A host's source of time."""

    real = "real"
    virtual = "virtual"


class Engine(StrEnum):
    """What executes a guest's instructions."""

    auto = "auto"
    regions = "regions"
    threaded = "threaded"
    concrete = "concrete"


class Provider(StrEnum):
    """What runs guests."""

    auto = "auto"
    embedded = "embedded"
    linux = "linux"


class Cpu(StrEnum):
    """A processor that the embedded host can be."""

    auto = "auto"
    power8 = "power8"
    power9 = "power9"
    ppc970 = "ppc970"


TbOrigin: TypeAlias = Annotated[
    str, typer.Option(help="The host's timebase when its clock was 0, in ticks (or 0x…).")
]
ClockOption: TypeAlias = Annotated[
    Clock,
    typer.Option(help="real: this machine's; virtual: counts the guest's instructions, repeats itself."),
]
TicksPerInstruction: TypeAlias = Annotated[
    int,
    typer.Option(
        help="How far a virtual clock goes with each instruction, in ticks of 1.95 ns; Linux boots sooner "
        "with few.",
        # Beyond that a switch between guest and host, a few instructions, may take too long to be sound.
        min=1,
        max=1 << 20,
        metavar="N",
    ),
]
EngineOption: TypeAlias = Annotated[
    Engine,
    typer.Option(
        help="regions: hot loops compiled whole; threaded: compiled code for each instruction; concrete: "
        "interpreted, slow, the reference; auto: regions if they work here."
    ),
]
CpuOption: TypeAlias = Annotated[
    Cpu, typer.Option(help="The processor; power8's threads share an offset; auto: power9, or the host's.")
]
ProviderOption: TypeAlias = Annotated[
    Provider, typer.Option(help="linux: the kernel's KVM; auto: linux if it works here, else embedded.")
]
MemoryLimit: TypeAlias = Annotated[str, typer.Option(help="Guests with more memory are refused.")]
Stats: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--stats", help="At the end, say on stderr what executed the guest's instructions and was compiled."
    ),
]
RunTimeout: TypeAlias = Annotated[
    str, typer.Option(help="Seconds of real time after which the guest is ended.", metavar="SECONDS")
]
