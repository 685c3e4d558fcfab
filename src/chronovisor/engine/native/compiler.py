"""From declared instructions to machine code: LLVM modules of handlers and of the functions beside them."""

from __future__ import annotations

import atexit
import hashlib
import threading
from collections.abc import Hashable, Iterable, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from llvmlite import binding as llvm
from llvmlite import ir

import chronovisor.isa
from chronovisor.engine.native.assembling import define_assemble
from chronovisor.engine.native.block_decoder import define_decode_block
from chronovisor.engine.native.content import define_content
from chronovisor.engine.native.contexts import define_adopt, define_ask_flush, define_flush
from chronovisor.engine.native.crossing import define_cross
from chronovisor.engine.native.decoding import define_decode
from chronovisor.engine.native.emitter import (
    HANDLER,
    HANDLER_CONVENTION,
    POINTER,
)
from chronovisor.engine.native.encoding import Encoding, encoding
from chronovisor.engine.native.enter import Control, define_entry
from chronovisor.engine.native.fillers import FILL, define_fill_nothing, define_filler, shape
from chronovisor.engine.native.finding import define_bring, define_find
from chronovisor.engine.native.interrupt_entry import define_interrupt
from chronovisor.engine.native.invalidation import (
    define_await_piece,
    define_forget_pages,
    define_invalidate,
    define_synchronize,
)
from chronovisor.engine.native.layout import Left
from chronovisor.engine.native.line_links import define_unlink
from chronovisor.engine.native.lowering import Lowering, Mode
from chronovisor.engine.native.operations import LOWERINGS, is_native
from chronovisor.engine.native.pairs import Key, Pair, result
from chronovisor.engine.native.runtime import (
    define_again,
    define_blank,
    define_clock,
    define_end_of_piece,
    define_exchange,
    define_exchange_word,
    define_leaving,
    define_plain,
    define_reach,
    define_retire,
)
from chronovisor.engine.native.sampling import define_put_line, define_sample
from chronovisor.engine.native.sets import symbol
from chronovisor.engine.native.state_layout import FINDINGS
from chronovisor.engine.native.target_processor import host_processor, target_processor
from chronovisor.engine.native.walk import define_translate
from chronovisor.isa.radix import Access
from chronovisor.isa.values import Program

#: Held while a thread works in LLVM or writes a file of the cache. The process ends only after that: else it
#: would destroy LLVM's data under the thread.
FINISHING = threading.RLock()
atexit.register(FINISHING.acquire)


class Model(NamedTuple):
    """How code refers to what it does not have itself: LLVM's names."""

    relocation: str
    code: str


#: Code of handlers reaches its constants by absolute addresses, so that copies of the code alone stay valid.
OF_HANDLERS = Model("static", "large")
#: Code of regions reaches its own, beside it, by their distance, which takes fewer bytes.
OF_REGIONS = Model("pic", "small")
#: What stencils refer to becomes a part of them.
OF_STENCILS = Model("static", "small")


