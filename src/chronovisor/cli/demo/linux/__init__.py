"""The fifth act: Debian's Linux keeps its time over moves, between our hosts and between two QEMUs."""
