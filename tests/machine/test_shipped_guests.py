"""The guests that are shipped are their sources': Debian's compilers make the same bytes of them again."""

import shutil
import subprocess
from pathlib import Path

import pytest

from chronovisor.machine.elf import SHIPPED

GUESTS = Path(__file__).parents[2] / "guests"
COMPILERS = ("powerpc64le-linux-gnu-gcc", "powerpc64-linux-gnu-gcc")


def built_with_debian_12() -> bool:
    """Other versions of the compiler may well make other code of the same source."""
    for compiler in COMPILERS:
        if shutil.which(compiler) is None:
            return False
        version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
        if "(Debian 12." not in version:
            return False
    return True


@pytest.mark.oracle
@pytest.mark.skipif(not built_with_debian_12(), reason="needs Debian 12's Power cross compilers")
def test_the_shipped_guests_are_rebuilt_byte_for_byte(tmp_path: Path) -> None:
    subprocess.run(["make", "-s", "-C", str(GUESTS), f"OUT={tmp_path}"], check=True)
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert built == {path.name: path.read_bytes() for path in SHIPPED.glob("*.elf")}
