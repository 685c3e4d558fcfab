"""Chronovisor: a hypervisor for 64-bit Power guests that keep their own time."""
