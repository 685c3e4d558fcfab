"""The embedded provider: KVM's interface over Chronovisor's own hypervisor."""
