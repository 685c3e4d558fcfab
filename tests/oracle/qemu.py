"""Ask QEMU: run many cases in one start of qemu-system-ppc64 and read what is left of each.

The machine's memory is a file that is mapped here: the cases are written into it before the start and the
outcomes are read out of it after the end, with nothing to transfer.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from .case import BLOCK_SIZE, CODE, SPRS, STRIDE, TRAP, Case, Outcome, Vectors, describe
from .image import (
    GPR_AT,
    HEADER,
    HEADER_SLOTS,
    MEMORY_AT,
    RECORD,
    RECORD_WITH_VECTORS,
    VSR_AT,
    build,
)

QEMU = "qemu-system-ppc64"
MEMORY = 256 << 20
RECORDS = 16 << 20
"""Guest address of the records; programs end below it."""

BATCH = 100_000
"""The most cases that one start takes."""

_INPUT = struct.Struct(f">{HEADER_SLOTS + 32}Q")
_VECTORS = struct.Struct(">131Q")
_PAD = (0,) * (HEADER_SLOTS - len(HEADER) - len(SPRS))
_UNSEEN = 0xDEAD


class OracleError(RuntimeError):
    """QEMU could not be asked, or did not answer."""


def available() -> bool:
    """Whether QEMU for Power is installed."""
    return shutil.which(QEMU) is not None


def run_batch(cases: Sequence[Case]) -> list[Outcome]:
    """QEMU's outcome of each case, in order. Cases that share an address share their words, too.

    Raises OracleError if QEMU is absent, hangs or stops before the last case (it names the case).
    """
    outcomes: list[Outcome] = []
    for start in range(0, len(cases), BATCH):
        outcomes += _run(cases[start : start + BATCH])
    return outcomes


def run_among(cases: Sequence[Case], contents: Mapping[int, bytes]) -> tuple[list[Outcome], dict[int, bytes]]:
    """As `run_batch`, with memory that has these contents from the start; return what it has in the end.

    The cases fit one batch.
    """
    left = dict(contents)
    return _run(cases, left), left


def _run(cases: Sequence[Case], contents: dict[int, bytes] | None = None) -> list[Outcome]:
    with tempfile.TemporaryDirectory(prefix="oracle-", dir=_fast_directory()) as directory:
        memory, bios = Path(directory, "memory"), Path(directory, "harness")
        bios.write_bytes(build(RECORDS, len(cases), cases[0].vectors is not None))
        with memory.open("w+b") as file:
            os.ftruncate(file.fileno(), MEMORY)
            with mmap.mmap(file.fileno(), MEMORY) as ram:
                _write_programs(ram, cases)
                _write_cases(ram, cases)
                contents = {} if contents is None else contents
                for address, data in contents.items():
                    ram[address : address + len(data)] = data
                _start(memory, bios, ram, cases)
                contents.update((at, ram[at : at + len(data)]) for at, data in contents.items())
                return [_read(ram, at, cases[0].vectors is not None) for at in _places(cases)]


def _places(cases: Sequence[Case]) -> range:
    """The address of each case's record."""
    size = RECORD if cases[0].vectors is None else RECORD_WITH_VECTORS
    return range(RECORDS, RECORDS + len(cases) * size, size)


def _fast_directory() -> str | None:
    """A directory in memory if there is one with room; else the system's own choice."""
    shm = Path("/dev/shm")
    return str(shm) if shm.is_dir() and shutil.disk_usage(shm).free > 2 * MEMORY else None


def _start(memory: Path, bios: Path, ram: mmap.mmap, cases: Sequence[Case]) -> None:
    command = [
        *(QEMU, "-M", "pseries,accel=tcg,memory-backend=ram", "-cpu", "power9", "-m", str(MEMORY >> 20)),
        *("-object", f"memory-backend-file,id=ram,size={MEMORY},mem-path={memory},share=on"),
        *("-bios", str(bios), "-display", "none", "-vga", "none", "-nodefaults", "-serial", "none"),
        *("-monitor", "none", "-no-reboot"),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=30 + len(cases) / 1000, check=False
        )
    except FileNotFoundError:
        raise OracleError(f"{QEMU} is not installed (Debian: qemu-system-ppc)") from None
    except subprocess.TimeoutExpired:
        raise OracleError(f"QEMU hangs in case {_unanswered(ram, cases)}") from None
    stopped = _unanswered(ram, cases)
    if done.returncode or stopped is not None:
        raise OracleError(
            f"QEMU ended with {done.returncode} in case {stopped}: {done.stderr.strip()[-500:]}"
        )


def _unanswered(ram: mmap.mmap, cases: Sequence[Case]) -> str | None:
    for at, case in zip(_places(cases), cases, strict=True):
        if struct.unpack_from(">Q", ram, at + 8 * HEADER.index("vector"))[0] == _UNSEEN:
            return describe(case)
    return None


def _write_programs(ram: mmap.mmap, cases: Sequence[Case]) -> None:
    placed: dict[int, tuple[tuple[int, ...], bool]] = {}
    for case in cases:
        program = (case.words, case.little)
        if case.address in placed:
            if placed[case.address] != program:
                raise ValueError(f"two programs at {case.address:#x}")
            continue
        if case.address % STRIDE or not CODE <= case.address < RECORDS or len(case.words) >= STRIDE // 4:
            raise ValueError(f"no place for {len(case.words)} words at {case.address:#x}")
        placed[case.address] = program
        order = "<" if case.little else ">"
        struct.pack_into(f"{order}{len(case.words) + 1}I", ram, case.address, *case.words, TRAP)


def _write_cases(ram: mmap.mmap, cases: Sequence[Case]) -> None:
    for at, case in zip(_places(cases), cases, strict=True):
        header = (
            case.address,
            case.msr,
            _UNSEEN,
            0,
            0,
            case.cr,
            case.xer,
            case.lr,
            case.ctr,
            *case.sprs,
            *_PAD,
        )
        _INPUT.pack_into(ram, at, *header, *case.gpr)
        ram[at + MEMORY_AT : at + MEMORY_AT + BLOCK_SIZE] = case.memory
        if case.vectors is not None:
            wide = (*case.vectors.vsr, case.vectors.vscr)
            halves = (half for value in wide for half in divmod(value, 1 << 64))
            _VECTORS.pack_into(ram, at + VSR_AT, *halves, case.vectors.fpscr)


def _read_vectors(ram: mmap.mmap, at: int) -> Vectors:
    *halves, fpscr = _VECTORS.unpack_from(ram, at + VSR_AT)
    *vsr, vscr = ((high << 64) | low for high, low in zip(halves[::2], halves[1::2], strict=True))
    return Vectors(tuple(vsr), vscr, fpscr)


def _read(ram: mmap.mmap, at: int, vectors: bool) -> Outcome:
    values = _INPUT.unpack_from(ram, at)
    _, msr, vector, srr0, srr1, cr, xer, lr, ctr = values[: len(HEADER)]
    return Outcome(
        vector=vector,
        msr=msr,
        srr0=srr0,
        srr1=srr1,
        gpr=values[GPR_AT // 8 :],
        cr=cr,
        xer=xer,
        lr=lr,
        ctr=ctr,
        sprs=values[len(HEADER) : len(HEADER) + len(SPRS)],
        memory=ram[at + MEMORY_AT : at + MEMORY_AT + BLOCK_SIZE],
        vectors=_read_vectors(ram, at) if vectors else None,
    )
