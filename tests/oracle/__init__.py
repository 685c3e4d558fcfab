"""The oracle of instruction meanings: what QEMU answers, and how ours is compared with it."""
