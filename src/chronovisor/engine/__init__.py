"""How instruction meanings run: evaluators over the programs that ``isa`` traces."""
