"""Text and words: each is made from the other, and binutils agree where they are installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronovisor.isa.assembly import Assembler, AssemblyError, assemble, disassemble
from chronovisor.isa.extended_mnemonics import extended_mnemonics
from chronovisor.isa.instruction import INSTRUCTIONS, Instruction
from chronovisor.isa.registers import SPR_READ, SPR_WRITE

from .every import of_every_instruction
from .test_declarations import draw_word

_PREFIX = "powerpc64le-linux-gnu-"


def words(text: str, origin: int = 0) -> list[int]:
    code = assemble(text, origin)
    return [int.from_bytes(code[n : n + 4], "big") for n in range(0, len(code), 4)]


# Ours with ours


@of_every_instruction
def test_text_of_each_instruction_comes_back(declared: Instruction) -> None:
    random = Random()
    for _ in range(30):
        word = draw_word(random, declared)
        text = disassemble(word)
        assert text.startswith(declared.mnemonic)
        assert words(text, 0x10_0000) == [word], f"{word:#010x} {text}"


@given(st.integers(0, (1 << 32) - 1))
def test_text_of_any_word_comes_back(word: int) -> None:
    assert words(disassemble(word)) == [word]


def test_labels_and_data() -> None:
    text = """
    size = 0x1_8004         # a symbol
    start:  li r3, -1
    again:  addi r3,r3,1 ; bdnz again
            bl  after
            lis r4, data@ha ; addi r4, r4, data@l
            b   .           # for ever
    after:  beq cr1, start
            ld  r5, size-0x18000(r1)
    data:   .long 1, after - start, -1
            .asciz "a;b#\\"c"
            .balign 8
            .quad data
    """
    assembler = Assembler(origin=0x1_9000)
    code = assembler.assemble(text)
    assert assembler.symbols["after"] - assembler.symbols["start"] == 28
    found = [int.from_bytes(code[n : n + 4], "big") for n in range(0, len(code), 4)]
    assert found == [
        *(0x3860FFFF, 0x38630001, 0x4200FFFC, 0x48000011),
        *(0x3C800002, 0x38849024, 0x48000000),
        *(0x4186FFE4, 0xE8A10004),
        *(1, 28, 0xFFFFFFFF, 0x613B6223, 0x22630000),
        *(0, 0x19024),
    ]


def test_byte_order() -> None:
    assert assemble("nop; .short 0x1234", little=True) == b"\0\0\0\x60\x34\x12"
    assert assemble("nop; .short 0x1234") == b"\x60\0\0\0\x12\x34"


def test_extended_mnemonics() -> None:
    for text, plain in (
        ("li r3,-5", "addi r3,0,-5"),
        ("lis r3,-5", "addis r3,0,-5"),
        ("mr. r3,r4", "or. r3,r4,r4"),
        ("not r3,r4", "nor r3,r4,r4"),
        ("nop", "ori r0,r0,0"),
        ("sub. r3,r4,r5", "subf. r3,r5,r4"),
        ("subi r3,r4,5", "addi r3,r4,-5"),
        ("blr", "bclr 20,0"),
        ("bctrl", "bcctrl 20,0,0"),
        ("bnela cr7,0x40", "bcla 4,30,0x40"),
        ("blt .+8", "bc 12,0,.+8"),
        ("bgelr cr2", "bclr 4,8"),
        ("beqctr", "bcctr 12,2"),
        ("bdz .", "bc 18,0,."),
        ("cmpdi r3,-7", "cmpi 0,1,r3,-7"),
        ("cmplwi cr3,r3,7", "cmpli cr3,0,r3,7"),
        ("sldi r3,r4,5", "rldicr r3,r4,5,58"),
        ("srdi r3,r4,5", "rldicl r3,r4,59,5"),
        ("srwi r3,r4,0", "rlwinm r3,r4,0,0,31"),
        ("slwi. r3,r4,1+2", "rlwinm. r3,r4,3,0,28"),
        ("clrldi r3,r4,32", "rldicl r3,r4,0,32"),
        ("trap", "tw 31,0,0"),
        ("twnei r3,5", "twi 24,r3,5"),
        ("lwsync", "sync 1"),
        ("crclr 4*cr1+eq", "crxor 6,6,6"),
        ("mtlr r3", "mtspr 8,r3"),
        ("mfspr r3,XER", "mfspr r3,1"),
        ("mtspr tbu40,r3", "mtspr 286,r3"),
    ):
        assert words(text) == words(plain), text


@given(st.integers(0, (1 << 64) - 1))
def test_constants(number: int) -> None:
    from .single import execute

    def run(text: str) -> int:
        gpr = {5: 0x5555}
        for word in words(text):
            gpr[5] = execute(disassemble(word), gpr).gpr[5]
        return gpr[5]

    assert run(f"li64 r5,{number:#x}") == number
    assert run(f"li32 r5,{number & 0x7FFFFFFF:#x}") == number & 0x7FFFFFFF


def test_every_register_has_its_moves() -> None:
    for number, register in SPR_READ.items():
        assert words(f"mf{register.name.lower()} r7") == words(f"mfspr r7,{number}")
        assert words(f"mfspr r7,{register.name}") == words(f"mfspr r7,{number}")
    for number, register in SPR_WRITE.items():
        assert words(f"mt{register.name.lower()} r7") == words(f"mtspr {number},r7")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nop\nfoo r1", "line 2: 'foo' is not a known instruction"),
        ("addi r3,r4", "line 1: addi takes RT,RA,SI, not r3,r4"),
        ("eieio r3", "line 1: eieio takes no operands, not r3"),
        ("\n\naddi r3,r4,0x8000", "line 3: SI is 32768, not in -32768..32767"),
        ("addi r3,r32,1", "line 1: RA is 32, not in 0..31"),
        ("addi cr3,r4,1", "line 1: cr3 cannot stand for RT"),
        ("addi r3,r4,r5", "line 1: r5 cannot stand for SI"),
        ("ld r3,2(r1)", "line 1: DS is 2, not in -32768..32764 in steps of 4"),
        ("ld r3,r1", "line 1: 'r1' does not have the form DS(RA)"),
        ("b nowhere", "line 1: 'nowhere' is not defined"),
        ("bc 20,0,0x10000", "line 1: BD is 65536, not in -32768..32764 in steps of 4"),
        ("x: nop\nx: nop", "line 2: 'x' means something already"),
        (".long 1 +", "line 1: '1 +' is not an expression"),
        (".long 0x1_0000_0000", "line 1: 0x1_0000_0000 is 0x100000000, which does not fit in 4 bytes"),
        (".long 1 // 2", "line 1: '1 // 2' is not an expression of numbers and symbols"),
        (".long 1 / 0", "line 1: '1 / 0' divides by zero"),
        (".long 1 << 4000000000", "line 1: '1 << 4000000000' shifts by 4000000000"),
        (".fill 3", "line 1: '.fill' is not a known directive"),
        (".space -1", "line 1: .space cannot have -1"),
        ("mtspr tb,r3", "line 1: 'tb' is not defined"),
    ],
)
def test_errors_say_where_and_what(text: str, why: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble(text)
    assert str(caught.value) == why


# Ours with binutils'


#: Where binutils choose another encoding: one field's mtcrf becomes mtocrf, mftb becomes mfspr, and these
#: names are other SPRs' (of problem state, of embedded processors).
_ANOTHER_CHOICE = re.compile(r"mftb|mtcrf (1|2|4|8|16|32|64|128),|m[ft](pir|mmcr.|sdar|siar|sier|pmc.) ")


def _binutils() -> None:
    if shutil.which(_PREFIX + "as"):
        return
    reason = "binutils for Power are not installed (Debian: gcc-powerpc64le-linux-gnu)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _peer(directory: Path, lines: list[str]) -> list[int | None]:
    """What GNU as makes of each line at address 0x8000; None where it refuses the line."""
    source, result, binary = (directory / name for name in ("text.s", "text.o", "text.bin"))
    refused: set[int] = set()
    while True:
        kept = [".long 0" if number in refused else line for number, line in enumerate(lines)]
        source.write_text("\n".join(kept) + "\n")
        command = [_PREFIX + "as", "-be", "-mpower9", "-many", "-mregnames", "-o", str(result), str(source)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        errors = {int(line) - 1 for line in re.findall(r":(\d+): Error", run.stderr)}
        if not errors:
            break
        refused |= errors
    subprocess.run([_PREFIX + "objcopy", "-O", "binary", "-j", ".text", result, binary], check=True)
    code = binary.read_bytes()
    found = [int.from_bytes(code[n : n + 4], "big") for n in range(0, len(code), 4)]
    return [None if number in refused else word for number, word in enumerate(found)]


@pytest.mark.oracle
def test_declared_encodings_are_those_of_binutils(tmp_path: Path) -> None:
    _binutils()
    random = Random(3)
    drawn = [(one, draw_word(random, one)) for one in INSTRUCTIONS for _ in range(40)]
    answers = _peer(tmp_path, [disassemble(word) for _, word in drawn])
    agreed = set()
    for (declared, word), answer in zip(drawn, answers, strict=True):
        text = disassemble(word)
        if answer is not None and not _ANOTHER_CHOICE.match(text):
            assert answer == word, text
            agreed.add(declared.mnemonic)
    assert {one.mnemonic for one in INSTRUCTIONS} - agreed == {"mftb"}


@pytest.mark.oracle
def test_extended_mnemonics_are_those_of_binutils(tmp_path: Path) -> None:
    _binutils()
    random = Random(4)
    values = {"BD": ".-0x40", "SI": "-7", "UI": "9", "N": "5", "B": "9", "BF": "cr6"}
    lines = []
    for (name, _), expansion in extended_mnemonics().items():
        operands = [
            values.get(parameter, f"r{random.randrange(32)}" if parameter.startswith("R") else "13")
            for parameter in expansion.parameters
        ]
        lines.append(
            f"{name} {','.join(operands)}".replace(".-0x40", "64" if name.endswith("a") else ".-0x40")
        )
    answers = _peer(tmp_path, lines)
    agreed = 0
    for line, answer in zip(lines, answers, strict=True):
        if answer is not None and not _ANOTHER_CHOICE.match(line):
            assert words(line) == [answer], line
            agreed += 1
    assert agreed > 350


@pytest.mark.oracle
def test_what_a_compiler_makes_is_understood(tmp_path: Path) -> None:
    """objdump's text of a compiled program assembles to the very words; every one of them is declared."""
    _binutils()
    source = tmp_path / "program.c"
    source.write_text(
        """
        typedef unsigned long u64;
        typedef unsigned int u32;
        struct node { struct node *next; signed char key; short weight; u64 bits; };
        u64 mix(u64 a, u64 b) { return (a << 13 | a >> 51) * b + (a ^ b) % (b | 1); }
        long find(struct node *n, long key, long (*f)(long)) {
            long total = 0;
            for (; n; n = n->next)
                if (n->key == key) total += f(n->weight); else total -= n->bits & 0xff00;
            return total;
        }
        u32 count(const u32 *p, int n) {
            u32 sum = 0;
            while (n-- > 0) sum += __builtin_popcount(*p++) / 7;
            return sum;
        }
        int choose(int x) {
            switch (x) {
                case 0: return 5; case 1: return -9; case 2: return 70000;
                case 3: return 8; case 4: return 77; case 5: return 123456789;
            }
            return x < 0 ? ~x : x >> 3;
        }
        int swap(int *p, int old, int new) { return __atomic_compare_exchange_n(p, &old, new, 0, 5, 5); }
        u64 clock(void) { return __builtin_ppc_get_timebase(); }
        """
    )
    produced = tmp_path / "program.o"
    options = [
        "-c",
        "-O2",
        "-mcpu=power9",
        "-mno-altivec",
        "-mno-vsx",
        "-msoft-float",
        "-ffreestanding",
        "-mtraceback=no",
    ]
    subprocess.run([_PREFIX + "gcc", *options, "-o", produced, source], check=True)
    listing = subprocess.run(
        [_PREFIX + "objdump", "-d", "-Mpower9", produced], capture_output=True, text=True, check=True
    ).stdout
    found = re.findall(r"^\s*([0-9a-f]+):\t((?:[0-9a-f]{2} ){4})\s*\t(\S+)[ \t]*([^<#\n]*)", listing, re.M)
    assert len(found) > 100
    for address, octets, mnemonic, operands in found:
        word = int.from_bytes(bytes.fromhex(octets), "little")
        operands = (
            re.sub(r"^(|.*,)([0-9a-f]+) *$", r"\g<1>0x\2", operands) if mnemonic[0] == "b" else operands
        )
        text = f"{mnemonic.rstrip('+-')} {operands}"
        assert not disassemble(word).startswith("."), text
        if mnemonic == mnemonic.rstrip("+-") and mnemonic != ".long":
            assert words(text, int(address, 16)) == [word], text
