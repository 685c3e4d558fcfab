"""`chronovisor clockcheck`: a check of a guest's clocks, on any hypervisor."""
