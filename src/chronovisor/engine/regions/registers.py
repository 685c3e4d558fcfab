"""The guest's registers in a region: LLVM values, which are loaded from the state at the region's entries.

What an instruction changes is stored in the state at once, so that leaving the region costs nothing. In a
tight loop it is stored when control leaves the loop.
"""

from __future__ import annotations

from collections.abc import Iterator

from llvmlite import ir

from chronovisor.engine.native.emitter import I64, Rows, word
from chronovisor.engine.native.layout import OFFSETS, file_field
from chronovisor.engine.native.lowering import Lowering, Mode
from chronovisor.engine.regions import bit_registers
from chronovisor.engine.regions.bit_registers import BitRegister
from chronovisor.engine.regions.code import Site
from chronovisor.engine.regions.discovery import Region
from chronovisor.engine.regions.tight_loops import Loop, tight_loops
from chronovisor.isa.registers import FILES, RegisterFile
from chronovisor.isa.values import Value

#: Addresses, which have no place of their own.
_ADDRESSES = ("CIA", "NIA")
#: The most bits of a register that have a place each.
_MOST_BITS = 32

#: A register: one of a file, by the file's name and its number, or one with a name of its own and None.
_Key = tuple[str, int | None]


def _changes(site: Site) -> Iterator[_Key]:
    """The registers that an instruction may change, but for addresses."""
    assert site.program is not None
    for s in site.program.statements():
        if s.op == "write_file":
            yield str(s.detail), _number(site, s)
        elif s.op == "set" and s.detail not in _ADDRESSES:
            yield str(s.detail), None


def _number(site: Site, s: Value) -> int:
    number = site.constant(s.args[0])
    assert number is not None, "a register whose number is not in the instruction"
    return number


def _read_files(site: Site) -> Iterator[_Key]:
    assert site.program is not None
    return ((str(s.detail), _number(site, s)) for s in site.program.statements() if s.op == "read_file")


def _whole(v: Value) -> Value | None:
    """What is read or set as a whole by a statement that may be one about single bits."""
    while True:
        if bit_registers.is_read(v) or (v.op == "set" and v.detail in bit_registers.NAMES):
            return v
        if v.op not in ("lshr", "and", "or", "extract"):
            return None
        v = v.args[0]


