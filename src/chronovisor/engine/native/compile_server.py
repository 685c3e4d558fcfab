"""The process that compiles handlers: ``python -m chronovisor.engine.native.compile_server``.

A request is a line of JSON on standard input: the mode, the handlers by their instructions' numbers and
static fields, the pairs by their numbers, and the fingerprint of the sources that the numbers are of. If a
region is wanted, it has the page's content and the hot offset instead. The answer on standard output is
8 bytes, the length, then the object file or what `CompiledRegion.encode` makes. The process ends when its
input does, so it never outlives the process that started it.
"""

from __future__ import annotations

import base64
import json
import os
import struct
import sys
import threading
from queue import SimpleQueue

from chronovisor.engine.native.compiler import compile_handlers, fingerprint
from chronovisor.engine.native.pairs import pairs
from chronovisor.engine.native.regions.compile import WantedRegion, compile_region
from chronovisor.engine.native.sets import HandlerSet, numbers
from chronovisor.isa.instruction import INSTRUCTIONS

LENGTH = struct.Struct("<Q")


def request(wanted: HandlerSet | WantedRegion) -> bytes:
    """The line that asks for a set or a region."""
    if isinstance(wanted, WantedRegion):
        content = base64.b64encode(wanted.content).decode()
        asked = {"fingerprint": fingerprint(), "mode": wanted.mode, "page": content, "hot": wanted.hot}
        return json.dumps(asked).encode() + b"\n"
    number = {pair: n for n, pair in enumerate(pairs())}
    return (
        json.dumps(
            {
                "fingerprint": fingerprint(),
                "mode": wanted.mode,
                "keys": [(numbers()[instruction], values) for instruction, values in wanted.keys],
                "pairs": [number[pair] for pair in wanted.pairs],
            }
        ).encode()
        + b"\n"
    )


def answer(line: bytes) -> bytes:
    """The object file that a request asks for."""
    asked = json.loads(line)
    if asked["fingerprint"] != fingerprint():
        raise SystemExit("chronovisor's sources changed while it ran")
    if "page" in asked:
        content = base64.b64decode(asked["page"])
        return compile_region(WantedRegion(tuple(asked["mode"]), content, asked["hot"])).encode()
    keys = [(INSTRUCTIONS[number], tuple(values)) for number, values in asked["keys"]]
    together = [pairs()[number] for number in asked["pairs"]]
    return compile_handlers(keys, together, tuple(asked["mode"]))


def main() -> None:
    """Answer requests until the input ends."""
    lines: SimpleQueue[bytes] = SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        # The process that wanted the code is gone. LLVM may be at work: end without asking it.
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        code = answer(lines.get())
        sys.stdout.buffer.write(LENGTH.pack(len(code)) + code)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
