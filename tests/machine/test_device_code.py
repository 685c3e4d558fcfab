"""Code that a device writes while the guest runs is executed without `icbi`, as a POWER9 does it."""

from __future__ import annotations

import time

import pytest
from elf_files import program
from vio_driver import DATA

from chronovisor.isa.assembly import assemble
from chronovisor.machine import Guest, Host
from chronovisor.machine.vio.dma_window import DmaWindow

SEEN = 0x30000
CALLS = program(
    f"lis r9,{DATA >> 16:#x}; lis r8,{SEEN >> 16:#x}\nloop: mtctr r9; bctrl; std r5,0(r8); b loop"
)


def function(number: int) -> bytes:
    return assemble(f"li r5,{number}; blr", DATA, True)


def sees(guest: Guest, number: int) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if guest.memory.load(SEEN, 8, True) == number:
            return True
        time.sleep(0.005)
    return False


@pytest.mark.parametrize("engine", ["concrete", "threaded", "regions"])
def test_code_that_a_device_writes_is_executed(engine: str) -> None:
    with Host(engine=engine) as host:
        guest = host.boot(CALLS, "2M")
        guest.memory.write(DATA, function(1))
        window = DmaWindow(guest.memory, guest.vm.device_wrote)
        assert window.put(0x7000, [DATA | 2])
        guest.resume()
        for number in range(1, 6):
            assert sees(guest, number)
            time.sleep(0.05 if engine == "regions" else 0)
            window.write(0x7000, function(number + 1))
        assert sees(guest, 6)