class RegisterLowering(Lowering):
    """Programs on their way into a region, as far as registers are concerned."""

    #: The instruction in the making.
    site: Site

    def __init__(self, module: ir.Module, mode: Mode, rows: Rows, region: Region) -> None:
        super().__init__(module, "chronovisor_region", mode, rows)
        self.region = region
        b, sites = self.b, region.sites
        changed = dict.fromkeys(key for site in sites.values() for key in _changes(site))
        read = dict.fromkeys(key for site in sites.values() for key in _read_files(site))
        self._bits = dict(self._bit_registers())
        #: The place of each register that has one, of which LLVM makes a value.
        self._places: dict[_Key, ir.Value] = {
            key: b.alloca(self._type(key)) for key in changed | read if key[0] not in self._bits
        }
        self.loops = tight_loops(sites)
        self._late: dict[Loop, list[_Key]] = {
            loop: list(dict.fromkeys(key for offset in loop for key in _changes(sites[offset])))
            for loop in set(self.loops.values())
        }
        #: Values of registers kept bit by bit, which are made only if something needs them: the register, and
        #: its version then.
        self._deferred: dict[int, tuple[BitRegister, int]] = {}

    def _bit_registers(self) -> Iterator[tuple[str, BitRegister]]:
        """The registers that are kept bit by bit, by their names."""
        for name in bit_registers.NAMES:
            ones = bit_registers.changed(self.region.sites.values(), name)
            if ones.bit_count() <= _MOST_BITS:
                yield name, BitRegister(self.b, name, ones)

    @staticmethod
    def _type(key: _Key) -> ir.Type:
        name, number = key
        return I64 if number is None else ir.IntType(FILES[name].width)

    def _in_state(self, key: _Key) -> ir.Value:
        name, number = key
        if number is None:
            return self.field(name)
        file = FILES[name]
        return self.at(self.state, OFFSETS[file_field(file)] + (number * file.width // 8))

    # Between the state and the values

    def load_registers(self) -> None:
        """Make the registers in the state the region's. LLVM leaves out those that are not used then."""
        for key, place in self._places.items():
            loaded = self.b.load(self._in_state(key), typ=self._type(key))
            loaded.align = 8
            self.b.store(loaded, place)
        for name, register in self._bits.items():
            register.enter(super().read(name))

    @property
    def loop(self) -> Loop | None:
        """The tight loop of the instruction in the making."""
        return self.loops.get(self.site.offset)

    def store_registers(self, loop: Loop) -> None:
        """Store what the instructions of a tight loop change: control leaves the loop."""
        for key in self._late[loop]:
            register = self._bits.get(key[0])
            if register is None:
                self._store(key, self.b.load(self._places[key], typ=self._type(key)))
            else:
                register.settle()
                super().write(key[0], register.settled())

    def _store(self, key: _Key, value: ir.Value) -> None:
        self.b.store(value, self._in_state(key)).align = 8

    # What programs do with registers

    def register(self, file: RegisterFile, number: ir.Value) -> ir.Value:
        """The place of a register of a file; its number is known."""
        return self._places[file.name, int(number.constant)]

    def set_register(self, file: RegisterFile, number: ir.Value, value: ir.Value) -> None:
        """Set a register of a file; its number is known."""
        self.b.store(value, self.register(file, number))
        if self.loop is None:
            self._store((file.name, int(number.constant)), value)

    def read(self, name: str, width: int = 64) -> ir.Value:
        """A field of the state."""
        place = self._places.get((name, None))
        if place is None:
            return super().read(name, width)
        whole = self.b.load(place, typ=I64)
        return whole if width == I64.width else self.b.trunc(whole, ir.IntType(width))

    def write(self, name: str, value: ir.Value) -> None:
        """Set a field of the state, zero-extended to its 64 bits."""
        wide = value if value.type == I64 else self.b.zext(value, I64)
        place = self._places.get((name, None))
        if place is not None:
            self.b.store(wide, place)
        if place is None or self.loop is None:
            super().write(name, wide)

    def statement(self, v: Value) -> None:
        """Do one statement; a value that the instruction determines is a constant."""
        if self.is_hosted(v):
            return
        known = None if self.lanes else self.site.constant(v)
        if known is not None:
            self.values[id(v)] = ir.Constant(ir.IntType(v.width), known)
        elif self.lanes or not self._bit_statement(v):
            self.by_operation(v)

    def value(self, value: Value) -> ir.Value:
        """The LLVM value of a traced one."""
        deferred = self._deferred.pop(id(value), None)
        if deferred is not None:
            register, version = deferred
            assert version == register.version, "the register was written in between"
            if bit_registers.is_read(value):
                self.values[id(value)] = register.read(settled=self.loop is None)
            else:
                self.by_operation(value)
        return super().value(value)

    def _bit_statement(self, v: Value) -> bool:
        """Do a statement about a register that is kept bit by bit; False if that is not possible."""
        read = _whole(v)
        register = None if read is None else self._bits.get(str(read.detail))
        if register is None:
            return False
        if v.op == "set":
            self._set_bits(v, register)
            return True
        if v.op == "extract":
            shift = self._shift(v.args[0])
            if shift is None:
                return False
            assert isinstance(v.detail, int)
            self.values[id(v)] = register.part(shift + v.detail, v.width)
            return True
        if v.op in ("lshr", "and") and self.site.constant(v.args[1]) is None:
            return False
        if v.op == "or" and bit_registers.replaced(self.site, v) is None:
            return False
        self._deferred[id(v)] = register, register.version
        return True

    def _set_bits(self, v: Value, register: BitRegister) -> None:
        settle = self.loop is None
        found = bit_registers.replaced(self.site, v.args[0])
        if found is None or found[0] != v.detail:
            register.replace(register.all, self.value(v.args[0]), settle)
        else:
            register.replace(found[1], self.value(found[2]), settle, self._compared(found[2]))
        if settle:
            super().write(str(v.detail), register.settled())

    def _compared(self, v: Value) -> ir.Value | None:
        """A field of CR that a comparison sets, in its place: two moves, instead of bits put together."""
        low = self.site.constant(v.args[1]) if v.op == "shl" else None
        found = None if low is None else bit_registers.comparison(v.args[0])
        if low is None or found is None:
            return None
        b, (less, equal, overflow) = self.b, map(self.value, found)
        kind = b.select(less, word(8 << low), b.select(equal, word(2 << low), word(4 << low)))
        return b.or_(kind, b.shl(b.zext(overflow, I64), word(low)))

    def _shift(self, v: Value) -> int | None:
        """By how many bits a register that was read is shifted; None if the value is no such register."""
        if bit_registers.is_read(v):
            return 0
        is_shifted = v.op == "lshr" and bit_registers.is_read(v.args[0]) and id(v) in self._deferred
        return self.site.constant(v.args[1]) if is_shifted else None
