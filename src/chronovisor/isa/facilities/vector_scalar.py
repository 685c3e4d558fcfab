"""Vector-scalar instructions (Power ISA 3.0B Book I chapter 7)."""

from __future__ import annotations

from chronovisor.isa.facilities.rows import declare
from chronovisor.isa.facilities.unavailable import (
    floating_point_or_vector,
    vector,
    vector_scalar,
    vector_scalar_or_vector,
)

declare(
    vector_scalar,
    """
    Book I 7.6.3 VSX Instruction Descriptions
      lxsiwzx XT,RA,RB                   XX1 31 12
      lxsiwax XT,RA,RB                   XX1 31 76
      stxsiwx XS,RA,RB                   XX1 31 140
      lxvdsx XT,RA,RB                    XX1 31 332
      lxsspx XT,RA,RB                    XX1 31 524
      lxsdx XT,RA,RB                     XX1 31 588
      stxsspx XS,RA,RB                   XX1 31 652
      stxsdx XS,RA,RB                    XX1 31 716
      lxvw4x XT,RA,RB                    XX1 31 780
      lxvd2x XT,RA,RB                    XX1 31 844
      stxvw4x XS,RA,RB                   XX1 31 908
      stxvd2x XS,RA,RB                   XX1 31 972
      xsaddsp XT,XA,XB                   XX3 60 0
      xsmaddasp XT,XA,XB                 XX3 60 1
      xxsldwi XT,XA,XB,SHW               XX3D 60 2 BIT21=0
      xscmpeqdp XT,XA,XB                 XX3 60 3
      xxsel XT,XA,XB,XC                  XX4 60 3
      xssubsp XT,XA,XB                   XX3 60 8
      xsmaddmsp XT,XA,XB                 XX3 60 9
      xsrsqrtesp XT,XB                   XX2 60 10
      xxpermdi XT,XA,XB,DM               XX3D 60 10 BIT21=0
      xssqrtsp XT,XB                     XX2 60 11
      xscmpgtdp XT,XA,XB                 XX3 60 11
      xvtstdcsp XT,XB,DCMX7              XX2D 60 13 XO28=5
      xvtstdcdp XT,XB,DCMX7              XX2D 60 15 XO28=5
      xsmulsp XT,XA,XB                   XX3 60 16
      xsmsubasp XT,XA,XB                 XX3 60 17
      xxmrghw XT,XA,XB                   XX3 60 18
      xscmpgedp XT,XA,XB                 XX3 60 19
      xsdivsp XT,XA,XB                   XX3 60 24
      xsmsubmsp XT,XA,XB                 XX3 60 25
      xsresp XT,XB                       XX2 60 26
      xxperm XT,XA,XB                    XX3 60 26
      xsadddp XT,XA,XB                   XX3 60 32
      xsmaddadp XT,XA,XB                 XX3 60 33
      xscmpudp BF,XA,XB                  XX3 60 35
      xssubdp XT,XA,XB                   XX3 60 40
      xsmaddmdp XT,XA,XB                 XX3 60 41
      xscmpodp BF,XA,XB                  XX3 60 43
      xsmuldp XT,XA,XB                   XX3 60 48
      xsmsubadp XT,XA,XB                 XX3 60 49
      xxmrglw XT,XA,XB                   XX3 60 50
      xsdivdp XT,XA,XB                   XX3 60 56
      xsmsubmdp XT,XA,XB                 XX3 60 57
      xxpermr XT,XA,XB                   XX3 60 58
      xscmpexpdp BF,XA,XB                XX3 60 59
      xstdivdp BF,XA,XB                  XX3 60 61
      xvaddsp XT,XA,XB                   XX3 60 64
      xvmaddasp XT,XA,XB                 XX3 60 65
      xvcmpeqsp[.] XT,XA,XB              XX3C 60 67
      xscvdpuxws XT,XB                   XX2 60 72
      xvsubsp XT,XA,XB                   XX3 60 72
      xsrdpi XT,XB                       XX2 60 73
      xvmaddmsp XT,XA,XB                 XX3 60 73
      xsrsqrtedp XT,XB                   XX2 60 74
      xssqrtdp XT,XB                     XX2 60 75
      xvcmpgtsp[.] XT,XA,XB              XX3C 60 75
      xvmulsp XT,XA,XB                   XX3 60 80
      xvmsubasp XT,XA,XB                 XX3 60 81
      xvcmpgesp[.] XT,XA,XB              XX3C 60 83
      xscvdpsxws XT,XB                   XX2 60 88
      xvdivsp XT,XA,XB                   XX3 60 88
      xsrdpiz XT,XB                      XX2 60 89
      xvmsubmsp XT,XA,XB                 XX3 60 89
      xsredp XT,XB                       XX2 60 90
      xvtdivsp BF,XA,XB                  XX3 60 93
      xvadddp XT,XA,XB                   XX3 60 96
      xvmaddadp XT,XA,XB                 XX3 60 97
      xvcmpeqdp[.] XT,XA,XB              XX3C 60 99
      xvsubdp XT,XA,XB                   XX3 60 104
      xsrdpip XT,XB                      XX2 60 105
      xvmaddmdp XT,XA,XB                 XX3 60 105
      xstsqrtdp BF,XB                    XX2 60 106
      xsrdpic XT,XB                      XX2 60 107
      xvcmpgtdp[.] XT,XA,XB              XX3C 60 107
      xvmuldp XT,XA,XB                   XX3 60 112
      xvmsubadp XT,XA,XB                 XX3 60 113
      xvcmpgedp[.] XT,XA,XB              XX3C 60 115
      xvdivdp XT,XA,XB                   XX3 60 120
      xsrdpim XT,XB                      XX2 60 121
      xvmsubmdp XT,XA,XB                 XX3 60 121
      xvtdivdp BF,XA,XB                  XX3 60 125
      xsmaxcdp XT,XA,XB                  XX3 60 128
      xsnmaddasp XT,XA,XB                XX3 60 129
      xxland XT,XA,XB                    XX3 60 130
      xvcvspuxws XT,XB                   XX2 60 136
      xsmincdp XT,XA,XB                  XX3 60 136
      xvrspi XT,XB                       XX2 60 137
      xsnmaddmsp XT,XA,XB                XX3 60 137
      xvrsqrtesp XT,XB                   XX2 60 138
      xxlandc XT,XA,XB                   XX3 60 138
      xvsqrtsp XT,XB                     XX2 60 139
      xsmaxjdp XT,XA,XB                  XX3 60 144
      xsnmsubasp XT,XA,XB                XX3 60 145
      xxlor XT,XA,XB                     XX3 60 146
      xvcvspsxws XT,XB                   XX2 60 152
      xsminjdp XT,XA,XB                  XX3 60 152
      xvrspiz XT,XB                      XX2 60 153
      xsnmsubmsp XT,XA,XB                XX3 60 153
      xvresp XT,XB                       XX2 60 154
      xxlxor XT,XA,XB                    XX3 60 154
      xsmaxdp XT,XA,XB                   XX3 60 160
      xsnmaddadp XT,XA,XB                XX3 60 161
      xxlnor XT,XA,XB                    XX3 60 162
      xxspltw XT,XB,UIM2                 XX2 60 164
      xxextractuw XT,XB,UIM4             XX2 60 165
      xvcvuxwsp XT,XB                    XX2 60 168
      xsmindp XT,XA,XB                   XX3 60 168
      xvrspip XT,XB                      XX2 60 169
      xsnmaddmdp XT,XA,XB                XX3 60 169
      xvtsqrtsp BF,XB                    XX2 60 170
      xxlorc XT,XA,XB                    XX3 60 170
      xvrspic XT,XB                      XX2 60 171
      xscpsgndp XT,XA,XB                 XX3 60 176
      xsnmsubadp XT,XA,XB                XX3 60 177
      xxlnand XT,XA,XB                   XX3 60 178
      xxinsertw XT,XB,UIM4               XX2 60 181
      xvcvsxwsp XT,XB                    XX2 60 184
      xvrspim XT,XB                      XX2 60 185
      xsnmsubmdp XT,XA,XB                XX3 60 185
      xxleqv XT,XA,XB                    XX3 60 186
      xvmaxsp XT,XA,XB                   XX3 60 192
      xvnmaddasp XT,XA,XB                XX3 60 193
      xvcvdpuxws XT,XB                   XX2 60 200
      xvminsp XT,XA,XB                   XX3 60 200
      xvrdpi XT,XB                       XX2 60 201
      xvnmaddmsp XT,XA,XB                XX3 60 201
      xvrsqrtedp XT,XB                   XX2 60 202
      xvsqrtdp XT,XB                     XX2 60 203
      xvcpsgnsp XT,XA,XB                 XX3 60 208
      xvnmsubasp XT,XA,XB                XX3 60 209
      xvcvdpsxws XT,XB                   XX2 60 216
      xviexpsp XT,XA,XB                  XX3 60 216
      xvrdpiz XT,XB                      XX2 60 217
      xvnmsubmsp XT,XA,XB                XX3 60 217
      xvredp XT,XB                       XX2 60 218
      xvmaxdp XT,XA,XB                   XX3 60 224
      xvnmaddadp XT,XA,XB                XX3 60 225
      xvcvuxwdp XT,XB                    XX2 60 232
      xvmindp XT,XA,XB                   XX3 60 232
      xvrdpip XT,XB                      XX2 60 233
      xvnmaddmdp XT,XA,XB                XX3 60 233
      xvtsqrtdp BF,XB                    XX2 60 234
      xvrdpic XT,XB                      XX2 60 235
      xvcpsgndp XT,XA,XB                 XX3 60 240
      xvnmsubadp XT,XA,XB                XX3 60 241
      xvcvsxwdp XT,XB                    XX2 60 248
      xviexpdp XT,XA,XB                  XX3 60 248
      xvrdpim XT,XB                      XX2 60 249
      xvnmsubmdp XT,XA,XB                XX3 60 249
      xscvdpsp XT,XB                     XX2 60 265
      xscvdpspn XT,XB                    XX2 60 267
      xsrsp XT,XB                        XX2 60 281
      xscvuxdsp XT,XB                    XX2 60 296
      xststdcsp BF,XB,DCMX               XX2 60 298
      xscvsxdsp XT,XB                    XX2 60 312
      xscvdpuxds XT,XB                   XX2 60 328
      xscvspdp XT,XB                     XX2 60 329
      xscvspdpn XT,XB                    XX2 60 331
      xscvdpsxds XT,XB                   XX2 60 344
      xsabsdp XT,XB                      XX2 60 345
      xsxexpdp RT,XB                     XX2 60 347 EO=0
      xsxsigdp RT,XB                     XX2 60 347 EO=1
      xscvhpdp XT,XB                     XX2 60 347 EO=16
      xscvdphp XT,XB                     XX2 60 347 EO=17
      xscvuxddp XT,XB                    XX2 60 360
      xsnabsdp XT,XB                     XX2 60 361
      xststdcdp BF,XB,DCMX               XX2 60 362
      xscvsxddp XT,XB                    XX2 60 376
      xsnegdp XT,XB                      XX2 60 377
      xvcvspuxds XT,XB                   XX2 60 392
      xvcvdpsp XT,XB                     XX2 60 393
      xvcvspsxds XT,XB                   XX2 60 408
      xvabssp XT,XB                      XX2 60 409
      xvcvuxdsp XT,XB                    XX2 60 424
      xvnabssp XT,XB                     XX2 60 425
      xvcvsxdsp XT,XB                    XX2 60 440
      xvnegsp XT,XB                      XX2 60 441
      xvcvdpuxds XT,XB                   XX2 60 456
      xvcvspdp XT,XB                     XX2 60 457
      xvcvdpsxds XT,XB                   XX2 60 472
      xvabsdp XT,XB                      XX2 60 473
      xvxexpdp XT,XB                     XX2 60 475 EO=0
      xvxsigdp XT,XB                     XX2 60 475 EO=1
      xxbrh XT,XB                        XX2 60 475 EO=7
      xvxexpsp XT,XB                     XX2 60 475 EO=8
      xvxsigsp XT,XB                     XX2 60 475 EO=9
      xxbrw XT,XB                        XX2 60 475 EO=15
      xxbrd XT,XB                        XX2 60 475 EO=23
      xvcvhpsp XT,XB                     XX2 60 475 EO=24
      xvcvsphp XT,XB                     XX2 60 475 EO=25
      xxbrq XT,XB                        XX2 60 475 EO=31
      xvcvuxddp XT,XB                    XX2 60 488
      xvnabsdp XT,XB                     XX2 60 489
      xvcvsxddp XT,XB                    XX2 60 504
      xvnegdp XT,XB                      XX2 60 505
      xsiexpdp XT,RA,RB                  XX1 60 918
      xsaddqp VRT,VRA,VRB                X 63 4 RO=0
      xsaddqpo VRT,VRA,VRB               X 63 4 RO=1
      xsrqpi R,VRT,VRB,RMC               Z23 63 5 EX=0
      xsrqpix R,VRT,VRB,RMC              Z23 63 5 EX=1
      xsmulqp VRT,VRA,VRB                X 63 36 RO=0
      xsmulqpo VRT,VRA,VRB               X 63 36 RO=1
      xsrqpxp R,VRT,VRB,RMC              Z23 63 37
      xscpsgnqp VRT,VRA,VRB              X 63 100
      xscmpoqp BF,VRA,VRB                X 63 132
      xscmpexpqp BF,VRA,VRB              X 63 164
      xsmaddqp VRT,VRA,VRB               X 63 388 RO=0
      xsmaddqpo VRT,VRA,VRB              X 63 388 RO=1
      xsmsubqp VRT,VRA,VRB               X 63 420 RO=0
      xsmsubqpo VRT,VRA,VRB              X 63 420 RO=1
      xsnmaddqp VRT,VRA,VRB              X 63 452 RO=0
      xsnmaddqpo VRT,VRA,VRB             X 63 452 RO=1
      xsnmsubqp VRT,VRA,VRB              X 63 484 RO=0
      xsnmsubqpo VRT,VRA,VRB             X 63 484 RO=1
      xssubqp VRT,VRA,VRB                X 63 516 RO=0
      xssubqpo VRT,VRA,VRB               X 63 516 RO=1
      xsdivqp VRT,VRA,VRB                X 63 548 RO=0
      xsdivqpo VRT,VRA,VRB               X 63 548 RO=1
      xscmpuqp BF,VRA,VRB                X 63 644
      xststdcqp BF,VRB,DCMX              X 63 708
      xsabsqp VRT,VRB                    X 63 804 EO=0
      xsxexpqp VRT,VRB                   X 63 804 EO=2
      xsnabsqp VRT,VRB                   X 63 804 EO=8
      xsnegqp VRT,VRB                    X 63 804 EO=16
      xsxsigqp VRT,VRB                   X 63 804 EO=18
      xssqrtqp VRT,VRB                   X 63 804 EO=27 RO=0
      xssqrtqpo VRT,VRB                  X 63 804 EO=27 RO=1
      xscvqpuwz VRT,VRB                  X 63 836 EO=1
      xscvudqp VRT,VRB                   X 63 836 EO=2
      xscvqpswz VRT,VRB                  X 63 836 EO=9
      xscvsdqp VRT,VRB                   X 63 836 EO=10
      xscvqpudz VRT,VRB                  X 63 836 EO=17
      xscvqpdp VRT,VRB                   X 63 836 EO=20 RO=0
      xscvdpqp VRT,VRB                   X 63 836 EO=22
      xscvqpsdz VRT,VRB                  X 63 836 EO=25
      xscvqpdpo VRT,VRB                  X 63 836 EO=20 RO=1
      xsiexpqp VRT,VRA,VRB               X 63 868
    """,
)

