"""A guest's core file, as gdb reads it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Literal

import pytest
from elftools.elf.elffile import ELFFile

from chronovisor import Host
from chronovisor.kvm.registers import read_register
from chronovisor.machine.debugger.core_dump import LINEAR_MAP, OWN_NOTE, write_core
from chronovisor.machine.guest import Guest

needs_gdb = pytest.mark.skipif(shutil.which("gdb-multiarch") is None, reason="needs Debian's gdb-multiarch")
#: gdb's names and KVM's.
COMPARED = {
    **{f"r{n}": f"R{n}" for n in range(32)},
    **{name: name.upper() for name in ("pc", "msr", "cr", "lr", "ctr", "xer", "vrsave", "vscr")},
    **{f"f{n}": f"FPR{n}" for n in range(32)},
    **{f"vs{n}": f"VSR{n}" for n in range(32)},
    **{f"vr{n}": f"VR{n}" for n in range(32)},
    "fpscr": "FPSCR",
}
SPE = 0x101
LEFT_OUT = [(32, 4, 1), (112 + 8 * 41, 8, 1), (112 + 8 * 42, 8, 1), (33 * 16, 4, 0x100)]
"""Where what QEMU does not dump is in a note, its size, and the note's type: pr_pid, DAR, DSISR, VRSAVE."""
WIDE = re.compile(r"vs\d+|vr\d+")


def fill(guest: Guest) -> None:
    """Give every register that is compared a value of its own on each vCPU."""
    for vcpu in guest.vcpus:
        for number, name in enumerate(COMPARED.values()):
            value = ((vcpu.id + 1) << 24) + 0x10101 * number
            if name.startswith("VSR"):
                value |= (value ^ 0x5A5A) << 64
            if name.startswith("VR") and name != "VRSAVE":
                value |= (value ^ 0xA5A5) << 64
            if name in ("MSR", "CR", "PC", "XER", "VSCR", "FPSCR"):
                value = {"VSCR": 0x10001, "XER": 0x20000000, "FPSCR": 0x82000003}.get(
                    name, read_register(vcpu, name)
                )
            guest.set(name, value, vcpu.id)


@needs_gdb
@pytest.mark.parametrize("endian", ["le", "be"])
def test_gdb_reads_what_the_guest_has(endian: str, tmp_path: Path) -> None:
    core = tmp_path / "core"
    with Host(clock="virtual", engine="concrete", cores=2) as host:
        guest = host.boot(f"demo-{endian}.elf", "16M", smp=2)
        fill(guest)
        guest.memory.write(0xABCD00, b"0123456789abcdef")
        with open(core, "wb") as file:
            write_core(guest, file)
        expected = [
            {name: read_register(vcpu, kvm) for name, kvm in COMPARED.items()} for vcpu in guest.vcpus
        ]
        memory = bytes(guest.memory.data)
    words = ["gdb-multiarch", "-nx", "-batch", "-c", str(core)]
    for vcpu in range(2):
        words += ["-ex", f"thread {vcpu + 1}"]
        for name in COMPARED:
            what = f"${name}.uint128" if WIDE.fullmatch(name) else f"${name}"
            words += ["-ex", f'printf "{vcpu} {name} "', "-ex", f"output/x {what}", "-ex", 'printf "\\n"']
    words += ["-ex", f"dump binary memory {tmp_path}/memory 0 {len(memory)}"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=300)
    found: list[dict[str, int]] = [{}, {}]
    for vcpu, name, value in re.findall(r"^(\d) (\w+) (0x[0-9a-f]+)$", said.stdout, re.MULTILINE):
        found[int(vcpu)][name] = int(value, 16)
    assert found == expected, said.stderr
    assert (tmp_path / "memory").read_bytes() == memory
    assert os.stat(core).st_blocks * 512 < len(memory) // 4


