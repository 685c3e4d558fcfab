"""Extended mnemonics: other names for common uses of instructions (Power ISA 3.0B Book I appendix C).

A row reads `name operands = instruction operands`. A capital name stands for what is written there;
`[o]`, `[.]`, `[l]`, `[a]` are optional endings that the instruction gets too; `[BF,]` may be left out and
is then field 0. Several instructions are separated by `;`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import chain, product

from chronovisor.isa.registers import SPR_READ, SPR_WRITE

_TABLE = """
li RT,SI                    = addi RT,0,SI
lis RT,SI                   = addis RT,0,SI
subi RT,RA,SI               = addi RT,RA,-SI
subis RT,RA,SI              = addis RT,RA,-SI
subic RT,RA,SI              = addic RT,RA,-SI
subic. RT,RA,SI             = addic. RT,RA,-SI
sub[o][.] RT,RA,RB          = subf[o][.] RT,RB,RA
subc[o][.] RT,RA,RB         = subfc[o][.] RT,RB,RA
lnia RT                     = addpcis RT,0
li32 RT,N                   = lis RT,N@h ; ori RT,RT,N@l
li64 RT,N                   = lis RT,N@highest ; ori RT,RT,N@higher ; sldi RT,RT,32 ; \
oris RT,RT,N@h ; ori RT,RT,N@l

nop                         = ori 0,0,0
xnop                        = xori 0,0,0
mr[.] RA,RS                 = or[.] RA,RS,RS
not[.] RA,RS                = nor[.] RA,RS,RS

sldi[.] RA,RS,N             = rldicr[.] RA,RS,N,63-N
srdi[.] RA,RS,N             = rldicl[.] RA,RS,(64-N)&63,N
rotldi[.] RA,RS,N           = rldicl[.] RA,RS,N,0
rotrdi[.] RA,RS,N           = rldicl[.] RA,RS,(64-N)&63,0
rotld[.] RA,RS,RB           = rldcl[.] RA,RS,RB,0
clrldi[.] RA,RS,N           = rldicl[.] RA,RS,0,N
clrrdi[.] RA,RS,N           = rldicr[.] RA,RS,0,63-N
clrlsldi[.] RA,RS,B,N       = rldic[.] RA,RS,N,B-N
extldi[.] RA,RS,N,B         = rldicr[.] RA,RS,B,N-1
extrdi[.] RA,RS,N,B         = rldicl[.] RA,RS,(B+N)&63,64-N
insrdi[.] RA,RS,N,B         = rldimi[.] RA,RS,64-(B+N),B
slwi[.] RA,RS,N             = rlwinm[.] RA,RS,N,0,31-N
srwi[.] RA,RS,N             = rlwinm[.] RA,RS,(32-N)&31,N,31
rotlwi[.] RA,RS,N           = rlwinm[.] RA,RS,N,0,31
rotrwi[.] RA,RS,N           = rlwinm[.] RA,RS,(32-N)&31,0,31
rotlw[.] RA,RS,RB           = rlwnm[.] RA,RS,RB,0,31
clrlwi[.] RA,RS,N           = rlwinm[.] RA,RS,0,N,31
clrrwi[.] RA,RS,N           = rlwinm[.] RA,RS,0,0,31-N
clrlslwi[.] RA,RS,B,N       = rlwinm[.] RA,RS,N,B-N,31-N
extlwi[.] RA,RS,N,B         = rlwinm[.] RA,RS,B,0,N-1
extrwi[.] RA,RS,N,B         = rlwinm[.] RA,RS,(B+N)&31,32-N,31
inslwi[.] RA,RS,N,B         = rlwimi[.] RA,RS,(32-B)&31,B,B+N-1
insrwi[.] RA,RS,N,B         = rlwimi[.] RA,RS,32-(B+N),B,B+N-1

cmpd [BF,]RA,RB             = cmp BF,1,RA,RB
cmpw [BF,]RA,RB             = cmp BF,0,RA,RB
cmpld [BF,]RA,RB            = cmpl BF,1,RA,RB
cmplw [BF,]RA,RB            = cmpl BF,0,RA,RB
cmpdi [BF,]RA,SI            = cmpi BF,1,RA,SI
cmpwi [BF,]RA,SI            = cmpi BF,0,RA,SI
cmpldi [BF,]RA,UI           = cmpli BF,1,RA,UI
cmplwi [BF,]RA,UI           = cmpli BF,0,RA,UI

bt[l][a] BI,BD              = bc[l][a] 12,BI,BD
bf[l][a] BI,BD              = bc[l][a] 4,BI,BD
bdnz[l][a] BD               = bc[l][a] 16,0,BD
bdz[l][a] BD                = bc[l][a] 18,0,BD
bdnzt[l][a] BI,BD           = bc[l][a] 8,BI,BD
bdnzf[l][a] BI,BD           = bc[l][a] 0,BI,BD
bdzt[l][a] BI,BD            = bc[l][a] 10,BI,BD
bdzf[l][a] BI,BD            = bc[l][a] 2,BI,BD
bdnzlr[l]                   = bclr[l] 16,0,0
bdzlr[l]                    = bclr[l] 18,0,0
blr[l]                      = bclr[l] 20,0,0
bctr[l]                     = bcctr[l] 20,0,0

