"""Random programs of one page with loops, calls, faults and system calls: what regions are made of."""

from __future__ import annotations

from random import Random

DATA = 0x9_0000
#: Two pages of data, and an address outside memory.
_NOWHERE = 0x7FFF_0000

_OPERATIONS = (
    *("add", "subf", "and", "or", "xor", "nor", "eqv", "mullw", "mulld", "mulhdu", "divwu", "divd"),
    *("slw", "srd", "sraw", "srad", "add.", "subf.", "and.", "addc", "adde", "subfe", "addo.", "modud"),
)
_UNARY = ("neg", "extsb", "extsh", "extsw", "cntlzd", "cnttzw", "popcntd", "extsw.", "addme", "subfze")
_WORKING = range(3, 16)
_COUNTERS = {"outer": 28, "inner": 29}
#: What the blocks of a tangle count: the parts of a program by which it comes from one loop into another.
_COUNTS = (6, 7)


class _Draw:
    """A program in the making; every label has a number of its own."""

    def __init__(self, draw: Random) -> None:
        self.draw = draw
        self.lines: list[str] = []
        self._labels = 0

    def label(self) -> str:
        self._labels += 1
        return f"l{self._labels}"

    def register(self) -> str:
        return f"r{self.draw.choice(_WORKING)}"

    def place(self, size: int) -> str:
        """An operand in memory, sometimes across the middle between two pages, rarely nowhere."""
        draw = self.draw
        base = "r20" if draw.random() < 0.9 else "r21"
        if draw.random() < 0.8:
            return f"{draw.randrange(0, 256) * size}({base})"
        return f"{draw.randrange(4080, 4100) & -4}({base})"

    def simple(self) -> str:
        """An instruction that goes on with the next one, or faults."""
        draw, r = self.draw, self.register
        return draw.choice(
            (
                lambda: f"{draw.choice(_OPERATIONS)} {r()},{r()},{r()}",
                lambda: f"{draw.choice(_OPERATIONS)} {r()},{r()},{r()}",
                lambda: f"{draw.choice(_UNARY)} {r()},{r()}",
                lambda: f"addi {r()},{r()},{draw.randrange(-300, 300)}",
                lambda: f"addis {r()},0,{draw.randrange(-300, 300)}",
                lambda: f"addic. {r()},{r()},{draw.randrange(-300, 300)}",
                lambda: f"andi. {r()},{r()},{draw.randrange(1 << 16)}",
                lambda: f"rlwinm {r()},{r()},{draw.randrange(32)},{draw.randrange(32)},{draw.randrange(32)}",
                lambda: f"rldicl. {r()},{r()},{draw.randrange(64)},{draw.randrange(64)}",
                lambda: f"cmp {draw.randrange(8)},{draw.randrange(2)},{r()},{r()}",
                lambda: f"cmpli {draw.randrange(8)},{draw.randrange(2)},{r()},{draw.randrange(9)}",
                lambda: f"cror {draw.randrange(32)},{draw.randrange(32)},{draw.randrange(32)}",
                lambda: f"isel {r()},{r()},{r()},{draw.randrange(32)}",
                lambda: f"mfcr {r()}",
                lambda: f"mtcrf {draw.randrange(256)},{r()}",
                lambda: f"mfspr {r()},XER",
                lambda: f"mtspr XER,{r()}",
                lambda: f"mfspr {r()},CTR",
                lambda: f"ld {r()},{self.place(8)}",
                lambda: f"lwz {r()},{self.place(4)}",
                lambda: f"lha {r()},{self.place(2)}",
                lambda: f"std {r()},{self.place(8)}",
                lambda: f"stw {r()},{self.place(4)}",
                lambda: f"stb {r()},{self.place(1)}",
                lambda: f"lwzu {r()},{draw.randrange(-2, 3) * 4}(r22)",
                lambda: f"stwu {r()},{draw.randrange(-2, 3) * 4}(r23)",
                lambda: f"andi. r25,{r()},4088; add r25,r25,r20; ld {r()},0(r25); std {r()},8(r25)",
                lambda: f"andi. r25,{r()},248; lwzx {r()},r20,r25; addi r25,r25,4; stwx {r()},r25,r20",
                lambda: f"lmw r{draw.randrange(26, 28)},{draw.randrange(64) * 4}(r20); li r28,3; li r29,2",
                lambda: "ldarx r4,0,r24; addi r4,r4,1; stdcx. r4,0,r24",
                lambda: f"tw 4,{r()},{r()}",
                lambda: "lfd f1,8(r20); fadd f2,f2,f1; fmul f3,f2,f1; stfd f3,16(r20)",
                lambda: "lvx v3,0,r20; vaddubm v4,v4,v3; stvx v4,0,r24",
                lambda: "sync 1",
                lambda: "isync",
                lambda: "sc",
                lambda: "mftb r5",
            )
        )()

    def some(self, most: int) -> None:
        """Several simple ones, with jumps over some of them."""
        count = self.draw.randrange(1, most)
        while count > 0:
            if self.draw.random() < 0.2:
                over = self.label()
                option, bit = self.draw.choice((4, 12)), self.draw.randrange(32)
                self.lines.append(f"bc {option},{bit},{over}")
                self.lines += [self.simple() for _ in range(self.draw.randrange(1, 4))]
                self.lines.append(f"{over}: ori r0,r0,0")
            else:
                self.lines.append(self.simple())
            count -= 1

    def loop(self, kind: str, most: int, calls: list[str]) -> None:
        """A loop that counts down a register, and calls functions."""
        counter, begin = f"r{_COUNTERS[kind]}", self.label()
        self.lines.append(f"li {counter},{self.draw.randrange(2, 6)}")
        self.lines.append(f"{begin}: ori r0,r0,0")
        self.some(most)
        for call in calls:
            if self.draw.random() < 0.6:
                self.lines.append(f"bl {call}")
        if kind == "outer" and self.draw.random() < 0.7:
            self.loop("inner", 6, calls)
            self.some(3)
        self.lines += [f"addic {counter},{counter},-1", f"cmpi 7,0,{counter},0", f"bc 12,29,{begin}"]

    def tangle(self, count: int) -> None:
        """Pieces that jump, call and return anywhere: into the middle of loops too, and behind any call.

        LR always has the address of one of them, so that a return stays among them.
        """
        places = [self.label() for _ in range(5 * count)]
        self.lines.append(f"bl {places[0]}")
        for first in range(0, len(places), 5):
            if self.draw.random() < 0.5:
                self._knot(*places[first : first + 5], places)
            else:
                for place in places[first : first + 5]:
                    self.lines += [f"{place}: ori r0,r0,0", *self._few(), self._turn(places)]
        self.lines.append(f"b {places[0]}")

    def _few(self) -> list[str]:
        return [self.simple() for _ in range(self.draw.choice((0, 0, 1, 2)))]

    def _counted(self) -> str:
        """Set CR0 by the low bits of a counter, which goes on."""
        draw, counter = self.draw, f"r{self.draw.choice(_COUNTS)}"
        return f"addi {counter},{counter},1; andi. r5,{counter},{draw.choice((1, 2, 3, 4, 7))}"

    def _turn(self, places: list[str]) -> str:
        """An end of a piece: control goes on with the next one, or somewhere."""
        draw, to = self.draw, self.draw.choice(places)
        if_counted = f"{self._counted()}; bc {draw.choice((4, 12))},2,"
        return draw.choice(
            (
                f"bc 16,0,{to}",
                f"{if_counted}{to}",
                f"{if_counted}{to}; b {draw.choice(places)}",
                f"bc {draw.choice((4, 12))},{draw.randrange(32)},{to}",
                f"li r5,{draw.randrange(1, 9)}; mtspr CTR,r5",
                f"bl {to}",
                f"{self._counted()}; bclr {draw.choice((4, 12))},2,0",
            )
        )

    def _knot(self, call: str, back: str, head: str, middle: str, behind: str, places: list[str]) -> None:
        """A call of a loop, which returns to a place that leads into the loop's middle."""
        draw = self.draw
        again = draw.choice(("bc 16,0,", f"{self._counted()}; bc {draw.choice((4, 12))},2,"))
        self.lines += [f"{call}: bl {head}"]
        self.lines += [f"{back}: ori r0,r0,0", *self._few(), f"b {middle}"]
        self.lines += [f"{head}: {self._counted()}", *self._few(), f"bc {draw.choice((4, 12))},2,{middle}"]
        self.lines += [*self._few(), draw.choice(("bclr 20,0,0", f"{self._counted()}; bclr 12,2,0"))]
        self.lines += [f"{middle}: ori r0,r0,0", *self._few(), again + head]
        self.lines += [f"{behind}: li r5,{draw.randrange(1, 9)}", "mtspr CTR,r5", self._turn(places)]

    def function(self, name: str) -> None:
        """A leaf function."""
        self.lines.append(f"{name}: ori r0,r0,0")
        self.some(5)
        self.lines.append("bclr 20,0,0")


