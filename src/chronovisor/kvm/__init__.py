"""KVM's interface, the waist between the hypervisor and user space, and the providers behind it."""
