"""What a card of a logical LAN can do, and how it says so (LoPAR 1.1, "Interpartition Logical LAN")."""

from __future__ import annotations

from enum import IntFlag
from typing import Final


class Attribute(IntFlag):
    """What H_ILLAN_ATTRIBUTES tells of a card, and sets."""

    CHECKSUMS_OF_IPV4 = 0x2
    """Frames of TCP are sent without a checksum, and come with a checksum that was looked at."""
    CHECKSUMS_OF_IPV6 = 0x4
    CHECKSUMS_OF_PADDED = 0x2000
    """The card can tell a short packet from what fills its frame up."""
    CAN_SEND_LARGE = 0x8000
    LARGE = 0x1_0000
    """Frames of TCP that are larger than what the network carries are sent, and come."""


CAPABILITIES: Final = Attribute.CHECKSUMS_OF_PADDED | Attribute.CAN_SEND_LARGE
"""What a card that has the others tells of itself and nobody sets."""
CHECKSUMS: Final = Attribute.CHECKSUMS_OF_IPV4 | Attribute.CHECKSUMS_OF_IPV6
CHANGEABLE: Final = CHECKSUMS | Attribute.LARGE


class EntryFlag(IntFlag):
    """Flags of an entry of the receive queue; the lowest 16 bits are where the frame begins in its buffer."""

    TOGGLE = 0x8000_0000
    """1 in the first pass through the queue."""
    VALID = 0x4000_0000
    LARGE = 0x0400_0000
    """The doubleword behind the buffer's first one says how much each segment carried of what was merged."""
    CHECKED = 0x0100_0000
    """The guest needs to look at no checksum. That of a large frame is 0."""
