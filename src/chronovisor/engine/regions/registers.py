"""The guest's registers in a function of a region.

The state has each register, but for changes of CR and XER that are not settled yet. A register is loaded when
the function first uses it, and is known from there on, up to where control comes from two sides.
What an instruction changes is stored at once, so that it costs little to leave. CR and XER are settled when
the function is left, or where control comes from two sides: most of their values are never looked at.

A function with a tight loop has a place for each register, of which LLVM makes values. Those that the loop
uses are loaded before it, and stored when control leaves it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from llvmlite import ir

from chronovisor.engine.native.emitter import I1, I64, Rows, word
from chronovisor.engine.native.lowering import Lowering, Mode
from chronovisor.engine.native.state_layout import OFFSETS, file_field
from chronovisor.engine.regions import bit_registers
from chronovisor.engine.regions.bit_registers import BitRegister, PartedRegister
from chronovisor.engine.regions.code import Site
from chronovisor.engine.regions.condition_register import ConditionRegister
from chronovisor.engine.regions.tight_loops import Loop
from chronovisor.isa.registers import FILES, RegisterFile
from chronovisor.isa.values import Block, Value, When

#: Addresses, which have no place of their own.
ADDRESSES = ("CIA", "NIA")
#: The register and the bit that a comparison copies.
SUMMARY_OVERFLOW = ("XER", 31)
#: The most bits of a register that have a place each.
_MOST_BITS = 32

#: A register: one of a file, by the file's name and its number, or one with a name of its own and None.
_Key = tuple[str, int | None]


def _number(site: Site, s: Value) -> int:
    number = site.constant(s.args[0])
    assert number is not None, "a register whose number is not in the instruction"
    return number


def _reads(site: Site) -> Iterator[_Key]:
    """The registers that an instruction may read, but for addresses."""
    assert site.program is not None
    for s in site.program.statements():
        if s.op == "read_file":
            yield str(s.detail), _number(site, s)
        elif s.op == "get" and s.detail not in ADDRESSES:
            yield str(s.detail), None


def _changes(site: Site) -> Iterator[_Key]:
    """The registers that an instruction may change, but for addresses."""
    assert site.program is not None
    return _changed_in(site, site.program.body)


@dataclass
class Known:
    """What is known where control comes to an instruction."""

    done: int = 0
    """The instructions that are executed, but not yet taken from the budget."""
    values: dict[_Key, ir.Value] = field(default_factory=dict)
    """The registers' values; of those that have a place, that has the value."""
    bits: dict[str, bit_registers.Known] = field(default_factory=dict)
    """Of registers that are kept bit by bit."""
    ones: set[int] = field(default_factory=set)
    """Sets of bits of MSR: one of each set is known to be a one. A region leaves MSR alone."""


def _changed_in(site: Site, block: Block) -> Iterator[_Key]:
    """The registers that statements of an instruction may change, but for addresses."""
    for s in block:
        if isinstance(s, When):
            yield from _changed_in(site, s.body)
        elif s.op == "write_file":
            yield str(s.detail), _number(site, s)
        elif s.op == "set" and s.detail not in ADDRESSES:
            yield str(s.detail), None


