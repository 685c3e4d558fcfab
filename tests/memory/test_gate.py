"""A device's gate is closed once nobody is in it."""

from __future__ import annotations

import threading
import time

from chronovisor.memory.gate import Gate, Place
from chronovisor.memory.words import words


def test_who_closes_it_waits_for_who_is_inside() -> None:
    gate = Gate(words(len(Place)))
    gate.open()
    gate.words[Place.BUSY] = 1
    closing = threading.Thread(target=gate.close, daemon=True)
    closing.start()
    while gate.words[Place.OPEN]:
        time.sleep(0)
    closing.join(0.05)
    assert closing.is_alive()
    gate.words[Place.BUSY] = 0
    closing.join(60)
    assert not closing.is_alive()
