"""The prover for other people's machine code: read from files, looked through for switches, and proven."""
