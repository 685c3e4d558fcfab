"""Valgrind's tests of Power's instructions: programs that print results, and what processors printed.

Debian's source package brings both. Nothing of it is part of this project.
"""

from __future__ import annotations

import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chronovisor.cli.debian import Packages

COMPILER: Final = "powerpc64le-linux-gnu-gcc"
_DIRECTORY: Final = "none/tests/ppc64"
_NEEDED: Final = re.compile(r"[^/]+/(none/tests/ppc(64|32)|include|tests)/[^/]+")
_DEFINED: Final = (
    *("VGA_ppc64le=1", "VGO_linux=1", "VGP_ppc64le_linux=1", "VGPV_ppc64le_linux_vanilla=1"),
    *("HAS_ALTIVEC", "HAS_DFP", "HAS_VSX", "HAS_ISA_2_05", "HAS_ISA_2_06", "HAS_ISA_2_07", "HAS_ISA_3_00"),
)
"""What Valgrind's own build defines on a POWER9."""
_CONFIGURED: Final = "#define HAVE_ALTIVEC_H 1\n"
_NEITHER: Final = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True)
class Program:
    """A program and its arguments, and the name under which its expected output is kept.

    Lines that match ``open`` are not compared: the book leaves open what they show. Those that match
    ``absent`` differ because the command leaves instructions out. ``ignored`` are bits of XER at a line's end
    that are not compared.
    """

    expected: str
    command: str
    open: re.Pattern[str] = _NEITHER
    ignored: int = 0
    absent: re.Pattern[str] = _NEITHER

    @property
    def name(self) -> str:
        """The program without its arguments."""
        return self.command.split()[0]

    def differences(self, printed: list[str], texts: list[list[str]]) -> list[str]:
        """The lines that differ from the nearest of the expected texts, each with the expected line."""
        lines = self._lines(printed)
        return min((self._differences(lines, self._lines(text)) for text in texts), key=len)

    def _lines(self, text: list[str]) -> list[str]:
        return [line for line in text if line and not self.absent.search(line)]

    def _differences(self, printed: list[str], expected: list[str]) -> list[str]:
        if len(printed) != len(expected):
            return [f"{len(printed)} lines instead of {len(expected)}"] * max(len(printed), len(expected))
        return [
            f"{have!r} instead of {want!r}"
            for have, want in zip(printed, expected, strict=True)
            if self._compared(have) != self._compared(want) and not self.open.search(want)
        ]

    def _compared(self, line: str) -> str:
        if not self.ignored:
            return line
        return re.sub(r"[0-9a-f]{8}(?=\)$)", lambda xer: f"{int(xer[0], 16) & ~self.ignored:08x}", line)


_ESTIMATES: Final = re.compile(r"\b(f|v|xs|xv)(re|rsqrte|loge|expte)(s|dp|sp|fp)?\b")
_CARRIES: Final = 0xC_0000
"""CA32 and OV32, which the processors of these outputs did not have."""

PROGRAMS: Final = (
    Program("jm-fp", "jm-insns -f", _ESTIMATES),
    Program("jm-vmx", "jm-insns -a", _ESTIMATES),
    # CR field 0 after mulhw. and mulhwu. is undefined in 64-bit mode.
    Program("jm-int", "jm-insns -i", re.compile(r"\bmulhwu?\."), _CARRIES),
    Program("jm-int_other", "jm-insns -l -L -c"),
    Program("jm-int-sh_algebraic", "jm-insns -s"),
    Program("round", "round"),
    Program("subnormal_test", "subnormal_test", _ESTIMATES),
    Program("test_isa_2_06_part1", "test_isa_2_06_part1"),
    Program("test_isa_2_06_part2", "test_isa_2_06_part2 -o"),
    Program("test_isa_2_06_part3", "test_isa_2_06_part3 -o"),
    # A quotient that does not fit is undefined.
    Program("test_isa_2_06_part2-div", "test_isa_2_06_part2 -d", re.compile(r"= 0x0+; |XER=c")),
    Program("test_isa_2_06_part3-div", "test_isa_2_06_part3 -d", re.compile(r"= 0x0+; |XER=c")),
    Program("jm_fp_isa_2_07", "test_isa_2_07_part1 -f"),
    Program("jm_vec_isa_2_07", "test_isa_2_07_part1 -a"),
    Program("test_isa_2_07_part2", "test_isa_2_07_part2"),
    # R=0 with RMC=1 and RMC=2 is reserved.
    Program("test_isa_3_0_altivec", "test_isa_3_0 -a -d -q", re.compile(r"\(R=0\) \(RMC=[12]\)")),
    # Digits above 9 are undefined; OV ends with a system call. Decimal floating point is left out.
    Program(
        "test_isa_3_0_other",
        "test_isa_3_0 -i -m -B -N -P -M",
        re.compile(r"^vmul10ec?uq|^addex f{16}, "),
        absent=re.compile(r"^dtstsfi|dfp|^All done"),
    ),
    *(Program(f"test_dfp{number}", f"test_dfp{number}") for number in range(1, 6)),
    Program("test_lxvx_stxvx", "test_lxvx_stxvx"),
    Program("test_mcrxrx", "test_mcrxrx"),
    Program("test_mod_instructions", "test_mod_instructions"),
    Program("tw_td", "tw_td"),
    Program("twi_tdi", "twi_tdi"),
    Program("std_reg_imm", "std_reg_imm"),
)


class Programs:
    """The unpacked source, kept between runs beside Debian's packages, and what is compiled of it."""

    def __init__(self) -> None:
        packages = Packages()
        self._directory = packages.directory / "valgrind"
        self._sources = self._directory / _DIRECTORY
        with packages.locked():
            if not self._directory.exists():
                partial = self._directory.with_suffix(".partial")
                _unpack(packages.source("valgrind"), partial)
                partial.rename(self._directory)

    def compiled(self, program: Program, scratch: Path) -> bytes:
        """The program as a static file of ppc64le."""
        out = scratch / program.name
        if not out.exists():
            defined = [f"-D{one}" for one in _DEFINED]
            included = [f"-I{self._directory}", f"-I{self._directory / 'include'}"]
            options = ["-static", "-O", "-w", "-mcpu=power9", "-mregnames", "-Wl,-z,norelro"]
            subprocess.run(
                [COMPILER, *options, *defined, *included, "-o", out, f"{program.name}.c", "-lm"],
                cwd=self._sources,
                check=True,
                capture_output=True,
            )
        return out.read_bytes()

    def expected(self, program: Program) -> list[list[str]]:
        """The lines of each output that processors gave."""
        files = self._sources.glob(f"{program.expected}.stdout.exp*")
        return [
            [
                line
                for line in path.read_text(errors="replace").splitlines()
                if not program.absent.search(line)
            ]
            for path in files
        ]


def _unpack(archive: Path, directory: Path) -> None:
    with tarfile.open(archive) as members:
        for member in members:
            if member.isfile() and _NEEDED.fullmatch(member.name):
                member.name = member.name.partition("/")[2]
                members.extract(member, directory)
    (directory / "config.h").write_text(_CONFIGURED)