@cache
def target(model: Model = OF_HANDLERS) -> llvm.TargetMachine:
    """The code generator."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    # A processor predicts jumps by their addresses: those that are alike must not become one.
    llvm.set_option("", "--enable-tail-merge=0")
    # Its induction variables for addresses need more registers than there are beside the pinned ones.
    llvm.set_option("", "-disable-lsr")
    processor, features = host_processor() if model is OF_REGIONS else target_processor()
    return llvm.Target.from_default_triple().create_target_machine(
        opt=2, cpu=processor, features=features, reloc=model.relocation, codemodel=model.code
    )


def new_module(name: str) -> ir.Module:
    """An empty module for this machine."""
    module = ir.Module(name)
    module.triple = llvm.get_process_triple()
    return module


def compile_module(module: ir.Module | llvm.ModuleRef, model: Model = OF_HANDLERS) -> bytes:
    """Machine code of a module, as an object file."""
    with FINISHING:
        return bytes(target(model).emit_object(_optimized(module, model)))


def assembly(module: ir.Module, model: Model) -> str:
    """Machine code of a module, in assembly language."""
    with FINISHING:
        return str(target(model).emit_assembly(_optimized(module, model)))


def assembled(text: str, model: Model) -> bytes:
    """Assembly language as an object file."""
    escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\{ord(c):02x}" for c in text)
    with FINISHING:
        module = llvm.parse_assembly(f'{new_module("assembly")}\nmodule asm "{escaped}"')
        return bytes(target(model).emit_object(module))


def _optimized(module: ir.Module | llvm.ModuleRef, model: Model) -> llvm.ModuleRef:
    parsed = module if isinstance(module, llvm.ModuleRef) else llvm.parse_assembly(str(module))
    parsed.verify()
    builder = llvm.create_pass_builder(target(model), llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(parsed, builder)
    return parsed


#: The symbol of a set's table of handlers' addresses.
TABLE = "chronovisor_handlers"

#: How many entries of the table each instruction has.
KEY_ENTRIES = 3

#: Handlers that are lowered together: Python's form of them all at once would take hundreds of megabytes.
_PIECE = 200


class _Set:
    """A module of handlers for a machine mode, in the making."""

    def __init__(self, mode: Mode) -> None:
        self.whole = llvm.parse_assembly(str(new_module("handlers")))
        self.piece = new_module("piece")
        self.mode = mode
        self.entries: list[str | None] = []
        #: The fillers by what each depends on, and each filler's name.
        self.fillers: dict[Hashable, str] = {}

    def _program(self, key: Key) -> Program:
        return key[0].program(key[1], *self.mode)

    def _append(self, function: ir.Function | None) -> None:
        self.entries.append(None if function is None else function.name)
        if len(self.piece.globals) > _PIECE:
            self._put_in()

    def _put_in(self) -> None:
        self.whole.link_in(llvm.parse_assembly(str(self.piece)))
        self.piece = new_module("piece")

    def add(self, key: Key) -> None:
        """An instruction's entries: its handler, the one for a jump within its page, and its filler."""
        program = self._program(key)
        if not is_native(program):
            self.entries += [None] * KEY_ENTRIES
            return
        far = encoding(program)
        near = None if far.target is None else encoding(program, near=True)
        filler = self._filler(symbol(key), far, near)
        self._append(self._single(symbol(key), program, far))
        self._append(None if near is None else self._single(f"{symbol(key)}_near", program, near))
        self.entries.append(filler)

    def _single(self, name: str, program: Program, layout: Encoding) -> ir.Function:
        low = Lowering(self.piece, name, self.mode, LOWERINGS)
        low.do(program, layout)
        low.finish()
        return low.function

    def _filler(self, name: str, far: Encoding, near: Encoding | None) -> str:
        """The name of the filler for these layouts, which is made if this is the first such instruction."""
        depends = shape(far, near)
        if depends not in self.fillers:
            self.fillers[depends] = define_filler(self.piece, f"{name}_fill", far, near).name
        return self.fillers[depends]

    def add_pair(self, pair: Pair) -> None:
        """One entry: the handler of two instructions."""
        first, second = self._program(pair.first), self._program(pair.second)
        name = f"{symbol(pair.first)}_{symbol(pair.second)}_{pair.link or ''}"
        low = Lowering(self.piece, name, self.mode, LOWERINGS)
        low.do(first, encoding(first))
        link = None if pair.link is None else (pair.link, low.value(result(first)))
        low.step(link)
        near = encoding(second).target is not None
        low.do(second, encoding(second, near))
        low.finish()
        self._append(low.function)

    def mark(self, name: str) -> None:
        """One entry: a place in the code."""
        self._append(define_leaving(self.piece, name, Left.SLOW))

    def finished(self) -> llvm.ModuleRef:
        """The module with its table."""
        self._put_in()
        fillers = {n: ir.Function(self.piece, FILL, n) for n in self.fillers.values()}
        handlers = [n for n in dict.fromkeys(self.entries) if n and n not in fillers]
        declared = {**fillers, **{n: ir.Function(self.piece, HANDLER, n) for n in handlers}}
        for name in handlers:
            declared[name].calling_convention = HANDLER_CONVENTION
        addresses = [declared[n].bitcast(POINTER) if n else ir.Constant(POINTER, None) for n in self.entries]
        table = ir.GlobalVariable(self.piece, ir.ArrayType(POINTER, len(addresses)), TABLE)
        table.initializer = ir.Constant(table.value_type, addresses)
        self._put_in()
        return self.whole


