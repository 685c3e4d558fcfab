"""`chronovisor demo`: the timebase offset, seen happening, in five acts."""

from chronovisor.cli.demo.command import command

__all__ = ["command"]
