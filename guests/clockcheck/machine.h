/*
 * What differs between the processors: the start of a process, system calls, and the hardware counter.
 *
 * The program uses no C library, so that one small static file runs under every kernel, as a process or as init.
 */
#ifndef MACHINE_H
#define MACHINE_H

typedef unsigned long u64;
typedef long s64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

#if defined(__powerpc64__)

#ifdef __LITTLE_ENDIAN__
#define MACHINE "ppc64le"
/* The kernel starts a process with nothing but the stack pointer in r1. */
__asm__(".abiversion 2\n"
	".text\n"
	".globl _start\n"
	"_start: lis 2,.TOC.@ha\n"
	"	addi 2,2,.TOC.@l\n"
	"	mr 3,1\n"
	"	clrrdi 1,1,4\n"
	"	li 0,0\n"
	"	stdu 0,-128(1)\n"
	"	bl start\n"
	"	trap\n");
#else
#define MACHINE "ppc64"
/* ABI v1: the entry point is a descriptor, from which the kernel loads r2 too. */
__asm__(".section .opd,\"aw\"\n"
	".balign 8\n"
	".globl _start\n"
	"_start: .quad .L_start,.TOC.@tocbase,0\n"
	".text\n"
	".L_start: mr 3,1\n"
	"	clrrdi 1,1,4\n"
	"	li 0,0\n"
	"	stdu 0,-128(1)\n"
	"	bl start\n"
	"	nop\n"
	"	trap\n");
#endif

enum {
	SYS_read = 3, SYS_write = 4, SYS_close = 6, SYS_getpid = 20, SYS_mount = 21, SYS_sync = 36, SYS_reboot = 88,
	SYS_uname = 122, SYS_sched_setaffinity = 222, SYS_sched_getaffinity = 223, SYS_exit_group = 234,
	SYS_clock_gettime = 246, SYS_ppoll = 281, SYS_openat = 286, SYS_timerfd_create = 306, SYS_timerfd_settime = 311,
};

#define VDSO_CLOCK_GETTIME "__kernel_clock_gettime"

/* Returns -errno on failure, like the kernel of every other processor. */
static s64 system_call(s64 number, u64 a, u64 b, u64 c, u64 d, u64 e)
{
	register u64 r0 __asm__("r0") = number;
	register u64 r3 __asm__("r3") = a;
	register u64 r4 __asm__("r4") = b;
	register u64 r5 __asm__("r5") = c;
	register u64 r6 __asm__("r6") = d;
	register u64 r7 __asm__("r7") = e;

	__asm__ volatile("sc\n\tbns+ 1f\n\tneg %1,%1\n1:"
			 : "+r"(r0), "+r"(r3), "+r"(r4), "+r"(r5), "+r"(r6), "+r"(r7)
			 :
			 : "r8", "r9", "r10", "r11", "r12", "cr0", "ctr", "xer", "memory");
	return r3;
}

static u64 read_counter(void)
{
	u64 value;

	__asm__ volatile("mfspr %0,268" : "=r"(value) : : "memory");
	return value;
}

#elif defined(__x86_64__)

#define MACHINE "x86-64"
__asm__(".text\n"
	".globl _start\n"
	"_start: xor %ebp,%ebp\n"
	"	mov %rsp,%rdi\n"
	"	and $-16,%rsp\n"
	"	call start\n"
	"	hlt\n");

enum {
	SYS_read = 0, SYS_write = 1, SYS_close = 3, SYS_getpid = 39, SYS_uname = 63, SYS_sync = 162, SYS_mount = 165,
	SYS_reboot = 169, SYS_sched_setaffinity = 203, SYS_sched_getaffinity = 204, SYS_clock_gettime = 228,
	SYS_exit_group = 231, SYS_openat = 257, SYS_ppoll = 271, SYS_timerfd_create = 283, SYS_timerfd_settime = 286,
};

#define VDSO_CLOCK_GETTIME "__vdso_clock_gettime"

static s64 system_call(s64 number, u64 a, u64 b, u64 c, u64 d, u64 e)
{
	register u64 r10 __asm__("r10") = d;
	register u64 r8 __asm__("r8") = e;
	s64 result = number;

	__asm__ volatile("syscall"
			 : "+a"(result)
			 : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}

static u64 read_counter(void)
{
	u32 low, high;

	/* The fence keeps the processor from reading the counter before the loads that come earlier. */
	__asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (u64)high << 32 | low;
}

#elif defined(__aarch64__)

#define MACHINE "aarch64"
__asm__(".text\n"
	".globl _start\n"
	"_start: mov x29,#0\n"
	"	mov x30,#0\n"
	"	mov x0,sp\n"
	"	bl start\n"
	"	brk #0\n");

enum {
	SYS_openat = 56, SYS_close = 57, SYS_read = 63, SYS_write = 64, SYS_ppoll = 73, SYS_sync = 81,
	SYS_timerfd_create = 85, SYS_timerfd_settime = 86, SYS_exit_group = 94, SYS_clock_gettime = 113,
	SYS_sched_setaffinity = 122, SYS_sched_getaffinity = 123, SYS_mount = 40, SYS_reboot = 142, SYS_uname = 160,
	SYS_getpid = 172,
};

#define VDSO_CLOCK_GETTIME "__kernel_clock_gettime"

static s64 system_call(s64 number, u64 a, u64 b, u64 c, u64 d, u64 e)
{
	register u64 x8 __asm__("x8") = number;
	register u64 x0 __asm__("x0") = a;
	register u64 x1 __asm__("x1") = b;
	register u64 x2 __asm__("x2") = c;
	register u64 x3 __asm__("x3") = d;
	register u64 x4 __asm__("x4") = e;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory", "cc");
	return x0;
}

static u64 read_counter(void)
{
	u64 value;

	/* The barrier keeps the processor from reading the counter early. */
	__asm__ volatile("isb\n\tmrs %0,cntvct_el0" : "=r"(value) : : "memory");
	return value;
}

#else
#error "clockcheck knows ppc64le, ppc64, x86-64 and aarch64"
#endif

#endif
