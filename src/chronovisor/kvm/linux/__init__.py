"""The linux provider: KVM's interface over /dev/kvm."""