class RegisterLowering(Lowering):
    """Programs on their way into a function of a region, as far as registers are concerned."""

    #: The instruction in the making.
    site: Site

    def __init__(
        self, module: ir.Module, name: str, mode: Mode, rows: Rows, sites: Mapping[int, Site], loop: Loop
    ) -> None:
        self._addresses: dict[int, ir.Value] = {}
        super().__init__(module, name, mode, rows)
        self.sites = sites
        #: The tight loop, or nothing.
        self.loop = loop
        b = self.b
        changed = dict.fromkeys(key for site in sites.values() for key in _changes(site))
        read = (key for site in sites.values() for key in _reads(site) if key[1] is not None)
        self._bits = dict(self._parted_registers())
        #: The registers whose values are known from where they are loaded on.
        self._keys = [key for key in changed | dict.fromkeys(read) if key[0] not in self._bits]
        self._places = {key: b.alloca(self._type(key)) for key in self._keys if loop}
        in_loop = [sites[offset] for offset in sorted(loop)]
        self._late = list(dict.fromkeys(key for site in in_loop for key in _changes(site)))
        self._used = dict.fromkeys([*self._late, *(key for site in in_loop for key in _reads(site))])
        self.known = Known()
        #: The values of the registers that the tight loop uses, as they were known when it began.
        self._in_loop: dict[_Key, ir.Value] = {}

    def _parted_registers(self) -> Iterator[tuple[str, PartedRegister]]:
        """The registers that are kept in parts, by their names."""
        in_loop = [self.sites[offset] for offset in self.loop]
        # CR's fields lie apart in the state, so they are read apart too, even if nothing changes them.
        compared = {} if self.changes_overflow else bit_registers.compared(in_loop)
        yield "CR", ConditionRegister(self, "CR", bit_registers.changed(in_loop, "CR"), compared)
        ones = bit_registers.changed(self.sites.values(), "XER")
        if 0 < ones.bit_count() <= _MOST_BITS:
            yield "XER", BitRegister(self, "XER", ones, bit_registers.always_extracted(in_loop, "XER"))

    @staticmethod
    def _type(key: _Key) -> ir.Type:
        name, number = key
        return I64 if number is None else ir.IntType(FILES[name].width)

    def field(self, name: str) -> ir.Value:
        """The address of a field of the state."""
        return self._in_state(OFFSETS[name])

    def _in_state(self, offset: int) -> ir.Value:
        """An address in the state, which is made once, at the beginning."""
        if offset not in self._addresses:
            with self.b.goto_entry_block():
                self._addresses[offset] = self.at(self.state, offset)
        return self._addresses[offset]

    def _home(self, key: _Key) -> ir.Value:
        """The address of a register in the state."""
        name, number = key
        if number is None:
            return self.field(name)
        file = FILES[name]
        return self._in_state(OFFSETS[file_field(file)] + (number * file.width // 8))

    # Between the state and the values

    def _load(self, key: _Key) -> None:
        """Have a register's value known."""
        if key not in self.known.values:
            loaded = self.b.load(self._home(key), typ=self._type(key))
            loaded.align = 8
            self._know(key, loaded)

    def _know(self, key: _Key, value: ir.Value) -> None:
        """A register has this value now."""
        if key in self._places:
            self.b.store(value, self._places[key])
        self.known.values[key] = value

    def _value(self, key: _Key) -> ir.Value:
        """A register's value."""
        self._load(key)
        if key in self._places:
            return self.b.load(self._places[key], typ=self._type(key))
        return self.known.values[key]

    def enter_loop(self) -> None:
        """Load what the tight loop uses: the function begins with it."""
        for key in self._used:
            if (register := self._bits.get(key[0])) is not None:
                register.enter_loop()
            elif key in self._places:
                self._load(key)
        self._in_loop = dict(self.known.values)

    def enter_loop_again(self) -> None:
        """Control comes to the tight loop from elsewhere in the function, with the state settled.

        Places of whole registers always have their values. Places of parts have them only in the loop.
        """
        for register in self._bits.values():
            register.enter_loop()

    @property
    def is_in_loop(self) -> bool:
        """Whether the instruction in the making is in the tight loop."""
        return self.site.offset in self.loop

    def leave_loop(self) -> None:
        """Store what the instructions of the tight loop change: control leaves it."""
        for key in self._late:
            register = self._bits.get(key[0])
            if register is None:
                self._store(key, self.b.load(self._places[key], typ=self._type(key)))
            else:
                register.settle()

    def settle(self) -> None:
        """Have the state be exact: control may go anywhere."""
        if self.is_in_loop:
            self.leave_loop()
            return
        for register in self._bits.values():
            register.settle()

    def read_state(self, name: str) -> ir.Value:
        """A field of the state as it is there."""
        return super().read(name)

    def write_state(self, name: str, value: ir.Value) -> None:
        """Set a field of the state there."""
        super().write(name, value)

    def present(self) -> Known:
        """What is known now."""
        known = self.known
        bits = {name: register.known for name, register in self._bits.items()}
        return Known(known.done, dict(known.values), bits, set(known.ones))

    def known_in_loop(self) -> Known:
        """What is known where control comes from two sides in the loop, of which this is one.

        All registers that the loop uses have their values in their places then, also if control comes from
        elsewhere in the function. The state does not have these values.
        """
        bits = {name: register.join_in_loop() for name, register in self._bits.items()}
        return Known(0, self._in_loop, bits)

    def resume(self, known: Known) -> None:
        """Go on with what was known."""
        self.known = Known(known.done, dict(known.values), {}, set(known.ones))
        for name, register in self._bits.items():
            register.known = known.bits.get(name, register.nothing)

    def _store(self, key: _Key, value: ir.Value) -> None:
        self.b.store(value, self._home(key)).align = 8

    # What programs do with registers

    def read_register(self, file: RegisterFile, number: ir.Value, width: int) -> ir.Value:
        """The value of a register of a file; its number is known."""
        whole = self._value((file.name, int(number.constant)))
        return whole if width == file.width else self.b.trunc(whole, ir.IntType(width))

    def set_register(self, file: RegisterFile, number: ir.Value, value: ir.Value) -> None:
        """Set a register of a file; its number is known."""
        self._set((file.name, int(number.constant)), value)

    def _set(self, key: _Key, value: ir.Value) -> None:
        self._know(key, value)
        if not self.is_in_loop:
            self._store(key, value)

    def read(self, name: str, width: int = 64) -> ir.Value:
        """A field of the state."""
        if (name, None) not in self._keys:
            return super().read(name, width)
        whole = self._value((name, None))
        return whole if width == I64.width else self.b.trunc(whole, ir.IntType(width))

    def write(self, name: str, value: ir.Value) -> None:
        """Set a field of the state, zero-extended to its 64 bits."""
        if (name, None) not in self._keys:
            super().write(name, value)
        else:
            self._set((name, None), value if value.type == I64 else self.b.zext(value, I64))

    def _when(self, guarded: When) -> None:
        """Do statements under a condition: what they load is known within it alone."""
        changed = list(_changed_in(self.site, guarded.body))
        assert not any(name in self._bits for name, _ in changed), "CR or XER changes under a condition"
        # Each exit settles for itself. But beside a tight loop, what waits would take registers from it.
        if self.loop and not self.is_in_loop:
            self.settle()
        before = self.present()
        super()._when(guarded)
        self.resume(before)
        for key in changed:
            if key not in self._places:
                self.known.values.pop(key, None)

    @cached_property
    def changes_overflow(self) -> bool:
        """Whether the function changes XER's SO."""
        name, number = SUMMARY_OVERFLOW
        return bool(bit_registers.changed(self.sites.values(), name) >> number & 1)

    def summary_overflow(self) -> ir.Value:
        """XER's SO, 1 bit, which the function leaves alone."""
        name, number = SUMMARY_OVERFLOW
        return self.b.trunc(self.b.lshr(self.read_state(name), word(number)), I1)
