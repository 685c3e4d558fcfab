"""The prover for other projects' machine code: it reads files, finds switches, and proves claims."""
