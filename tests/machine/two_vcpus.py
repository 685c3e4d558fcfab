"""A program that starts a second vCPU and waits for a word from it; the second one then stops itself."""

TWO_CPUS = """
    lis r3,0; ori r3,r3,0xf000
    lis r4,start@h; ori r4,r4,start@l
    sc 1
    li r9,0
wait: lis r4,done@h; ori r4,r4,done@l
    addi r9,r9,1
    ld r5,0(r4); cmpdi r5,0
    beq wait
    lis r3,0; ori r3,r3,0xf000
    lis r4,off@h; ori r4,r4,off@l
    sc 1
    b .
second:
    mfspr r8,268
    lis r4,done@h; ori r4,r4,done@l
    std r3,0(r4)
    lis r3,0; ori r3,r3,0xf000
    lis r4,self@h; ori r4,r4,self@l
    sc 1
    b .
    .balign 8
done: .quad 0
start: .byte 0,0,0x20,5, 0,0,0,3, 0,0,0,1, 0,0,0,1
       .byte (second >> 24) & 255, (second >> 16) & 255, (second >> 8) & 255, second & 255, 0,0,0,0x33
       .space 4
off: .byte 0,0,0x20,2, 0,0,0,2, 0,0,0,1
     .space 12
self: .byte 0,0,0x20,7, 0,0,0,0, 0,0,0,1
      .space 4
"""
