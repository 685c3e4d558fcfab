"""A guest is told to shut down, and asks RTAS what it was told."""

from __future__ import annotations

import struct

from elf_files import program
from fake_kvm import scripted_guest

from chronovisor.kvm.ids import XicsSource
from chronovisor.machine import Guest, Host
from chronovisor.machine.interrupt_sources import POWER_WARNING
from chronovisor.machine.power_button import EPOW_MASK
from chronovisor.machine.rtas import call_rtas
from chronovisor.migration.move import move
from chronovisor.papr.hcalls import Status

CHECK_EXCEPTION, BLOCK, LOG = 0x2011, 0x20000, 0x21000
NO_EVENT = 1
FOR_EVER = program("b .")


def asked(guest: Guest, mask: int = EPOW_MASK, size: int = 2048, log: int = LOG) -> int:
    """The status of check-exception, called as Linux does."""
    words = (CHECK_EXCEPTION, 6, 1, 0x500, POWER_WARNING, mask, 0, log, size, 99)
    guest.memory.write(BLOCK, struct.pack(f">{len(words)}I", *words))
    caller = guest.platform.processor(0)
    assert caller is not None
    assert call_rtas(guest.platform, caller, BLOCK) == Status.SUCCESS
    return int.from_bytes(guest.memory.read(BLOCK + 4 * 9, 4), "big", signed=True)


def sections(log: bytes) -> dict[bytes, bytes]:
    """The sections of an event's log, found as Linux finds them (`get_pseries_errorlog`)."""
    assert log[0] == 6, "the version"
    assert log[1] & 4, "there is an extended log"
    (length,) = struct.unpack_from(">I", log, 4)
    extended = log[8 : 8 + length]
    assert extended[2] & 0x0F == 0x0E, "a platform event"
    assert extended[12:16] == b"IBM\0"
    found, at = {}, 16
    while at < len(extended):
        (size,) = struct.unpack_from(">H", extended, at + 2)
        assert size >= 8
        found[extended[at : at + 2]] = extended[at + 8 : at + size]
        at += size
    assert at == len(extended)
    return found


def test_the_event_is_told_once() -> None:
    guest, _ = scripted_guest([])
    assert asked(guest) == NO_EVENT
    guest.platform.power_button.press()
    assert asked(guest, mask=0x8000_0000) == NO_EVENT, "of internal errors"
    assert asked(guest) == 0
    log = guest.memory.read(LOG, 2048)
    assert log[3] == 0x40, "EPOW"
    found = sections(log)
    assert list(found) == [b"PH", b"UH", b"EP"]
    assert found[b"PH"][19] == 3, "how many there are"
    # A system shutdown, a normal one.
    assert found[b"EP"][:2] == bytes((3, 1))
    assert asked(guest) == NO_EVENT


def test_a_log_that_does_not_fit_is_cut_and_nothing_outside_memory_is_written() -> None:
    guest, _ = scripted_guest([])
    guest.memory.write(LOG, b"\xee" * 64)
    guest.platform.power_button.press()
    assert asked(guest, size=16) == 0
    assert guest.memory.read(LOG, 64)[16:] == b"\xee" * 48
    guest.platform.power_button.press()
    assert asked(guest, log=guest.memory.size - 4) < 0


def test_the_interrupt_comes_once_the_guest_lets_it_in_and_moves_along() -> None:
    with Host(clock="virtual") as here, Host(clock=here.clock.source) as there:
        guest = here.boot(FOR_EVER)
        guest.platform.power_button.press()
        moved, _ = move(guest, there)
        moved.platform.interrupts.direct(POWER_WARNING, 0, 5)
        state = dict(moved.platform.interrupts.states)[POWER_WARNING]
        assert moved.platform.interrupts.target(POWER_WARNING) == (0, 5)
        assert state & (XicsSource.PENDING | XicsSource.PRESENTED)
        assert asked(moved) == 0
        assert asked(moved) == NO_EVENT