def program(draw: Random) -> str:
    """A program that ends in a call of the hypervisor."""
    made = _Draw(draw)
    calls = ["first", "second"][: draw.randrange(3)]
    for _ in range(draw.randrange(1, 3)):
        made.loop("outer", 10, calls)
    made.lines.append("sc 1")
    for name in calls:
        made.function(name)
    return "; ".join(made.lines)


def tangle(draw: Random) -> str:
    """A program that has no form and need not end."""
    made = _Draw(draw)
    made.tangle(draw.randrange(1, 4))
    return "; ".join(made.lines)


def carries(draw: Random) -> str:
    """A tight loop of additions that carry, and some shifts; nothing else sets XER in it."""
    operations = ("addc", "subfc", "adde", "subfe", "addme", "addze", "subfme", "subfze", "addic", "subfic")

    def one() -> str:
        name, (to, a, b) = draw.choice(operations), draw.choices(_WORKING, k=3)
        if draw.random() < 0.1:
            return f"sldi r{to},r{a},{draw.randrange(1, 5)}"
        if name.endswith("ic"):
            return f"{name} r{to},r{a},{draw.randrange(-300, 300)}"
        return f"{name} r{to},r{a}" if name[-3:-1] in ("fm", "fz", "dm", "dz") else f"{name} r{to},r{a},r{b}"

    # Numbers of about 32 bits: carries out of them are seen in CA32.
    rounds = [f"rldicl r{n},r{n},0,{draw.randrange(30, 34)}" for n in _WORKING if draw.random() < 0.7]
    rounds += [f"li r28,{draw.randrange(100, 400)}", "mtspr CTR,r28", "loop: ori r0,r0,0"]
    rounds += [one() for _ in range(draw.randrange(1, 7))]
    return "; ".join(
        [*rounds, f"ld r3,{8 * draw.randrange(99)}(r20)", "bc 16,0,loop", "mfspr r27,XER", "sc 1"]
    )


