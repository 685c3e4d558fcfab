"""`chronovisor guests`: the guests that come with Chronovisor."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from chronovisor.machine.shipped import GUESTS


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON array.")] = False,
) -> None:
    """List the guests that come with Chronovisor, what each does, and the keys that it understands.

    Every command that takes an image takes these names too, with or without `.elf`. A file of the same name
    in the current directory comes first.
    """
    if as_json:
        answer = [
            {"name": guest.name, "images": guest.images, "does": guest.does, "keys": dict(guest.keys)}
            for guest in GUESTS
        ]
        print(json.dumps(answer, indent=2))
        return
    for guest in GUESTS:
        print(", ".join(guest.images))
        print(f"    {guest.does}")
        for key, effect in guest.keys:
            print(f"    {key}  {effect}")
