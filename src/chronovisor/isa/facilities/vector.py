"""Vector instructions (Power ISA 3.0B Book I chapter 6)."""

from __future__ import annotations

from chronovisor.isa.facilities.rows import declare
from chronovisor.isa.facilities.unavailable import vector

declare(
    vector,
    """
    Book I 6.7.2 Vector Load Instructions
      lvebx VRT,RA,RB                    X 31 7
      lvehx VRT,RA,RB                    X 31 39
      lvewx VRT,RA,RB                    X 31 71
      lvx VRT,RA,RB                      X 31 103
      lvxl VRT,RA,RB                     X 31 359
    Book I 6.7.3 Vector Store Instructions
      stvebx VRS,RA,RB                   X 31 135
      stvehx VRS,RA,RB                   X 31 167
      stvewx VRS,RA,RB                   X 31 199
      stvx VRS,RA,RB                     X 31 231
      stvxl VRS,RA,RB                    X 31 487
    Book I 6.7.4 Vector Alignment Support Instructions
      lvsl VRT,RA,RB                     X 31 6
      lvsr VRT,RA,RB                     X 31 38
    Book I 6.8.1 Vector Pack and Unpack Instructions
      vpkuhum VRT,VRA,VRB                VX 4 14
      vpkuwum VRT,VRA,VRB                VX 4 78
      vpkuhus VRT,VRA,VRB                VX 4 142
      vpkuwus VRT,VRA,VRB                VX 4 206
      vpkshus VRT,VRA,VRB                VX 4 270
      vpkswus VRT,VRA,VRB                VX 4 334
      vpkshss VRT,VRA,VRB                VX 4 398
      vpkswss VRT,VRA,VRB                VX 4 462
      vupkhsb VRT,VRB                    VX 4 526
      vupkhsh VRT,VRB                    VX 4 590
      vupklsb VRT,VRB                    VX 4 654
      vupklsh VRT,VRB                    VX 4 718
      vpkpx VRT,VRA,VRB                  VX 4 782
      vupkhpx VRT,VRB                    VX 4 846
      vupklpx VRT,VRB                    VX 4 974
      vpkudum VRT,VRA,VRB                VX 4 1102
      vpkudus VRT,VRA,VRB                VX 4 1230
      vpksdus VRT,VRA,VRB                VX 4 1358
      vpksdss VRT,VRA,VRB                VX 4 1486
      vupkhsw VRT,VRB                    VX 4 1614
      vupklsw VRT,VRB                    VX 4 1742
    Book I 6.8.2 Vector Merge Instructions
      vmrghb VRT,VRA,VRB                 VX 4 12
      vmrghh VRT,VRA,VRB                 VX 4 76
      vmrghw VRT,VRA,VRB                 VX 4 140
      vmrglb VRT,VRA,VRB                 VX 4 268
      vmrglh VRT,VRA,VRB                 VX 4 332
      vmrglw VRT,VRA,VRB                 VX 4 396
      vmrgow VRT,VRA,VRB                 VX 4 1676
      vmrgew VRT,VRA,VRB                 VX 4 1932
    Book I 6.8.3 Vector Splat Instructions
      vspltb VRT,VRB,UIM4                VX 4 524
      vsplth VRT,VRB,UIM3                VX 4 588
      vspltw VRT,VRB,UIM2                VX 4 652
      vspltisb VRT,SIM                   VX 4 780
      vspltish VRT,SIM                   VX 4 844
      vspltisw VRT,SIM                   VX 4 908
    Book I 6.8.4 Vector Permute Instruction
      vperm VRT,VRA,VRB,VRC              VA 4 43
      vpermr VRT,VRA,VRB,VRC             VA 4 59
    Book I 6.8.5 Vector Select Instruction
      vsel VRT,VRA,VRB,VRC               VA 4 42
    Book I 6.8.6 Vector Shift Instructions
      vsldoi VRT,VRA,VRB,SHB             VA 4 44
      vsl VRT,VRA,VRB                    VX 4 452
      vsr VRT,VRA,VRB                    VX 4 708
      vslo VRT,VRA,VRB                   VX 4 1036
      vsro VRT,VRA,VRB                   VX 4 1100
      vsrv VRT,VRA,VRB                   VX 4 1796
      vslv VRT,VRA,VRB                   VX 4 1860
    Book I 6.8.7 Vector Extract Element Instructions
      vextractub VRT,VRB,UIM4            VX 4 525
      vextractuh VRT,VRB,UIM4            VX 4 589
      vextractuw VRT,VRB,UIM4            VX 4 653
      vextractd VRT,VRB,UIM4             VX 4 717
    Book I 6.8.8 Vector Insert Element Instructions
      vinsertb VRT,VRB,UIM4              VX 4 781
      vinserth VRT,VRB,UIM4              VX 4 845
      vinsertw VRT,VRB,UIM4              VX 4 909
      vinsertd VRT,VRB,UIM4              VX 4 973
    Book I 6.9 Vector Integer Instructions
      vaddubm VRT,VRA,VRB                VX 4 0
      vmaxub VRT,VRA,VRB                 VX 4 2
      vrlb VRT,VRA,VRB                   VX 4 4
      vcmpequb[.] VRT,VRA,VRB            VC 4 6
      vcmpneb[.] VRT,VRA,VRB             VC 4 7
      vmuloub VRT,VRA,VRB                VX 4 8
      vmhaddshs VRT,VRA,VRB,VRC          VA 4 32
      vmhraddshs VRT,VRA,VRB,VRC         VA 4 33
      vmladduhm VRT,VRA,VRB,VRC          VA 4 34
      vmsumudm VRT,VRA,VRB,VRC           VA 4 35
      vmsumubm VRT,VRA,VRB,VRC           VA 4 36
      vmsummbm VRT,VRA,VRB,VRC           VA 4 37
      vmsumuhm VRT,VRA,VRB,VRC           VA 4 38
      vmsumuhs VRT,VRA,VRB,VRC           VA 4 39
      vmsumshm VRT,VRA,VRB,VRC           VA 4 40
      vmsumshs VRT,VRA,VRB,VRC           VA 4 41
      vaddeuqm VRT,VRA,VRB,VRC           VA 4 60
      vaddecuq VRT,VRA,VRB,VRC           VA 4 61
      vsubeuqm VRT,VRA,VRB,VRC           VA 4 62
      vsubecuq VRT,VRA,VRB,VRC           VA 4 63
      vadduhm VRT,VRA,VRB                VX 4 64
      vmaxuh VRT,VRA,VRB                 VX 4 66
      vrlh VRT,VRA,VRB                   VX 4 68
      vcmpequh[.] VRT,VRA,VRB            VC 4 70
      vcmpneh[.] VRT,VRA,VRB             VC 4 71
      vmulouh VRT,VRA,VRB                VX 4 72
      vadduwm VRT,VRA,VRB                VX 4 128
      vmaxuw VRT,VRA,VRB                 VX 4 130
      vrlw VRT,VRA,VRB                   VX 4 132
      vrlwmi VRT,VRA,VRB                 VX 4 133
      vcmpequw[.] VRT,VRA,VRB            VC 4 134
      vcmpnew[.] VRT,VRA,VRB             VC 4 135
      vmulouw VRT,VRA,VRB                VX 4 136
      vmuluwm VRT,VRA,VRB                VX 4 137
      vaddudm VRT,VRA,VRB                VX 4 192
      vmaxud VRT,VRA,VRB                 VX 4 194
      vrld VRT,VRA,VRB                   VX 4 196
      vrldmi VRT,VRA,VRB                 VX 4 197
      vcmpequd[.] VRT,VRA,VRB            VC 4 199
      vadduqm VRT,VRA,VRB                VX 4 256
      vmaxsb VRT,VRA,VRB                 VX 4 258
      vslb VRT,VRA,VRB                   VX 4 260
      vcmpnezb[.] VRT,VRA,VRB            VC 4 263
      vmulosb VRT,VRA,VRB                VX 4 264
      vaddcuq VRT,VRA,VRB                VX 4 320
      vmaxsh VRT,VRA,VRB                 VX 4 322
      vslh VRT,VRA,VRB                   VX 4 324
      vcmpnezh[.] VRT,VRA,VRB            VC 4 327
      vmulosh VRT,VRA,VRB                VX 4 328
      vaddcuw VRT,VRA,VRB                VX 4 384
      vmaxsw VRT,VRA,VRB                 VX 4 386
      vslw VRT,VRA,VRB                   VX 4 388
      vrlwnm VRT,VRA,VRB                 VX 4 389
      vcmpnezw[.] VRT,VRA,VRB            VC 4 391
      vmulosw VRT,VRA,VRB                VX 4 392
      vmaxsd VRT,VRA,VRB                 VX 4 450
      vrldnm VRT,VRA,VRB                 VX 4 453
      vaddubs VRT,VRA,VRB                VX 4 512
      vminub VRT,VRA,VRB                 VX 4 514
      vsrb VRT,VRA,VRB                   VX 4 516
      vcmpgtub[.] VRT,VRA,VRB            VC 4 518
      vmuleub VRT,VRA,VRB                VX 4 520
      vadduhs VRT,VRA,VRB                VX 4 576
      vminuh VRT,VRA,VRB                 VX 4 578
      vsrh VRT,VRA,VRB                   VX 4 580
      vcmpgtuh[.] VRT,VRA,VRB            VC 4 582
      vmuleuh VRT,VRA,VRB                VX 4 584
      vadduws VRT,VRA,VRB                VX 4 640
      vminuw VRT,VRA,VRB                 VX 4 642
      vsrw VRT,VRA,VRB                   VX 4 644
      vcmpgtuw[.] VRT,VRA,VRB            VC 4 646
      vmuleuw VRT,VRA,VRB                VX 4 648
      vminud VRT,VRA,VRB                 VX 4 706
      vcmpgtud[.] VRT,VRA,VRB            VC 4 711
      vaddsbs VRT,VRA,VRB                VX 4 768
      vminsb VRT,VRA,VRB                 VX 4 770
      vsrab VRT,VRA,VRB                  VX 4 772
      vcmpgtsb[.] VRT,VRA,VRB            VC 4 774
      vmulesb VRT,VRA,VRB                VX 4 776
      vaddshs VRT,VRA,VRB                VX 4 832
      vminsh VRT,VRA,VRB                 VX 4 834
      vsrah VRT,VRA,VRB                  VX 4 836
      vcmpgtsh[.] VRT,VRA,VRB            VC 4 838
      vmulesh VRT,VRA,VRB                VX 4 840
      vaddsws VRT,VRA,VRB                VX 4 896
      vminsw VRT,VRA,VRB                 VX 4 898
      vsraw VRT,VRA,VRB                  VX 4 900
      vcmpgtsw[.] VRT,VRA,VRB            VC 4 902
      vmulesw VRT,VRA,VRB                VX 4 904
      vminsd VRT,VRA,VRB                 VX 4 962
      vsrad VRT,VRA,VRB                  VX 4 964
      vcmpgtsd[.] VRT,VRA,VRB            VC 4 967
      vsububm VRT,VRA,VRB                VX 4 1024
      vavgub VRT,VRA,VRB                 VX 4 1026
      vabsdub VRT,VRA,VRB                VX 4 1027
      vand VRT,VRA,VRB                   VX 4 1028
      vsubuhm VRT,VRA,VRB                VX 4 1088
      vavguh VRT,VRA,VRB                 VX 4 1090
      vabsduh VRT,VRA,VRB                VX 4 1091
      vandc VRT,VRA,VRB                  VX 4 1092
      vsubuwm VRT,VRA,VRB                VX 4 1152
      vavguw VRT,VRA,VRB                 VX 4 1154
      vabsduw VRT,VRA,VRB                VX 4 1155
      vor VRT,VRA,VRB                    VX 4 1156
      vsubudm VRT,VRA,VRB                VX 4 1216
      vxor VRT,VRA,VRB                   VX 4 1220
      vsubuqm VRT,VRA,VRB                VX 4 1280
      vavgsb VRT,VRA,VRB                 VX 4 1282
      vnor VRT,VRA,VRB                   VX 4 1284
      vsubcuq VRT,VRA,VRB                VX 4 1344
      vavgsh VRT,VRA,VRB                 VX 4 1346
      vorc VRT,VRA,VRB                   VX 4 1348
      vsubcuw VRT,VRA,VRB                VX 4 1408
      vavgsw VRT,VRA,VRB                 VX 4 1410
      vnand VRT,VRA,VRB                  VX 4 1412
      vsld VRT,VRA,VRB                   VX 4 1476
      vsububs VRT,VRA,VRB                VX 4 1536
      vnegw VRT,VRB                      VX 4 1538 EO=6
      vnegd VRT,VRB                      VX 4 1538 EO=7
      vprtybw VRT,VRB                    VX 4 1538 EO=8
      vprtybd VRT,VRB                    VX 4 1538 EO=9
      vprtybq VRT,VRB                    VX 4 1538 EO=10
      vextsb2w VRT,VRB                   VX 4 1538 EO=16
      vextsh2w VRT,VRB                   VX 4 1538 EO=17
      vextsb2d VRT,VRB                   VX 4 1538 EO=24
      vextsh2d VRT,VRB                   VX 4 1538 EO=25
      vextsw2d VRT,VRB                   VX 4 1538 EO=26
      vsum4ubs VRT,VRA,VRB               VX 4 1544
      vsubuhs VRT,VRA,VRB                VX 4 1600
      vsum4shs VRT,VRA,VRB               VX 4 1608
      vsubuws VRT,VRA,VRB                VX 4 1664
      veqv VRT,VRA,VRB                   VX 4 1668
      vsum2sws VRT,VRA,VRB               VX 4 1672
      vsrd VRT,VRA,VRB                   VX 4 1732
      vsubsbs VRT,VRA,VRB                VX 4 1792
      vsum4sbs VRT,VRA,VRB               VX 4 1800
      vsubshs VRT,VRA,VRB                VX 4 1856
      vsubsws VRT,VRA,VRB                VX 4 1920
      vsumsws VRT,VRA,VRB                VX 4 1928
    Book I 6.10 Vector Floating-Point Instruction Set
      vaddfp VRT,VRA,VRB                 VX 4 10
      vmaddfp VRT,VRA,VRC,VRB            VA 4 46
      vnmsubfp VRT,VRA,VRC,VRB           VA 4 47
      vsubfp VRT,VRA,VRB                 VX 4 74
      vcmpeqfp[.] VRT,VRA,VRB            VC 4 198
      vrefp VRT,VRB                      VX 4 266
      vrsqrtefp VRT,VRB                  VX 4 330
      vexptefp VRT,VRB                   VX 4 394
      vcmpgefp[.] VRT,VRA,VRB            VC 4 454
      vlogefp VRT,VRB                    VX 4 458
      vrfin VRT,VRB                      VX 4 522
      vrfiz VRT,VRB                      VX 4 586
      vrfip VRT,VRB                      VX 4 650
      vcmpgtfp[.] VRT,VRA,VRB            VC 4 710
      vrfim VRT,VRB                      VX 4 714
      vcfux VRT,VRB,UIM5                 VX 4 778
      vcfsx VRT,VRB,UIM5                 VX 4 842
      vctuxs VRT,VRB,UIM5                VX 4 906
      vcmpbfp[.] VRT,VRA,VRB             VC 4 966
      vctsxs VRT,VRB,UIM5                VX 4 970
      vmaxfp VRT,VRA,VRB                 VX 4 1034
      vminfp VRT,VRA,VRB                 VX 4 1098
    Book I 6.11 Vector Exclusive-OR-based Instructions
      vpermxor VRT,VRA,VRB,VRC           VA 4 45
      vpmsumb VRT,VRA,VRB                VX 4 1032
      vpmsumh VRT,VRA,VRB                VX 4 1096
      vpmsumw VRT,VRA,VRB                VX 4 1160
      vpmsumd VRT,VRA,VRB                VX 4 1224
      vcipher VRT,VRA,VRB                VX 4 1288
      vcipherlast VRT,VRA,VRB            VX 4 1289
      vncipher VRT,VRA,VRB               VX 4 1352
      vncipherlast VRT,VRA,VRB           VX 4 1353
      vsbox VRT,VRA                      VX 4 1480
      vshasigmaw VRT,VRA,ST,SIX          VX 4 1666
      vshasigmad VRT,VRA,ST,SIX          VX 4 1730
    Book I 6.12 Vector Gather Instruction
      vgbbd VRT,VRB                      VX 4 1292
    Book I 6.13 Vector Count Leading Zeros Instructions
      vclzb VRT,VRB                      VX 4 1794
      vclzh VRT,VRB                      VX 4 1858
      vclzw VRT,VRB                      VX 4 1922
      vclzd VRT,VRB                      VX 4 1986
    Book I 6.14 Vector Count Trailing Zeros Instructions
      vclzlsbb RT,VRB                    VX 4 1538 EO=0
      vctzlsbb RT,VRB                    VX 4 1538 EO=1
      vctzb VRT,VRB                      VX 4 1538 EO=28
      vctzh VRT,VRB                      VX 4 1538 EO=29
      vctzw VRT,VRB                      VX 4 1538 EO=30
      vctzd VRT,VRB                      VX 4 1538 EO=31
      vextublx RT,RA,VRB                 VX 4 1549
      vextuhlx RT,RA,VRB                 VX 4 1613
      vextuwlx RT,RA,VRB                 VX 4 1677
      vextubrx RT,RA,VRB                 VX 4 1805
      vextuhrx RT,RA,VRB                 VX 4 1869
      vextuwrx RT,RA,VRB                 VX 4 1933
    Book I 6.15 Vector Population Count Instructions
      vpopcntb VRT,VRB                   VX 4 1795
      vpopcnth VRT,VRB                   VX 4 1859
      vpopcntw VRT,VRB                   VX 4 1923
      vpopcntd VRT,VRB                   VX 4 1987
    Book I 6.16 Vector Bit Permute Instruction
      vbpermq VRT,VRA,VRB                VX 4 1356
      vbpermd VRT,VRA,VRB                VX 4 1484
    Book I 6.17 Decimal Integer Instructions
      vmul10cuq VRT,VRA                  VX 4 1
      bcdadd. VRT,VRA,VRB,PS             VXP 4 1 BIT21=1
      vmul10ecuq VRT,VRA,VRB             VX 4 65
      bcdsub. VRT,VRA,VRB,PS             VXP 4 65 BIT21=1
      bcds. VRT,VRA,VRB,PS               VXP 4 193 BIT21=1
      bcdtrunc. VRT,VRA,VRB,PS           VXP 4 257 BIT21=1
      bcdcfsq. VRT,VRB,PS                VXP 4 385 BIT21=1 EO=2
      bcdctz. VRT,VRB,PS                 VXP 4 385 BIT21=1 EO=4
      bcdcfz. VRT,VRB,PS                 VXP 4 385 BIT21=1 EO=6
      bcdcfn. VRT,VRB,PS                 VXP 4 385 BIT21=1 EO=7
      bcdsetsgn. VRT,VRB,PS              VXP 4 385 BIT21=1 EO=31
      bcdsr. VRT,VRA,VRB,PS              VXP 4 449 BIT21=1
      vmul10uq VRT,VRA                   VX 4 513
      vmul10euq VRT,VRA,VRB              VX 4 577
      bcdcpsgn. VRT,VRA,VRB              VX 4 833
      bcdus. VRT,VRA,VRB                 VX 4 1153
      bcdutrunc. VRT,VRA,VRB             VX 4 1345
      bcdctsq. VRT,VRB                   VXP 4 385 BIT21=1 EO=0
      bcdctn. VRT,VRB                    VXP 4 385 BIT21=1 EO=5
    Book I 6.18 Vector Status and Control Register Instructions
      mfvscr VRT                         VX 4 1540
      mtvscr VRB                         VX 4 1604
    """,
)
