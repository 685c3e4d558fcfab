"""Instructions of facilities that have no meanings yet. Importing this package declares them all.

A row gives what a meaning's declaration will need: assembly, encoding and section. Until the meaning exists,
the instruction ends in the facility's unavailable interrupt if MSR has the facility off, and in an
illegal-instruction interrupt otherwise.
"""

from chronovisor.isa.facilities import decimal, floating_point, transactional, vector, vector_scalar

__all__ = ["decimal", "floating_point", "transactional", "vector", "vector_scalar"]
