"""Floating-point instructions (Power ISA 3.0B Book I chapter 4)."""

from __future__ import annotations

from chronovisor.isa.facilities.rows import declare
from chronovisor.isa.facilities.unavailable import floating_point

declare(
    floating_point,
    """
    Book I 4.6.2 Floating-Point Load Instructions
      lfsx FRT,RA,RB                     X 31 535
      lfsux FRT,RA,RB                    X 31 567
      lfdx FRT,RA,RB                     X 31 599
      lfdux FRT,RA,RB                    X 31 631
      lfiwax FRT,RA,RB                   X 31 855
      lfiwzx FRT,RA,RB                   X 31 887
      lfs FRT,D(RA)                      D 48
      lfsu FRT,D(RA)                     D 49
      lfd FRT,D(RA)                      D 50
      lfdu FRT,D(RA)                     D 51
    Book I 4.6.3 Floating-Point Store Instructions
      stfsx FRS,RA,RB                    X 31 663
      stfsux FRS,RA,RB                   X 31 695
      stfdx FRS,RA,RB                    X 31 727
      stfdux FRS,RA,RB                   X 31 759
      stfiwx FRS,RA,RB                   X 31 983
      stfs FRS,D(RA)                     D 52
      stfsu FRS,D(RA)                    D 53
      stfd FRS,D(RA)                     D 54
      stfdu FRS,D(RA)                    D 55
    Book I 4.6.4 Floating-Point Load and Store Double Pair Instructions
      lfdpx FRTP,RA,RB                   X 31 791
      stfdpx FRSP,RA,RB                  X 31 919
      lfdp FRTP,DS(RA)                   DS 57 0
      stfdp FRSP,DS(RA)                  DS 61 0
    Book I 4.6.5 Floating-Point Move Instructions
      fcpsgn[.] FRT,FRA,FRB              X 63 8
      fneg[.] FRT,FRB                    X 63 40
      fmr[.] FRT,FRB                     X 63 72
      fnabs[.] FRT,FRB                   X 63 136
      fabs[.] FRT,FRB                    X 63 264
      fmrgow FRT,FRA,FRB                 X 63 838
      fmrgew FRT,FRA,FRB                 X 63 966
    Book I 4.6.6.1 Floating-Point Elementary Arithmetic Instructions
      fdivs[.] FRT,FRA,FRB               A 59 18
      fsubs[.] FRT,FRA,FRB               A 59 20
      fadds[.] FRT,FRA,FRB               A 59 21
      fsqrts[.] FRT,FRB                  A 59 22
      fres[.] FRT,FRB                    A 59 24
      fmuls[.] FRT,FRA,FRC               A 59 25
      frsqrtes[.] FRT,FRB                A 59 26
      fdiv[.] FRT,FRA,FRB                A 63 18
      fsub[.] FRT,FRA,FRB                A 63 20
      fadd[.] FRT,FRA,FRB                A 63 21
      fsqrt[.] FRT,FRB                   A 63 22
      fre[.] FRT,FRB                     A 63 24
      fmul[.] FRT,FRA,FRC                A 63 25
      frsqrte[.] FRT,FRB                 A 63 26
      ftdiv BF,FRA,FRB                   X 63 128
      ftsqrt BF,FRB                      X 63 160
    Book I 4.6.6.2 Floating-Point Multiply-Add Instructions
      fmsubs[.] FRT,FRA,FRC,FRB          A 59 28
      fmadds[.] FRT,FRA,FRC,FRB          A 59 29
      fnmsubs[.] FRT,FRA,FRC,FRB         A 59 30
      fnmadds[.] FRT,FRA,FRC,FRB         A 59 31
      fmsub[.] FRT,FRA,FRC,FRB           A 63 28
      fmadd[.] FRT,FRA,FRC,FRB           A 63 29
      fnmsub[.] FRT,FRA,FRC,FRB          A 63 30
      fnmadd[.] FRT,FRA,FRC,FRB          A 63 31
    Book I 4.6.7.1 Floating-Point Rounding Instruction
      frsp[.] FRT,FRB                    X 63 12
    Book I 4.6.7.2 Floating-Point Convert To/From Integer Instructions
      fcfids[.] FRT,FRB                  X 59 846
      fcfidus[.] FRT,FRB                 X 59 974
      fctiw[.] FRT,FRB                   X 63 14
      fctiwz[.] FRT,FRB                  X 63 15
      fctiwu[.] FRT,FRB                  X 63 142
      fctiwuz[.] FRT,FRB                 X 63 143
      fctid[.] FRT,FRB                   X 63 814
      fctidz[.] FRT,FRB                  X 63 815
      fcfid[.] FRT,FRB                   X 63 846
      fctidu[.] FRT,FRB                  X 63 942
      fctiduz[.] FRT,FRB                 X 63 943
      fcfidu[.] FRT,FRB                  X 63 974
    Book I 4.6.7.3 Floating-Point Round to Integer Instructions
      frin[.] FRT,FRB                    X 63 392
      friz[.] FRT,FRB                    X 63 424
      frip[.] FRT,FRB                    X 63 456
      frim[.] FRT,FRB                    X 63 488
    Book I 4.6.8 Floating-Point Compare Instructions
      fcmpu BF,FRA,FRB                   X 63 0
      fcmpo BF,FRA,FRB                   X 63 32
    Book I 4.6.9 Floating-Point Select Instruction
      fsel[.] FRT,FRA,FRC,FRB            A 63 23
    Book I 4.6.10 Floating-Point Status and Control Register Instructions
      mtfsb1[.] BTF                      X 63 38
      mcrfs BF,BFA                       X 63 64
      mtfsb0[.] BTF                      X 63 70
      mtfsfi[.] BF,U,W                   X 63 134
      mffs[.] FRT                        X 63 583 EO=0
      mffsce FRT                         X 63 583 EO=1
      mffscdrn FRT,FRB                   X 63 583 EO=20
      mffscdrni FRT,DRM                  X 63 583 EO=21
      mffscrn FRT,FRB                    X 63 583 EO=22
      mffscrni FRT,RM                    X 63 583 EO=23
      mffsl FRT                          X 63 583 EO=24
      mtfsf[.] FLM,FRB,L6,W              XFL 63 711
    """,
)
