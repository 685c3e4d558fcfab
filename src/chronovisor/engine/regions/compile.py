"""From a page's instructions to a region's machine code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import llvmlite
from llvmlite import binding as llvm

from chronovisor.engine.native import compiler
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.native.operations import LOWERINGS
from chronovisor.engine.native.target_processor import host_processor
from chronovisor.engine.regions.code import Code
from chronovisor.engine.regions.discovery import Region, discover, discover_from
from chronovisor.engine.regions.linking import link
from chronovisor.engine.regions.lowering import define_region, entry_symbol

#: LLVM's passes over a region: code as fast as by all that -O2 does, in a fraction of the time.
_PASSES = ("sroa", "simplify_cfg", "instruction_combine", "simplify_cfg", "aggressive_dce")


@dataclass(frozen=True)
class WantedRegion:
    """A region that is to be compiled: the one around a hot instruction.

    ``pages`` are the contents of the pages that it may have, by their distance from the home page, in pages;
    the hot instruction is in the home page, at the offset ``hot`` in bytes. If there are ``starts``, the
    region is instead what control comes to at these offsets, up to the ``stops``, where other regions begin.
    """

    mode: Mode
    pages: Mapping[int, bytes]
    hot: int
    starts: tuple[int, ...] = ()
    stops: tuple[int, ...] = ()


@dataclass(frozen=True)
class CompiledRegion:
    """A region's machine code, and which instructions it has, by their offsets from its home page.

    ``pages`` has what tells the contents of its pages, by their distance from the home page. The handler of
    each of its ``entries`` is at one of the ``places`` in the code, in bytes. ``starts`` are as in
    `WantedRegion`. Without entries there is no code: nothing there is worth a region.
    """

    pages: dict[int, str]
    entries: tuple[int, ...]
    places: tuple[int, ...]
    covered: tuple[int, ...]
    starts: tuple[int, ...]
    code: bytes

    def encode(self) -> bytes:
        """As a line of text and the code."""
        parts = self.entries, self.places, self.covered, self.starts, len(self.code)
        line = json.dumps([list(self.pages.items()), *parts])
        return line.encode() + b"\n" + self.code

    @classmethod
    def decode(cls, whole: bytes) -> CompiledRegion:
        """The inverse of `encode`."""
        (region,) = decode_page(whole)
        return region


def encode_page(regions: Iterable[CompiledRegion]) -> bytes:
    """The regions of one home page, one behind the other."""
    return b"".join(region.encode() for region in regions)


def decode_page(whole: bytes) -> list[CompiledRegion]:
    """The inverse of `encode_page`."""
    found = []
    while whole:
        line, _, whole = whole.partition(b"\n")
        pages, *parts, length = json.loads(line)
        entries, places, covered, starts = map(tuple, parts)
        code, whole = whole[:length], whole[length:]
        found.append(CompiledRegion(dict(pages), entries, places, covered, starts, code))
    return found


def page_digest(content: bytes) -> str:
    """What tells a page's content."""
    return hashlib.sha256(content).hexdigest()[:32]


def page_name(mode: Mode, digest: str) -> str:
    """The name under which the regions of a home page with this content are kept."""
    return f"regions-{'64' if mode[0] else '32'}{'le' if mode[1] else 'be'}-{digest}"


@cache
def fingerprint() -> str:
    """What the code of regions depends on, besides the page."""
    digest = hashlib.sha256(compiler.fingerprint().encode())
    digest.update(repr((llvmlite.__version__, llvm.llvm_version_info, host_processor())).encode())
    compiler.add_sources(digest, Path(__file__).parent.glob("*.py"))
    return digest.hexdigest()[:32]


def compile_region(wanted: WantedRegion) -> CompiledRegion:
    """Find and compile a region."""
    code, starts = Code(wanted.pages, wanted.mode), wanted.starts
    region = discover_from(code, starts, wanted.stops) if starts else discover(code, wanted.hot)
    if region is None:
        return CompiledRegion({0: page_digest(wanted.pages[0])}, (), (), (wanted.hot,), starts, b"")
    pages = {page: page_digest(wanted.pages[page]) for page in region.pages}
    linked, places = link(_machine_code(region, wanted.mode), map(entry_symbol, range(len(region.entries))))
    return CompiledRegion(pages, region.entries, places, tuple(region.sites), starts, linked)


def _machine_code(region: Region, mode: Mode) -> bytes:
    with compiler.FINISHING:
        module = compiler.new_module("region")
        define_region(module, mode, LOWERINGS, region)
        parsed = llvm.parse_assembly(str(module))
        parsed.verify()
        machine = compiler.target(compiler.OF_REGIONS)
        # Without it the passes think that the machine has no integers of 64 bits, and cut these apart.
        parsed.data_layout = str(machine.target_data)
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
        passes = llvm.create_new_module_pass_manager()
        for name in _PASSES:
            getattr(passes, f"add_{name}_pass")()
        passes.run(parsed, builder)
        return bytes(machine.emit_object(parsed))
