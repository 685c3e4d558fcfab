"""The native evaluator: meanings compiled to machine code, one small function an instruction."""
