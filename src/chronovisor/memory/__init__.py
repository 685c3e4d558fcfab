"""Guest memory and its dirty log."""
