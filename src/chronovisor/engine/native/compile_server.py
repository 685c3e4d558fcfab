"""The process that compiles handlers: ``python -m chronovisor.engine.native.compile_server``.

A request is a line of JSON on standard input, with the fingerprint of the sources that it is for. A set of
handlers is wanted by the mode, the handlers by their instructions' numbers and static fields, and the pairs
by their numbers. The answer on standard output is the object file behind a header: its length and its
SHA-256. Damaged object files can make LLVM's linker abort, so whatever else comes to the output must not be
taken for one. The process ends when its input does, and Linux kills it when the process that started it is
gone, whose number is the argument: a copy of that process may have the other end of the input, too.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import struct
import sys
import threading
from collections.abc import Callable
from itertools import count
from queue import SimpleQueue
from typing import Any

from chronovisor.engine.native.compiler import compile_handlers, fingerprint
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.native.pairs import pairs
from chronovisor.engine.native.sets import HandlerSet, numbers
from chronovisor.engine.native.stencil_set import compile_stencils
from chronovisor.isa.instruction import INSTRUCTIONS
from chronovisor.parent_process import end_with

HEADER = struct.Struct("<Q32s")


def request(wanted: HandlerSet) -> dict[str, object]:
    """What asks for a set."""
    number = {pair: n for n, pair in enumerate(pairs())}
    return {
        "mode": wanted.mode,
        "keys": [(numbers()[instruction], values) for instruction, values in wanted.keys],
        "pairs": [number[pair] for pair in wanted.pairs],
    }


def stencils_request(mode: Mode) -> dict[str, object]:
    """What asks for all stencils of a mode."""
    return {"mode": mode}


def answer(asked: dict[str, Any]) -> bytes:
    """The object file that a request asks for, or the stencils."""
    if "keys" not in asked:
        return compile_stencils(tuple(asked["mode"]))
    keys = [(INSTRUCTIONS[number], tuple(values)) for number, values in asked["keys"]]
    together = [pairs()[number] for number in asked["pairs"]]
    return compile_handlers(keys, together, tuple(asked["mode"]))


def serve(answers: Callable[[dict[str, Any]], bytes], collects_after: int | None = None) -> None:
    """Answer requests until the input ends, or the process that started this one is gone.

    If ``collects_after`` is given, garbage is collected after so many answers, and at no other time.
    """
    # The thread that starts this process is the one that hands it requests.
    end_with(int(sys.argv[1]))
    lines: SimpleQueue[bytes] = SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        # The process that wanted the code is gone. LLVM may be at work: end without asking it.
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    # What was imported stays: the garbage collector need not look at it again and again.
    gc.freeze()
    if collects_after:
        gc.disable()
    for number in count(1):
        asked = json.loads(lines.get())
        if asked["fingerprint"] != fingerprint():
            raise SystemExit("chronovisor's sources changed while it ran")
        code = answers(asked)
        sys.stdout.buffer.write(HEADER.pack(len(code), hashlib.sha256(code).digest()) + code)
        sys.stdout.buffer.flush()
        if collects_after and number % collects_after == 0:
            gc.collect()


if __name__ == "__main__":
    serve(answer)
