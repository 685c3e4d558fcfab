"""Decimal floating-point instructions (Power ISA 3.0B Book I chapter 5)."""

from __future__ import annotations

from chronovisor.isa.facilities.rows import declare
from chronovisor.isa.facilities.unavailable import floating_point

declare(
    floating_point,
    """
    Book I 5.6.1 DFP Arithmetic Instructions
      dadd[.] FRT,FRA,FRB                X 59 2
      dmul[.] FRT,FRA,FRB                X 59 34
      dsub[.] FRT,FRA,FRB                X 59 514
      ddiv[.] FRT,FRA,FRB                X 59 546
      daddq[.] FRT,FRA,FRB               X 63 2
      dmulq[.] FRT,FRA,FRB               X 63 34
      dsubq[.] FRT,FRA,FRB               X 63 514
      ddivq[.] FRT,FRA,FRB               X 63 546
    Book I 5.6.2 DFP Compare Instructions
      dcmpo BF,FRA,FRB                   X 59 130
      dcmpu BF,FRA,FRB                   X 59 642
      dcmpoq BF,FRA,FRB                  X 63 130
      dcmpuq BF,FRA,FRB                  X 63 642
    Book I 5.6.3 DFP Test Instructions
      dtstex BF,FRA,FRB                  X 59 162
      dtstdc BF,FRA,DCM                  Z22 59 194
      dtstdg BF,FRA,DGM                  Z22 59 226
      dtstsf BF,FRA,FRB                  X 59 674
      dtstsfi BF,UIM6,FRB                X 59 675
      dtstexq BF,FRA,FRB                 X 63 162
      dtstdcq BF,FRA,DCM                 Z22 63 194
      dtstdgq BF,FRA,DGM                 Z22 63 226
      dtstsfq BF,FRA,FRB                 X 63 674
      dtstsfiq BF,UIM6,FRB               X 63 675
    Book I 5.6.4 DFP Quantum Adjustment Instructions
      dqua[.] FRT,FRA,FRB,RMC            Z23 59 3
      drrnd[.] FRT,FRA,FRB,RMC           Z23 59 35
      dquai[.] TE,FRT,FRB,RMC            Z23 59 67
      drintx[.] R,FRT,FRB,RMC            Z23 59 99
      drintn[.] R,FRT,FRB,RMC            Z23 59 227
      dquaq[.] FRT,FRA,FRB,RMC           Z23 63 3
      drrndq[.] FRT,FRA,FRB,RMC          Z23 63 35
      dquaiq[.] TE,FRT,FRB,RMC           Z23 63 67
      drintxq[.] R,FRT,FRB,RMC           Z23 63 99
      drintnq[.] R,FRT,FRB,RMC           Z23 63 227
    Book I 5.6.5.1 DFP Data-Format Conversion Instructions
      dctdp[.] FRT,FRB                   X 59 258
      drsp[.] FRT,FRB                    X 59 770
      dctqpq[.] FRT,FRB                  X 63 258
      drdpq[.] FRT,FRB                   X 63 770
    Book I 5.6.5.2 DFP Data-Type Conversion Instructions
      dctfix[.] FRT,FRB                  X 59 290
      dcffix[.] FRT,FRB                  X 59 802
      dctfixq[.] FRT,FRB                 X 63 290
      dcffixq[.] FRT,FRB                 X 63 802
    Book I 5.6.6 DFP Format Instructions
      dscli[.] FRT,FRA,SH16              Z22 59 66
      dscri[.] FRT,FRA,SH16              Z22 59 98
      ddedpd[.] SP,FRT,FRB               X 59 322
      dxex[.] FRT,FRB                    X 59 354
      denbcd[.] S,FRT,FRB                X 59 834
      diex[.] FRT,FRA,FRB                X 59 866
      dscliq[.] FRT,FRA,SH16             Z22 63 66
      dscriq[.] FRT,FRA,SH16             Z22 63 98
      ddedpdq[.] SP,FRT,FRB              X 63 322
      dxexq[.] FRT,FRB                   X 63 354
      denbcdq[.] S,FRT,FRB               X 63 834
      diexq[.] FRT,FRA,FRB               X 63 866
    """,
)
