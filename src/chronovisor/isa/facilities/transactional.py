"""Transactional memory (Power ISA 3.0B Book II chapter 5)."""

from __future__ import annotations

from chronovisor.isa.facilities.rows import declare
from chronovisor.isa.facilities.unavailable import transactional

declare(
    transactional,
    """
    Book II 5.5 Transactional Memory Facility Instructions
      tbegin. R10                        X 31 654 Rc=1
      tend. A6                           X 31 686 Rc=1
      tcheck BF                          X 31 718
      tsr. L                             X 31 750 Rc=1
      tabortwc. TO,RA,RB                 X 31 782 Rc=1
      tabortdc. TO,RA,RB                 X 31 814 Rc=1
      tabortwci. TO,RA,SI5               X 31 846 Rc=1
      tabortdci. TO,RA,SI5               X 31 878 Rc=1
      tabort. RA                         X 31 910 Rc=1
    Book III 4.4.3 Transactional Memory Instructions
      treclaim. RA                       X 31 942 Rc=1
      trechkpt.                          X 31 1006 Rc=1
    """,
)