def test_all_registers_are_in_our_note(tmp_path: Path) -> None:
    with Host(clock="virtual", engine="concrete") as host, open(tmp_path / "core", "wb+") as file:
        guest = host.boot("hello-be.elf", "2M", tb_offset=0x5000000)
        write_core(guest, file)
        core = ELFFile(file)
        assert (core["e_type"], core["e_machine"], core.little_endian) == ("ET_CORE", "EM_PPC64", False)
        notes, memory, linear = core.iter_segments()
        assert (memory["p_vaddr"], memory["p_filesz"], memory["p_memsz"]) == (0, 2 << 20, 2 << 20)
        # In real mode the upper bits of an address do not count.
        assert (linear["p_vaddr"], linear["p_offset"]) == (LINEAR_MAP, memory["p_offset"])
        ours = next(note for note in notes.iter_notes() if note["n_name"] == OWN_NOTE)
        lines = dict(line.split() for line in ours["n_descdata"].decode().splitlines())
        assert lines["VCPU"] == "0"
        for name in ("TB_OFFSET", "DEC_EXPIRY", "LPCR_64", "PVR"):
            assert int(lines[name], 16) == guest.get(name)


def notes_of(path: Path, order: Literal["little", "big"]) -> list[tuple[str, int, bytes]]:
    """Owner, type and contents of each note. Libraries stumble over the section headers of QEMU's files."""
    data = path.read_bytes()

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    header = number(32, 8)
    assert number(header, 4) == 4
    at, end = number(header + 8, 8), number(header + 8, 8) + number(header + 32, 8)
    notes = []
    while at < end:
        name_size, size, kind = (number(at + 4 * n, 4) for n in range(3))
        name = data[at + 12 : at + 12 + name_size].rstrip(b"\0").decode()
        at += 12 + -(-name_size // 4) * 4
        notes.append((name, kind, data[at : at + size]))
        at += -(-size // 4) * 4
    return notes


def as_gdb_sets(name: str, value: int) -> str:
    if not WIDE.fullmatch(name):
        return f"set ${name} = {value:#x}"
    words = ", ".join(f"{value >> shift & 0xFFFFFFFF:#x}" for shift in (96, 64, 32, 0))
    return f"set ${name}.v4_int32 = {{{words}}}"


@pytest.mark.oracle
@needs_gdb
@pytest.mark.skipif(shutil.which("qemu-system-ppc64") is None, reason="qemu-system-ppc64 is not installed")
def test_the_notes_are_qemus(tmp_path: Path) -> None:
    """A guest here and one of QEMU's are given the same registers, and both are dumped.

    QEMU leaves threads' ids, DAR, DSISR and VRSAVE out, and has a note of the SPE, which no POWER9 has.
    """
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    with Host(clock="virtual", engine="concrete") as host:
        guest = host.boot("demo-be.elf", "16M")
        guest.set("MSR", 0x8000_0000_0280_2000)
        fill(guest)
        values = {name: read_register(guest.vcpus[0], kvm) for name, kvm in COMPARED.items()}
        with open(ours, "wb") as file:
            write_core(guest, file)
    # gdb has to set it first: with another r1 it has another frame, and sets what that one would return to.
    values = {"pc": values["pc"], **values}
    machine = "-M pseries -cpu power9 -m 256M -display none -nodefaults"
    commands = (
        *("set architecture powerpc:common64", "set endian big"),
        f"target remote | exec qemu-system-ppc64 {machine} -S -gdb stdio 2>/dev/null",
        # The halves of vs0 to vs31 are f0 to f31 and others.
        *(as_gdb_sets(name, value) for name, value in values.items() if not re.fullmatch(r"f\d+", name)),
        *(f"monitor dump-guest-memory {theirs}", "kill"),
    )
    words = ["gdb-multiarch", "-nx", "-batch", *(word for command in commands for word in ("-ex", command))]
    said = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert theirs.exists(), said
    found = [(kind, bytearray(note)) for owner, kind, note in notes_of(ours, "big") if owner != OWN_NOTE]
    expected = [(kind, bytearray(note)) for _, kind, note in notes_of(theirs, "big") if kind != SPE]
    for at, size, kind in LEFT_OUT:
        note = dict(found)[kind]
        note[at : at + size] = bytes(size)
    # gdb has QEMU set DRN, in FPSCR's upper half.
    dict(expected)[2][256:260] = bytes(4)
    assert found == expected, said.stderr
    assert len(found) == 4
