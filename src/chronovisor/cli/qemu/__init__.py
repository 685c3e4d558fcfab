"""`chronovisor-qemu`: QEMU's command line, for what Chronovisor has. It becomes a command line of `run`."""
