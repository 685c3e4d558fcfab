/* Where a guest starts, and the interrupt vectors. Assembled for either endianness and either ABI. */

#ifdef __LITTLE_ENDIAN__
#define CALL(name) bl name
#else
#define CALL(name) bl name; nop
	.abiversion 1
#endif

#ifdef __LITTLE_ENDIAN__
	.abiversion 2
#define FUNCTION(name) .globl name; .type name,@function; name
#define CODE(name) name
#else
/* ABI v1: a function's name is its descriptor (address, TOC, environment). */
#define FUNCTION(name) .section ".opd","aw"; .balign 8; .globl name; .type name,@function; \
	name: .quad .L.name,.TOC.@tocbase,0; .previous; .L.name
#endif

#define FRAME_SIZE 512          /* struct frame, rounded up, and a minimal stack frame below it */
#define RED_ZONE 512            /* what the interrupted function may use below its stack pointer */
#define FRAME 128               /* struct frame's place in the stack frame */
#define GPR(n) (FRAME + 8 * (n))
#define SRR0_AT (FRAME + 256)
#define SRR1_AT (FRAME + 264)
#define LR_AT (FRAME + 272)
#define CTR_AT (FRAME + 280)
#define XER_AT (FRAME + 288)
#define CR_AT (FRAME + 296)
#define VECTOR_AT (FRAME + 304)

	.section .text.start,"ax"
FUNCTION(_start):
	lis 2,.TOC.@ha
	addi 2,2,.TOC.@l
	lis 1,boot_stack_top@ha
	addi 1,1,boot_stack_top@l
	li 0,0
	stdu 0,-128(1)
	CALL(guest_main)
	trap

/* A vCPU that start_cpu started: r3 = its struct cpu_start {stack pointer, function, argument}. */
FUNCTION(secondary_start):
	lis 2,.TOC.@ha
	addi 2,2,.TOC.@l
	ld 1,0(3)
	li 0,0
	stdu 0,-128(1)
	CALL(guest_secondary)
	trap

/* s64 hypercall(number, a, b, c, d, results) */
	.text
FUNCTION(hypercall):
	mflr 0
	std 0,16(1)
	std 8,-8(1)
	sc 1
	ld 8,-8(1)
	cmpdi 8,0
	beq 1f
	std 4,0(8)
	std 5,8(8)
	std 6,16(8)
	std 7,24(8)
1:	ld 0,16(1)
	mtlr 0
	blr

/* One stub a vector: r1 goes to SPRG2 and r3 to SPRG3 for a moment; interrupts are off until rfid. */
	.section .vectors,"ax"
	.macro vector at
	.org \at - 0x100
	mtspr 275,3
	mfcr 3
	mtspr 274,3
	li 3,\at
	b enter
	.endm

	.irp at, 0x100,0x200,0x300,0x380,0x400,0x480,0x500,0x600,0x700,0x800,0x900,0xa00,0xc00,0xd00,0xf00,0xf20,0xf40,0xf60,0xf80
	vector \at
	.endr

	.org 0x1000 - 0x100
enter:
	stdu 1,-(FRAME_SIZE + RED_ZONE)(1)
	std 3,VECTOR_AT(1)
	mfspr 3,274
	std 3,CR_AT(1)
	mfspr 3,275
	std 0,GPR(0)(1)
	std 2,GPR(2)(1)
	std 3,GPR(3)(1)
	.irp n, 4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
	std \n,GPR(\n)(1)
	.endr
	addi 4,1,FRAME_SIZE + RED_ZONE
	std 4,GPR(1)(1)
	mfspr 4,26
	std 4,SRR0_AT(1)
	mfspr 4,27
	std 4,SRR1_AT(1)
	mflr 4
	std 4,LR_AT(1)
	mfctr 4
	std 4,CTR_AT(1)
	mfxer 4
	std 4,XER_AT(1)
	lis 2,.TOC.@ha
	addi 2,2,.TOC.@l
	addi 3,1,FRAME
	CALL(guest_interrupt)
	ld 4,SRR0_AT(1)
	mtspr 26,4
	ld 4,SRR1_AT(1)
	mtspr 27,4
	ld 4,LR_AT(1)
	mtlr 4
	ld 4,CTR_AT(1)
	mtctr 4
	ld 4,XER_AT(1)
	mtxer 4
	ld 4,CR_AT(1)
	mtcr 4
	.irp n, 0,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
	ld \n,GPR(\n)(1)
	.endr
	ld 1,GPR(1)(1)
	rfid

	.section .bss
	.balign 16
	.space 32768
boot_stack_top:
	.section .note.GNU-stack,"",@progbits
