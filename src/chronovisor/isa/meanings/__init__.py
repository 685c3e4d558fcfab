"""The instructions, by the book's chapters. Importing this package declares them all."""

from chronovisor.isa.meanings import (
    arithmetic,
    branch,
    compare,
    load_store,
    logical,
    multiply_divide,
    rotate,
    system,
)

__all__ = ["arithmetic", "branch", "compare", "load_store", "logical", "multiply_divide", "rotate", "system"]
