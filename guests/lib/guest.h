/* The support layer of Chronovisor's own guests: freestanding, real mode, 64-bit, either endianness.
 *
 * A guest defines `int main(void)`; when it returns, the guest powers off. The first interrupt that it has no
 * handler for ends it with a message (ibm,os-term), which the hypervisor reports as a crash.
 * Numbers are those of the PAPR (LoPAR 1.1); times are timebase ticks.
 */
#ifndef GUEST_H
#define GUEST_H

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;
typedef signed long s64;
typedef signed int s32;

/* ---- time ------------------------------------------------------------------------------------------------ */

/* The timebase, 64 bits. */
static inline u64 timebase(void)
{
	u64 tb;
	__asm__ volatile("mfspr %0,268" : "=r"(tb));
	return tb;
}

/* Ticks a second, from the device tree. */
u64 timebase_frequency(void);

/* The decrementer: an interrupt comes when it becomes negative. 32 bits (LPCR[LD] is 0 unless asked for). */
static inline void set_decrementer(s64 ticks)
{
	__asm__ volatile("mtspr 22,%0" : : "r"(ticks));
}

static inline s64 decrementer(void)
{
	u64 dec;
	__asm__ volatile("mfspr %0,22" : "=r"(dec));
	return (s32)dec;
}

/* ---- interrupts ------------------------------------------------------------------------------------------ */

/* What the vector's stub saved; a handler may change it and returns to what it then says. */
struct frame {
	u64 gpr[32];
	u64 srr0, srr1, lr, ctr, xer, cr;
	u64 vector;
};

typedef void (*interrupt_handler)(struct frame *frame);

/* Have `handler` called for the interrupt at `vector` (0x100 to 0xf80), with interrupts off; 0 takes it back. */
void on_interrupt(u32 vector, interrupt_handler handler);

/* Set or clear MSR[EE]. */
void interrupts_on(void);
void interrupts_off(void);

/* ---- hypercalls ------------------------------------------------------------------------------------------ */

#define H_SUCCESS 0
#define H_GET_TERM_CHAR 0x54
#define H_PUT_TERM_CHAR 0x58
#define H_REGISTER_VPA 0xdc
#define H_CEDE 0xe0
#define H_CONFER 0xe4
#define H_PROD 0xe8
#define H_RANDOM 0x300
#define H_SET_MODE 0x31c
#define H_REGISTER_PROCESS_TABLE 0x37c
#define H_RTAS 0xf000

/* Call the hypervisor; the status (r3). `results`, where not 0, takes r4 to r7. */
s64 hypercall(u64 number, u64 a, u64 b, u64 c, u64 d, u64 *results);

/* Wait for an interrupt (H_CEDE); it is taken before this returns, and MSR[EE] is on afterwards. */
void cede(void);

/* Call RTAS by the service's name; its first return value, or -1 where the machine has no such service.
 * `returns` must have room for `return_count` values. */
s32 rtas(const char *service, u32 argument_count, const u32 *arguments, u32 return_count, u32 *returns);

/* End the guest: as its owner meant it, or with a message that says what went wrong. */
void power_off(void) __attribute__((noreturn));
void panic(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* Start vCPU `cpu` at `function(argument)` on a stack of its own; 0 where that worked.
 * At most MAX_CPUS vCPUs; a function that returns stops its vCPU (stop-self). */
#define MAX_CPUS 8
s32 start_cpu(u32 cpu, void (*function)(u64 argument), u64 argument);

/* ---- text ------------------------------------------------------------------------------------------------ */

/* Print on the console. Knows %s %c %d %u %x %ld %lu %lx %% and a width with or without leading zero. */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The next byte typed on the console, or -1 where there is none. */
int console_byte(void);

/* ---- the device tree ------------------------------------------------------------------------------------- */

/* The first property called `name`, in whatever node: its value, and its length in *length; 0 where there is none. */
const void *device_tree_property(const char *name, u32 *length);

/* A big-endian word of the device tree or of an RTAS argument block. */
static inline u32 big32(u32 word)
{
#ifdef __LITTLE_ENDIAN__
	return __builtin_bswap32(word);
#else
	return word;
#endif
}

static inline u64 big64(u64 word)
{
#ifdef __LITTLE_ENDIAN__
	return __builtin_bswap64(word);
#else
	return word;
#endif
}

#endif