def comparisons(draw: Random) -> str:
    """A tight loop of comparisons of several kinds, and of jumps by what they find."""
    made = _Draw(draw)

    def one() -> str:
        field, wide, r = draw.choice((0, 0, 1, 6)), draw.randrange(2), made.register
        return draw.choice(
            (
                f"cmp {field},{wide},{r()},{r()}",
                f"cmpl {field},{wide},{r()},{r()}",
                f"cmpl {field},{wide},{r()},{r()}",
                f"cmpi {field},{wide},{r()},{draw.randrange(-3, 4)}",
                f"cmpli {field},{wide},{r()},{draw.randrange(4)}",
                f"subf. {r()},{r()},{r()}",
                f"mulld {r()},{r()},{r()}",
            )
        )

    made.lines += [f"li r28,{draw.randrange(100, 400)}", "mtspr CTR,r28", "loop: ori r0,r0,0"]
    for _ in range(draw.randrange(1, 6)):
        made.lines.append(one())
        if draw.random() < 0.5:
            over = made.label()
            made.lines += [f"bc {draw.choice((4, 12))},{draw.randrange(4)},{over}", one(), f"{over}: {one()}"]
    return "; ".join([*made.lines, "bc 16,0,loop", "mfcr r26", "sc 1"])


class _Strips(_Draw):
    """A program of straight tight loops in the making."""

    def _walk(self) -> str:
        """An access behind the one of the round before."""
        draw, pointer = self.draw, self.draw.choice(("r22", "r23"))
        step = draw.choice((1, 2, 4, 8, 16, 24, 32, 64, 100, 256, 300)) * draw.choice((1, -1))
        name = draw.choice(("lbz", "lhz", "lwz", "stb", "sth", "stw", "ld", "std"))
        if draw.random() < 0.3:
            wide = name in ("ld", "std")
            return f"{name}u {self.register()},{step & -4 if wide else step}({pointer})"
        many = [f"{name} {self.register()},{8 * draw.randrange(-4, 5)}({pointer})" for _ in range(2)]
        further = f"addi {pointer},{pointer},{step}"
        if draw.random() < 0.4:
            further = f"andi. r5,{self.register()},{draw.choice((7, 63))}; add {pointer},{pointer},r5"
        return f"{'; '.join(many[: draw.randrange(1, 3)])}; {further}"

    def _indexed(self, low: int, shift: int) -> str:
        """An access by an index, of which only low bits count."""
        draw = self.draw
        name = draw.choice(("lbzx", "lwzx", "ldx", "stbx", "stwx", "stdx"))
        index = f"rldic r25,r14,{shift},{64 - low - shift}; addi r14,r14,{self.by}"
        return f"{index}; {name} {self.register()},r25,r26"

    def _other(self) -> str:
        draw, r = self.draw, self.register
        return draw.choice(
            (
                f"{draw.choice(_OPERATIONS)} {r()},{r()},{r()}",
                f"andi. r5,{r()},{draw.choice((15, 63, 255))}; bc 12,2,",
                f"tw 4,{r()},{r()}",
                f"addc {r()},{r()},{r()}; addze {r()},{r()}",
            )
        )

    def straight_loop(self) -> None:
        """A loop of accesses that go over ends of pages, and that a condition may end."""
        draw, begin, out = self.draw, self.label(), self.label()
        low, shift, self.by = draw.choice((6, 8, 11)), draw.randrange(4), draw.choice((1, 1, 2, 5, -1))
        # The index begins near the end of its low bits, on that side to which it goes. The other end is in
        # another page.
        self.lines += [f"li r14,{draw.randrange(100) * (-1 if self.by > 0 else 1)}"]
        self.lines += [f"rldic r25,r14,{shift},{64 - low - shift}; addi r26,r20,4096; subf r26,r25,r26"]
        self.lines += [f"addi r{n},r20,{0x1000 + draw.randrange(-512, 512)}" for n in (22, 23)]
        self.lines += [f"li r28,{draw.randrange(1, 120)}", "mtspr CTR,r28", f"{begin}: ori r0,r0,0"]
        for _ in range(draw.randrange(1, 5)):
            one = draw.choice((self._walk, self._walk, lambda: self._indexed(low, shift), self._other))()
            self.lines.append(one + out if one.endswith(",") else one)
        self.lines += [f"bc 16,0,{begin}", f"{out}: addi r27,r27,1"]


def strips(draw: Random) -> str:
    """Straight tight loops, some in loops around them."""
    made = _Strips(draw)
    for _ in range(draw.randrange(1, 3)):
        outer = made.label()
        made.lines += ["li r29,4", f"{outer}: ori r0,r0,0"]
        for _ in range(draw.randrange(1, 3)):
            made.straight_loop()
        made.lines += ["addic r29,r29,-1", "cmpi 7,0,r29,0", f"bc 12,29,{outer}"]
    return "; ".join([*made.lines, "sc 1"])


def start(draw: Random) -> dict[str, int]:
    """The registers at the beginning."""
    values = {
        f"r{n}": draw.choice((draw.getrandbits(64), draw.getrandbits(8), -1 & (1 << 64) - 1))
        for n in _WORKING
    }
    return {
        **values,
        "r20": DATA,
        "r21": _NOWHERE,
        "r22": DATA + 0x800,
        "r23": DATA + 0xC00,
        "r24": DATA + 0x100,
    }
