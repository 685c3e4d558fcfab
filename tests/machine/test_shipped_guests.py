"""The guests that are shipped are their sources': Debian's compilers make the same bytes of them again."""

import shutil
import subprocess
from pathlib import Path

import pytest

from chronovisor.machine.files import SHIPPED

GUESTS = Path(__file__).parents[2] / "guests"
COMPILERS = tuple(f"{machine}-linux-gnu-gcc" for machine in ("powerpc64le", "powerpc64", "aarch64", "x86_64"))


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
@pytest.mark.skipif(not built_with_debian_12(), reason="needs Debian 12's compilers for these processors")
def test_the_shipped_guests_are_rebuilt_byte_for_byte(tmp_path: Path) -> None:
    subprocess.run(["make", "-s", "-C", str(GUESTS), f"OUT={tmp_path}"], check=True)
    assert files(tmp_path) == files(SHIPPED)


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }
