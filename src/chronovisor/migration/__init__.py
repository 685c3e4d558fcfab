"""How a guest moves: the stream, the transports, snapshots."""
