"""The instructions, by the book's chapters. Importing this package declares them all."""

from chronovisor.isa.meanings import (
    arithmetic,
    atomics,
    branch,
    compare,
    load_store,
    logical,
    multiple_string,
    multiply_divide,
    rotate,
    special_registers,
    storage_control,
    system,
    translation,
)

__all__ = [
    "arithmetic",
    "atomics",
    "branch",
    "compare",
    "load_store",
    "logical",
    "multiple_string",
    "multiply_divide",
    "rotate",
    "special_registers",
    "storage_control",
    "system",
    "translation",
]
