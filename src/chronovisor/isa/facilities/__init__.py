"""Instructions of the facilities that MSR turns on. Importing this package declares them all.

A row gives assembly, encoding, section and facility. The instruction ends in the facility's unavailable
interrupt if MSR has the facility off. With the facility on it does what its meaning says
(``chronovisor.isa.meanings``); until it has one, it ends in an illegal-instruction interrupt.
"""

from chronovisor.isa.facilities import decimal, floating_point, transactional, vector, vector_scalar

__all__ = ["decimal", "floating_point", "transactional", "vector", "vector_scalar"]
