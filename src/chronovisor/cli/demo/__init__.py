"""`chronovisor demo`: the timebase offset, seen happening, in four acts."""

from chronovisor.cli.demo.command import command

__all__ = ["command"]
