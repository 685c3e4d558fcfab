"""What this project promises of registers and of guests' time, asked of every provider alike."""