crset BT                    = creqv BT,BT,BT
crclr BT                    = crxor BT,BT,BT
crmove BT,BA                = cror BT,BA,BA
crnot BT,BA                 = crnor BT,BA,BA
mtcr RS                     = mtcrf 255,RS

trap                        = tw 31,0,0
hwsync                      = sync 0
lwsync                      = sync 1
ptesync                     = sync 2
"""

#: Condition in a mnemonic -> BO, bit of the condition register field.
_CONDITIONS = {
    "lt": (12, 0),
    "gt": (12, 1),
    "eq": (12, 2),
    "so": (12, 3),
    "un": (12, 3),
    "ge": (4, 0),
    "nl": (4, 0),
    "le": (4, 1),
    "ng": (4, 1),
    "ne": (4, 2),
    "ns": (4, 3),
    "nu": (4, 3),
}

#: Relation in a trap's mnemonic -> TO.
_TRAPS = {"lt": 16, "le": 20, "eq": 4, "ge": 12, "gt": 8, "ne": 24, "llt": 2, "lle": 6, "lge": 5, "lgt": 1}


def _generated() -> list[str]:
    """Rows that follow from tables: conditional branches, traps, moves from and to each SPR by name."""
    rows = []
    for name, (bo, bit) in _CONDITIONS.items():
        rows.append(f"b{name}[l][a] [BF,]BD = bc[l][a] {bo},4*BF+{bit},BD")
        rows.append(f"b{name}lr[l] [BF] = bclr[l] {bo},4*BF+{bit},0")
        rows.append(f"b{name}ctr[l] [BF] = bcctr[l] {bo},4*BF+{bit},0")
    for name, to in _TRAPS.items():
        for size in "wd":
            rows.append(f"t{size}{name} RA,RB = t{size} {to},RA,RB")
            rows.append(f"t{size}{name}i RA,SI = t{size}i {to},RA,SI")
    rows += (f"mf{register.name.lower()} RT = mfspr RT,{number}" for number, register in SPR_READ.items())
    rows += (f"mt{register.name.lower()} RS = mtspr {number},RS" for number, register in SPR_WRITE.items())
    return rows


@dataclass(frozen=True, slots=True)
class Expansion:
    """One extended mnemonic with its endings settled: what it takes, and what it stands for."""

    parameters: tuple[str, ...]
    lines: tuple[str, ...]

    def fill(self, operands: list[str]) -> list[str]:
        """The instructions' text for these operands, one to each of :attr:`parameters`."""
        given = {
            name: text if re.fullmatch(r"[\w.]+", text) else f"({text})"
            for name, text in zip(self.parameters, operands, strict=True)
        }
        return [_PARAMETER.sub(lambda found: given[found[0]], line) for line in self.lines]


_PARAMETER = re.compile(r"\b[A-Z]+\b")
_OPTION = re.compile(r"\[([ol.a])\]")
_LEFT_OUT = re.compile(r"\[([A-Z]+),?\]")


def with_endings(text: str) -> list[str]:
    """``text`` with each combination of its bracketed endings written out or left out."""
    options = list(dict.fromkeys(_OPTION.findall(text)))
    chosen = product((False, True), repeat=len(options))
    forms = [dict(zip(options, combination, strict=True)) for combination in chosen]

    def written(form: dict[str, bool]) -> str:
        return _OPTION.sub(lambda found: found[1] if form[found[1]] else "", text)

    return [written(form) for form in forms]


@cache
def extended_mnemonics() -> dict[tuple[str, int], Expansion]:
    """(mnemonic, number of operands) -> what it stands for."""
    table: dict[tuple[str, int], Expansion] = {}
    declared = (*filter(None, _TABLE.splitlines()), *_generated())
    for row in chain.from_iterable(map(with_endings, declared)):
        variants = [row]
        optional = _LEFT_OUT.search(row)
        if optional:
            without = row.replace(optional[0], "", 1)
            variants = [
                row.replace(optional[0], optional[0].strip("[]"), 1),
                re.sub(rf"\b{optional[1]}\b", "0", without),
            ]
        for variant in variants:
            head, _, body = variant.partition("=")
            name, _, operands = head.strip().partition(" ")
            parameters = tuple(_PARAMETER.findall(operands))
            key = name, len([part for part in operands.split(",") if part.strip()])
            if key in table:
                raise ValueError(f"two rows declare {name} with {key[1]} operands")
            table[key] = Expansion(parameters, tuple(line.strip() for line in body.split(";")))
    return table
