"""kvm-unit-tests' powerpc tests, as guests of the embedded provider. See docs/kvm-unit-tests.md."""
