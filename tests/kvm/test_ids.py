"""KVM's numbers against the kernel's own headers, and what can be said of them without any."""

import re
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path

import pytest

from chronovisor.isa.registers import FILES, REGISTERS, VIEWS
from chronovisor.kvm.ids import ONE_REG_BY_ID, ONE_REG_BY_NAME, ONE_REGS, Cap, ExitReason, SystemEventType

INCLUDE = Path("/usr/powerpc64le-linux-gnu/include")
SIZES = {"KVM_REG_SIZE_U32": 0x20 << 48, "KVM_REG_SIZE_U64": 0x30 << 48, "KVM_REG_SIZE_U128": 0x40 << 48}
BOOK_E = re.compile(r"(IAC|DAC)\d|EPC?R|OR_TSR|CLEAR_TSR|TCR|TSR|MAS\d(_3)?|MMUCFG|TLB\dCFG|TLB\dPS|EPTCFG$")


def defines(header: str) -> Mapping[str, str]:
    text = (INCLUDE / header).read_text()
    return dict(re.findall(r"^#define\s+(\w+)\s+(.+?)\s*(?:/\*.*)?$", text, re.MULTILINE))


def evaluate(name: str, definitions: Mapping[str, str]) -> int:
    """A sum or union of names and numbers, as the headers write them."""
    total = 0
    for word in re.findall(r"\w+", definitions[name]):
        if word in SIZES:
            total |= SIZES[word]
        elif word == "KVM_REG_PPC":
            total |= 0x1000_0000_0000_0000
        elif word[0].isdigit():
            total |= int(word.rstrip("ULul"), 0)
        else:
            total |= evaluate(word, definitions)
    return total


@pytest.mark.oracle
@pytest.mark.skipif(not INCLUDE.exists(), reason="needs Debian's linux-libc-dev-ppc64el-cross")
def test_one_register_ids_are_the_kernels_and_all_of_them() -> None:
    definitions = defines("asm/kvm.h")
    prefix = "KVM_REG_PPC_"
    theirs = {
        name.removeprefix(prefix): evaluate(name, definitions)
        for name in definitions
        if name.startswith(prefix) and "KVM_REG_SIZE" in definitions[name]
    }
    checked = 0
    for name, register_id in theirs.items():
        if BOOK_E.fullmatch(name):
            continue
        assert ONE_REG_BY_NAME[name].id == register_id, name
        checked += 1
    assert checked > 80
    # Arrays are given there by their first and last.
    for array, last in {"FPR": 31, "VR": 31, "VSR": 31, "TM_GPR": 31, "TM_VSR": 63}.items():
        assert ONE_REG_BY_NAME[f"{array}{last}"].id - ONE_REG_BY_NAME[f"{array}0"].id == last
    arrays = re.compile(r"(FPR|VR|VSR|TM_GPR|TM_VSR)\d+")
    assert {r.name for r in ONE_REGS} - set(theirs) == {
        r.name for r in ONE_REGS if arrays.fullmatch(r.name) and r.name not in theirs
    }


@pytest.mark.oracle
@pytest.mark.skipif(not INCLUDE.exists(), reason="needs Debian's linux-libc-dev-ppc64el-cross")
@pytest.mark.parametrize(
    ("ours", "prefix"),
    [(Cap, "KVM_CAP_"), (ExitReason, "KVM_EXIT_"), (SystemEventType, "KVM_SYSTEM_EVENT_")],
)
def test_other_numbers_are_the_kernels(ours: type[IntEnum], prefix: str) -> None:
    definitions = defines("linux/kvm.h")
    for member in ours:
        assert int(definitions[prefix + member.name].split()[0], 0) == member, member


def test_the_register_of_the_timebase_offset() -> None:
    assert ONE_REG_BY_NAME["TB_OFFSET"].id == 0x1030_0000_0000_009C
    assert ONE_REG_BY_NAME["DEC_EXPIRY"].id == 0x1030_0000_0000_00BE


def test_no_two_registers_share_a_name_or_an_id() -> None:
    assert len(ONE_REG_BY_ID) == len(ONE_REG_BY_NAME) == len(ONE_REGS)


