"""The kernel's half: hosts, cores, virtual machines, virtual cores, vCPUs; entry and exit."""