def handlers_module(keys: Sequence[Key], together: Sequence[Pair], mode: Mode) -> llvm.ModuleRef:
    """A module of handlers, with a table of addresses: KEY_ENTRIES a key and one a pair.

    The first of a key is its handler. The second is the handler for a jump within the instruction's own page,
    or 0 if the instruction has no such jump. The third is the filler. All three are 0 if the instruction is
    the concrete evaluator's. The table's first entry is the beginning of all code, its last the end. No
    address in the code depends on where the code is.
    """
    made = _Set(mode)
    made.mark("chronovisor_begin")
    for key in keys:
        made.add(key)
    for pair in together:
        made.add_pair(pair)
    made.mark("chronovisor_end")
    return made.finished()


def compile_handlers(keys: Sequence[Key], together: Sequence[Pair], mode: Mode) -> bytes:
    """Machine code of handlers that runs wherever it is copied to."""
    code = compile_module(handlers_module(keys, together, mode))
    if kinds := _relocations(code) - {_ABSOLUTE}:
        raise AssertionError(f"handlers cannot be copied: their code has relocations of the kinds {kinds}")
    return code


_ABSOLUTE = 1
"""R_X86_64_64: the linker puts in an address of 64 bits, which is the same in every copy."""


def _relocations(code: bytes) -> set[int]:
    """The kinds of relocations in the code of an object file."""
    return {
        relocation["r_info_type"]
        for section in ELFFile(BytesIO(code)).iter_sections()
        if isinstance(section, RelocationSection) and section.name in (".rela.text", ".rela.ltext")
        for relocation in section.iter_relocations()
    }


def runtime_module() -> ir.Module:
    """The module of the functions beside the handlers."""
    module = new_module("runtime")
    interrupt = define_interrupt(module)
    ask_flush = define_ask_flush(module)
    invalidate = define_invalidate(module, define_forget_pages(module, ask_flush), ask_flush)
    undecoded = define_leaving(module, "chronovisor_undecoded", Left.DECODE)
    content = define_content(module)
    put_line = define_put_line(module, undecoded, define_assemble(module))
    control = Control(
        now=define_clock(module),
        translate={access: define_translate(module, access, interrupt, content) for access in Access},
        cross={Access.LOAD: define_cross(module, False), Access.STORE: define_cross(module, True)},
        decode=define_decode(module, undecoded, define_decode_block(module), put_line),
        adopt=define_adopt(module),
        flush=define_flush(module),
        invalidate=invalidate,
        synchronize=define_synchronize(module, define_await_piece(module)),
        interrupt=interrupt,
        sample=define_sample(module, put_line),
    )
    brings = {
        access: define_bring(module, define_translate(module, access, None, content))
        for access in (Access.LOAD, Access.STORE)
    }
    for use, by in FINDINGS:
        define_find(module, use, Access(by), brings[Access(by)])
    define_entry(module, control)
    define_leaving(module, "chronovisor_slow", Left.SLOW)
    define_unlink(module)
    define_reach(module)
    define_end_of_piece(module, define_plain(module))
    again = define_again(module)
    define_blank(module, undecoded, again)
    define_retire(module, again)
    define_exchange(module)
    define_exchange_word(module)
    define_fill_nothing(module)
    return module


def add_sources(digest: hashlib._Hash, sources: Iterable[Path]) -> None:
    """Have a digest depend on the names and contents of source files."""
    for path in sorted(sources):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())


@cache
def fingerprint() -> str:
    """What handlers depend on: our sources of meanings and lowering, and the processor that they are for.

    LLVM's version does not count: handlers that one version made serve beside any other.
    """
    digest = hashlib.sha256()
    native = Path(__file__).parent
    add_sources(digest, Path(chronovisor.isa.__path__[0]).rglob("*.py"))
    add_sources(digest, native.parent.glob("*.py"))
    add_sources(digest, native.glob("*.py"))
    digest.update(repr(target_processor()).encode())
    return digest.hexdigest()[:32]
