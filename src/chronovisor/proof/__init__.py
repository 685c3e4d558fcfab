"""What is proven about time, and the prover."""
