"""The instructions, by the book's chapters. Importing this package declares them all."""

from chronovisor.isa.meanings import arithmetic, branch, load_store, multiply_divide, system

__all__ = ["arithmetic", "branch", "load_store", "multiply_divide", "system"]
