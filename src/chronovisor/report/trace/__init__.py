"""Traces of guests in Perfetto's format: what is in them, how they are written, read, and shown."""
