"""The real kernel's KVM HV, inside QEMU's emulation: what boots it, and what is asked of it there."""
