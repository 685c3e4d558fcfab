"""The options that `chronovisor-qemu` takes, in Markdown, made from their declarations for docs/qemu.md."""

from __future__ import annotations

from collections.abc import Iterator

from chronovisor.cli.qemu.options import OPTIONS


def lines() -> Iterator[str]:
    """Return the lines of the reference."""
    yield "## Options"
    for option in OPTIONS:
        names = ", ".join(f"-{name}" for name in option.names)
        yield from ("", f"### {names} {option.argument}".rstrip(), "")
        sentence = f"{option.help[0].upper()}{option.help[1:]}."
        yield sentence + (f" Becomes {option.becomes}." if option.becomes else "")
        if option.differs:
            yield from ("", f"Differs: {option.differs}")
