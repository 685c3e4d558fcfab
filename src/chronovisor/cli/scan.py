"""`chronovisor scan`: where an image's machine code writes the registers of time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from chronovisor.machine.errors import ImageError
from chronovisor.proof.image import CodeError, CodeImage, read_code
from chronovisor.proof.time_writes import Line, TimeWrite, around, time_writes


def command(
    file: Annotated[Path, typer.Argument(help="An ELF file: a kernel, a module, an executable, an object.")],
    context: Annotated[
        int, typer.Option(min=0, max=64, help="How many instructions to show before and after each.")
    ] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> None:
    """Find every write of TBU40, TBU, TBL, DEC and HDEC in the code of an ELF file for 64-bit Power, and show
    the instructions around each. Exit status: 0 done; 2 bad usage; 4 no such file or none of these.
    """
    try:
        image = read_code(file)
    except CodeError as error:
        raise ImageError(str(error)) from None
    writes = time_writes(image)
    if as_json:
        print(json.dumps(_as_json(image, writes, context), indent=2))
    else:
        _print(image, writes, context)


def _print(image: CodeImage, writes: list[TimeWrite], context: int) -> None:
    for write in writes:
        print(f"{write.register} is written at {image.place(write.address)}")
        for line in around(image, write.address, context, context):
            print(f"  {'>' if line.address == write.address else ' '} {line.address:#x}  {line.text}")
        print()
    print(f"{image.name}: {len(writes)} writes of registers of time")


def _as_json(image: CodeImage, writes: list[TimeWrite], context: int) -> dict[str, Any]:
    return {
        "file": image.name,
        "byte_order": "little" if image.little else "big",
        "writes": [
            {
                "register": write.register,
                "address": write.address,
                "place": image.place(write.address),
                "code": [line_as_json(line) for line in around(image, write.address, context, context)],
            }
            for write in writes
        ],
    }


def line_as_json(line: Line) -> dict[str, Any]:
    """Return an instruction as JSON has it."""
    return {"address": line.address, "word": f"{line.word:08x}", "text": line.text}