RENAMED = {"PID": "PIDR", "DAWR": "DAWR0", "DAWRX": "DAWRX0", "LPCR_64": "LPCR"}
"""KVM's names of registers that the ISA names otherwise. `LPCR` is the id of LPCR's lower half."""

IDS_WITHOUT_A_REGISTER = {
    "the hypervisor's state, which no instruction reads": {
        *("TB_OFFSET", "DEC_EXPIRY", "VPA_ADDR", "VPA_SLB", "VPA_DTL", "ICP_STATE", "VP_STATE"),
        *("ONLINE", "ARCH_COMPAT", "DEBUG_INST", "HIOR"),
    },
    "a register of other processors": {
        *("DABR", "DABRX", "ACOP", "CSIGR", "TACR", "TCSCR", "SPRG9", "DBSR"),
        *("MMCRS", "SPMC1", "SPMC2", "PMC7", "PMC8"),
    },
    "a register of version 3.1": {"MMCR3", "SIER2", "SIER3", "DAWR1", "DAWRX1"},
    "transactional memory, which has no meanings": {
        *("TFHAR", "TFIAR", "TEXASR", "TM_CR", "TM_LR", "TM_CTR", "TM_FPSCR", "TM_AMR", "TM_PPR"),
        *("TM_VRSAVE", "TM_DSCR", "TM_TAR", "TM_XER", "TM_VSCR"),
        *(f"TM_GPR{n}" for n in range(32)),
        *(f"TM_VSR{n}" for n in range(64)),
    },
}
"""Reason -> ids of ONE_REGS that are no register of REGISTERS, under this name or another."""

REGISTERS_WITHOUT_AN_ID = {
    "in the structures of KVM_GET_REGS and KVM_GET_SREGS": {
        *("CIA", "NIA", "MSR", "CR", "XER", "LR", "CTR", "SRR0", "SRR1", "SPRG0", "SPRG1", "SPRG2", "SPRG3"),
        "PVR",
    },
    "given by TB_OFFSET or DEC_EXPIRY": {"TB", "TBU", "TBL", "TBU40", "DEC"},
    "the processor's number": {"PIR", "TIR"},
    "a hypervisor's, which no guest reaches": {
        *("HSRR0", "HSRR1", "HDAR", "HDSISR", "HEIR", "ASDR", "HMER", "HMEER", "HSPRG0", "HSPRG1", "HDEC"),
        *("LPIDR", "PCR", "PATE1", "HFSCR", "AMOR", "RPR", "MMCRC"),
    },
    "a guest's, but KVM has no id": {"CFAR", "CTRL"},
}
"""Reason -> registers of REGISTERS that are no id of ONE_REGS, under this name or another."""


def test_ids_and_registers_are_the_same_but_for_those_listed() -> None:
    numbered = {f"{each.name}{n}" for each in (FILES["VSR"], *VIEWS.values()) for n in range(each.count)}
    ids = {RENAMED.get(register.name, register.name) for register in ONE_REGS} - numbered
    for kind, listed, found in (
        ("ids", IDS_WITHOUT_A_REGISTER, ids - set(REGISTERS)),
        ("registers", REGISTERS_WITHOUT_AN_ID, set(REGISTERS) - ids),
    ):
        assert set().union(*listed.values()) == found, kind
        assert sum(map(len, listed.values())) == len(found), f"{kind}: one is listed twice"


def test_ids_have_their_registers_sizes() -> None:
    widths = {name: register.width for name, register in REGISTERS.items()}
    for each in (FILES["VSR"], *VIEWS.values()):
        widths |= {f"{each.name}{n}": each.width for n in range(each.count)}
    sizes = {RENAMED.get(each.name, each.name): 8 * each.size for each in ONE_REGS if each.name != "LPCR"}
    both = set(widths) & set(sizes)
    assert len(both) > 135
    assert all(widths[name] <= sizes[name] for name in both)
    # KVM has ids of 64 bits for these registers of 32.
    assert {name for name in both if widths[name] < sizes[name]} == {"PIDR", "DAWRX0"}
