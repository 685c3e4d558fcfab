"""The provider that drives the kernel's KVM on a Power host: `/dev/kvm`, with the standard library alone."""
