"""What the PAPR says that both halves must agree on: hypercall numbers, status codes, structure layouts.

A leaf: it imports nothing of Chronovisor, and every other package may import it. Source: Linux on Power
Architecture Reference, chapter "Hypervisor Call Functions" (LoPAR 1.1, section 14).
"""
