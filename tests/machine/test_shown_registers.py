"""What `reg`, gdb and a core file show of a vCPU's registers, against the ISA's table and the state itself.

All three go by KVM's names, because they also show registers of a real kernel's KVM. Here each register of
`isa/registers.py` is set in the processor's state, and read in all three ways.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Final

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from chronovisor.isa.bits import MSR
from chronovisor.isa.registers import FILES, REGISTERS, VIEWS
from chronovisor.kvm.embedded.vcpu import EmbeddedVcpu
from chronovisor.kvm.registers import all_registers
from chronovisor.machine import Guest, Host
from chronovisor.machine.debugger.core_dump import OWN_NOTE, write_core
from chronovisor.machine.debugger.gdb_commands import Commands
from chronovisor.machine.debugger.inspector import Inspector

RENAMED: Final = {"CIA": "PC", "PIDR": "PID", "DAWR0": "DAWR", "DAWRX0": "DAWRX", "LPCR": "LPCR_64"}
"""The ISA's name -> the name by which a register is shown, if the two differ."""

NOT_SHOWN: Final = {
    "the address of the next instruction, while an instruction is executed": {"NIA"},
    "shown as TB_OFFSET and DEC_EXPIRY, and by gdb's `monitor time`": {"TB", "TBU", "TBL", "TBU40", "DEC"},
    "the vCPU's number": {"PIR", "TIR"},
    "a hypervisor's, which a guest does not have": {
        *("HSRR0", "HSRR1", "HDAR", "HDSISR", "HEIR", "ASDR", "HMER", "HMEER", "HSPRG0", "HSPRG1", "HDEC"),
        *("LPIDR", "PCR", "PTCR", "PATE1", "HFSCR", "AMOR", "RPR", "MMCRC"),
    },
    "a guest's, but KVM has no id": {"CFAR", "CTRL"},
}
"""Reason -> registers of the table that nothing shows."""

BY_THE_HYPERVISOR: Final = {"LPCR", "DPDES", "VTB", "PURR", "SPURR", "PVR"}
"""Registers of the table that the hypervisor keeps while a vCPU is stopped, and not the processor's state."""

WIDER: Final = {"XER": 32, "PIDR": 64, "DAWRX0": 64, "LPCR": 64}
"""How many bits gdb sees if the table has another number: gdb's own size of XER, and KVM's of the others."""


def pattern(number: int, width: int) -> int:
    """A value that no other register has."""
    return (0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C834 * (2 * number + 1)) >> 40 & ((1 << width) - 1)


def fill(guest: Guest) -> dict[str, int]:
    """Give each register that is shown a value of its own; what the state then has, by the names shown."""
    vcpu = guest.vcpus[0]
    assert isinstance(vcpu, EmbeddedVcpu)
    state, kept = vcpu._vcpu.state, {}
    elsewhere = set().union(*NOT_SHOWN.values()) | BY_THE_HYPERVISOR
    for number, (name, register) in enumerate(REGISTERS.items()):
        if name in elsewhere:
            continue
        # The byte order and the mode stay as they are.
        value = state.MSR | MSR.FP if name == "MSR" else pattern(number, register.width) & register.writable
        state.set(name, value)
        kept[RENAMED.get(name, name)] = value
    for n in range(FILES["GPR"].count):
        kept[f"R{n}"] = state.gpr[n] = pattern(1000 + n, 64)
    for n in range(FILES["VSR"].count):
        state.vsr[n] = pattern(2000 + n, 128)
    # KVM has the last 32 as VR0 to VR31 alone.
    kept |= {f"VSR{n}": state.vsr[n] for n in range(32)}
    for view in VIEWS.values():
        kept |= {f"{view.name}{n}": view.get(state.vsr, n) for n in range(view.count)}
    for number, name in enumerate(("DPDES", "VTB", "PURR", "SPURR")):
        guest.set(name, 3000 + number)
        kept[name] = 3000 + number
    return kept | {"LPCR_64": vcpu._vcpu.vcore.lpcr, "PVR": REGISTERS["PVR"].reset}


class PlainTime:
    """Stops a guest and lets it go on; its clock goes on."""

    def stop(self) -> None:
        """It stands already."""

    go_on = step_on = stop


def seen_by_gdb(guest: Guest) -> tuple[dict[str, int], dict[str, int]]:
    """Values and widths of the registers that the target description names, by the names of the others."""
    commands = Commands(Inspector(guest, PlainTime(), lambda: None))
    description = b""
    while True:
        piece = commands.answer(b"qXfer:features:read:target.xml:%x,800" % len(description))
        description += piece[1:]
        if piece[:1] == b"l":
            break
    values, widths = {}, {}
    for register in ElementTree.fromstring(description).iter("reg"):
        name = register.attrib["name"].upper()
        if name[0] == "F" and name[1:].isdigit():
            name = f"FPR{name[1:]}"
        answer = bytes.fromhex(commands.answer(b"p%x" % int(register.attrib["regnum"])).decode())
        assert name not in values
        values[name] = int.from_bytes(answer, commands.order)
        widths[name] = int(register.attrib["bitsize"])
        assert len(answer) * 8 == widths[name], name
    # A vector-scalar register is a floating-point register and a half of its own.
    for n in range(32):
        low = values.pop(f"VS{n}H")
        values[f"VSR{n}"] = values[f"FPR{n}"] << 64 | low
        widths[f"VSR{n}"] = widths[f"FPR{n}"] + widths.pop(f"VS{n}H")
    return values, widths


def in_core_file(guest: Guest, path: Path) -> dict[str, int]:
    """What the note with all registers says."""
    with path.open("wb+") as file:
        write_core(guest, file)
        notes = next(ELFFile(file).iter_segments("PT_NOTE"))
        assert isinstance(notes, NoteSegment)
        ours = next(note for note in notes.iter_notes() if note["n_name"] == OWN_NOTE)
    lines = dict(line.split() for line in ours["n_descdata"].decode().splitlines())
    assert lines.pop("VCPU") == "0"
    return {name: int(value, 16) for name, value in lines.items()}


@pytest.mark.parametrize("endian", ["le", "be"])
def test_reg_gdb_and_core_file_show_each_register_of_the_table(endian: str, tmp_path: Path) -> None:
    with Host(clock="virtual", engine="concrete") as host:
        guest = host.boot(f"hello-{endian}.elf", "2M", tb_offset=0x5000000)
        kept = fill(guest)
        shown = all_registers(guest.vcpus[0])
        seen, widths = seen_by_gdb(guest)
        # What more they show is KVM's alone.
        assert {name: shown[name] for name in kept} == kept
        assert seen == shown
        assert in_core_file(guest, tmp_path / "core") == shown
    single = {name for name in REGISTERS if RENAMED.get(name, name) in kept}
    assert set(REGISTERS) - single == set().union(*NOT_SHOWN.values())
    expected = {RENAMED.get(name, name): WIDER.get(name, REGISTERS[name].width) for name in single}
    expected |= {f"R{n}": 64 for n in range(32)} | {f"VSR{n}": 128 for n in range(32)}
    for view in VIEWS.values():
        expected |= {f"{view.name}{n}": view.width for n in range(view.count)}
    assert {name: widths[name] for name in expected} == expected
    assert len(kept) == len(expected) == len(single) + 4 * 32
    assert (len(single), len(kept), len(shown)) == (55, 183, 215)
