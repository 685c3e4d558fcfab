"""Which code this is: results of different code are not mixed."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path

import chronovisor


@cache
def code_version() -> str:
    """Return Chronovisor's version and a digest of its sources, as in `0.1.0 (4c1f22ab90de)`."""
    root = Path(chronovisor.__file__).parent
    digest = sha256()
    for path in sorted(root.rglob("*.py")):
        source = path.read_bytes()
        digest.update(f"{path.relative_to(root)} {len(source)}\n".encode() + source)
    return f"{chronovisor.__version__} ({digest.hexdigest()[:12]})"
