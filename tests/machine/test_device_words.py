"""What hypercalls set for a device without an exit, in a whole guest."""

from __future__ import annotations

from pathlib import Path

import pytest
from elf_files import POWER_OFF, program

from chronovisor.machine import Host
from chronovisor.machine.ending import EndReason
from chronovisor.machine.vio.attachments import Attachments
from chronovisor.papr.hcalls import Hcall

UNIT = 0x7100_0010
LIST = 0x20000


def _call(number: Hcall, *arguments: int) -> str:
    """Make a call, and add what it returns to r20."""
    loads = (
        f"li32 r{place}, {value:#x}; clrldi r{place}, r{place}, 32"
        for place, value in enumerate((number, *arguments), 3)
    )
    return "\n".join((*loads, "sc 1", "add r20, r20, r3"))


CALLS = "\n".join(
    (
        "li r20, 0",
        _call(Hcall.PUT_TCE, UNIT | 1 << 31, 0x1000, 0x31003),
        _call(Hcall.PUT_TCE_INDIRECT, UNIT | 1 << 31, 0x2000, LIST, 2),
        _call(Hcall.STUFF_TCE, UNIT | 1 << 31, 0x4000, 0x34001, 3),
        _call(Hcall.VIO_SIGNAL, UNIT, 1),
        # The console's is user space's.
        _call(Hcall.VIO_SIGNAL, 0x7100_0000, 0),
        # No such device, and no place for an interrupt.
        "mr r21, r20",
        _call(Hcall.VIO_SIGNAL, UNIT + 1, 1),
        _call(Hcall.PUT_TCE, UNIT | 1 << 31, 1 << 28, 0x31003),
        "li32 r9, 0x30000; std r21, 0(r9); std r20, 8(r9)",
        POWER_OFF,
    )
)


@pytest.mark.parametrize("engine", ["concrete", "regions"])
def test_a_guest_sets_its_devices_words_without_an_exit(engine: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4096))
    with Host(engine=engine) as host:
        host.attachments = Attachments.parse([str(disk)])
        guest = host.boot(program(CALLS), "2M")
        guest.memory.write(LIST, b"".join(entry.to_bytes(8, "big") for entry in (0x32003, 0x33003)))
        end = guest.run(30)
        assert end.reason is EndReason.POWER_OFF
        (device,) = guest.platform.vio.devices
        assert device.signals
        assert not guest.platform.console_signals
        found = [device.window.get(page << 12) for page in range(8)]
        assert found == [0, 0x31003, 0x32003, 0x33003, 0x34001, 0x34001, 0x34001, 0]
        # H_PARAMETER is -4.
        assert [guest.memory.load(at, 8, True) for at in (0x30000, 0x30008)] == [0, (1 << 64) - 8]
        assert guest.exits == {"H_VIO_SIGNAL": 2, "H_PUT_TCE": 1, "H_RTAS": 1}