declare(
    floating_point_or_vector,
    """
    Book I 7.6.3 VSX Instruction Descriptions
      mfvsrd RA,XS                       XX1 31 51
      mfvsrwz RA,XS                      XX1 31 115
      mtvsrd XT,RA                       XX1 31 179
      mtvsrwa XT,RA                      XX1 31 211
      mtvsrwz XT,RA                      XX1 31 243
    """,
)

declare(
    vector_scalar_or_vector,
    """
    Book I 7.6.3 VSX Instruction Descriptions
      lxvx XT,RA,RB                      XX1M 31 4 XO26=12
      lxvl XT,RA,RB                      XX1 31 269
      lxvll XT,RA,RB                     XX1 31 301
      mfvsrld RA,XS                      XX1 31 307
      lxvwsx XT,RA,RB                    XX1 31 364
      stxvx XS,RA,RB                     XX1M 31 6 XO26=12
      stxvl XS,RA,RB                     XX1 31 397
      mtvsrws XT,RA                      XX1 31 403
      stxvll XS,RA,RB                    XX1 31 429
      mtvsrdd XT,RA,RB                   XX1 31 435
      lxsibzx XT,RA,RB                   XX1 31 781
      lxvh8x XT,RA,RB                    XX1 31 812
      lxsihzx XT,RA,RB                   XX1 31 813
      lxvb16x XT,RA,RB                   XX1 31 876
      stxsibx XS,RA,RB                   XX1 31 909
      stxvh8x XS,RA,RB                   XX1 31 940
      stxsihx XS,RA,RB                   XX1 31 941
      stxvb16x XS,RA,RB                  XX1 31 1004
      xxspltib XT,IMM8                   XX1 60 360 BIT11=0
    """,
)

declare(
    vector,
    """
    Book I 7.6.3 VSX Instruction Descriptions
      lxsd VRT,DS(RA)                    DS 57 2
      lxssp VRT,DS(RA)                   DS 57 3
      stxsd VRS,DS(RA)                   DS 61 2
      stxssp VRS,DS(RA)                  DS 61 3
    """,
)

declare(
    vector_scalar_or_vector,
    """
    Book I 7.6.3 VSX Instruction Descriptions
      lxv XT28,DQ(RA)                    DQX 61 1
      stxv XS28,DQ(RA)                   DQX 61 5
    """,
)
