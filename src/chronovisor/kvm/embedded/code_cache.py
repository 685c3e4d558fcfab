"""The embedded provider's code cache."""

from __future__ import annotations

from chronovisor.engine.native import code_cache
from chronovisor.kvm.code_cache import CodeCache


def kept_code() -> CodeCache:
    """The code cache that the environment names now."""
    return CodeCache(code_cache.directory(), code_cache.MOST, code_cache.contents, code_cache.clear)
