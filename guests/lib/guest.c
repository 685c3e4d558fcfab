/* Start-up, interrupts, hypercalls and RTAS: see guest.h. */
#include "guest.h"

int main(void);

static const u8 *tree; /* the flattened device tree */
static interrupt_handler handlers[0x100];

/* ---- the device tree (Devicetree Specification 0.4, chapter 5) -------------------------------------------- */

static u32 word_at(const u8 *at)
{
	return (u32)at[0] << 24 | (u32)at[1] << 16 | (u32)at[2] << 8 | at[3];
}

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

const void *device_tree_property(const char *name, u32 *length)
{
	enum { BEGIN_NODE = 1, END_NODE = 2, PROPERTY = 3, NOP = 4 };
	const u8 *at = tree + word_at(tree + 8);
	const char *strings = (const char *)tree + word_at(tree + 12);

	for (;;) {
		u32 token = word_at(at);

		at += 4;
		if (token == BEGIN_NODE) {
			while (*at)
				at++;
			at = (const u8 *)(((u64)at + 4) & ~3UL);
		} else if (token == PROPERTY) {
			u32 size = word_at(at);

			if (same(strings + word_at(at + 4), name)) {
				*length = size;
				return at + 8;
			}
			at += 8 + ((size + 3) & ~3U);
		} else if (token != END_NODE && token != NOP) {
			return 0;
		}
	}
}

u64 timebase_frequency(void)
{
	u32 length;
	const u8 *value = device_tree_property("timebase-frequency", &length);

	return value ? word_at(value) : 512000000;
}

/* ---- hypercalls and RTAS ----------------------------------------------------------------------------------- */

void cede(void)
{
	hypercall(H_CEDE, 0, 0, 0, 0, 0);
}

s32 rtas(const char *service, u32 argument_count, const u32 *arguments, u32 return_count, u32 *returns)
{
	u32 block[16], length, i;
	const u8 *token = device_tree_property(service, &length);

	if (!token || argument_count + return_count > 13)
		return -1;
	block[0] = big32(word_at(token));
	block[1] = big32(argument_count);
	block[2] = big32(return_count);
	for (i = 0; i < argument_count; i++)
		block[3 + i] = big32(arguments[i]);
	__asm__ volatile("" : : : "memory");
	hypercall(H_RTAS, (u64)block, 0, 0, 0, 0);
	__asm__ volatile("" : : : "memory");
	for (i = 0; i < return_count; i++)
		returns[i] = big32(block[3 + argument_count + i]);
	return return_count ? (s32)returns[0] : 0;
}

void power_off(void)
{
	static const u32 arguments[2] = {0, 0};
	u32 status;

	for (;;)
		rtas("power-off", 2, arguments, 1, &status);
}

/* ---- other vCPUs ------------------------------------------------------------------------------------------- */

struct cpu_start {
	u64 stack;
	void (*function)(u64);
	u64 argument;
};

static struct cpu_start starts[MAX_CPUS];
static u8 stacks[MAX_CPUS][8192] __attribute__((aligned(16)));

extern void secondary_start(void);

s32 start_cpu(u32 cpu, void (*function)(u64 argument), u64 argument)
{
	u32 arguments[3], status;

	if (cpu >= MAX_CPUS)
		return -1;
	starts[cpu].stack = (u64)(stacks[cpu] + sizeof stacks[cpu]);
	starts[cpu].function = function;
	starts[cpu].argument = argument;
	arguments[0] = cpu;
#ifdef __LITTLE_ENDIAN__
	arguments[1] = (u32)(u64)secondary_start;
#else
	arguments[1] = (u32) * (u64 *)secondary_start; /* ABI v1: a name is a descriptor, the address its first word */
#endif
	arguments[2] = (u32)(u64)&starts[cpu];
	return rtas("start-cpu", 3, arguments, 1, &status);
}

void guest_secondary(struct cpu_start *start)
{
	u32 status;

	start->function(start->argument);
	interrupts_off();
	rtas("stop-self", 0, 0, 1, &status);
	panic("stop-self came back with %d", (s32)status);
}

/* ---- interrupts -------------------------------------------------------------------------------------------- */

void on_interrupt(u32 vector, interrupt_handler handler)
{
	handlers[vector >> 4 & 0xff] = handler;
}

void interrupts_on(void)
{
	__asm__ volatile("mtmsrd %0,1" : : "r"(0x8002UL) : "memory"); /* EE and RI */
}

void interrupts_off(void)
{
	__asm__ volatile("mtmsrd %0,1" : : "r"(0x2UL) : "memory");
}

void guest_interrupt(struct frame *frame)
{
	interrupt_handler handler = handlers[frame->vector >> 4 & 0xff];

	if (!handler)
		panic("interrupt %#lx at %#lx, srr1 %#lx", frame->vector, frame->srr0, frame->srr1);
	handler(frame);
}

/* ---- start ------------------------------------------------------------------------------------------------- */

void guest_main(const void *device_tree)
{
	enum { RESOURCE_ENDIAN = 4, BIG = 0, LITTLE = 1 };

	tree = device_tree;
#ifdef __LITTLE_ENDIAN__
	hypercall(H_SET_MODE, LITTLE, RESOURCE_ENDIAN, 0, 0, 0);
#else
	hypercall(H_SET_MODE, BIG, RESOURCE_ENDIAN, 0, 0, 0);
#endif
	main();
	power_off();
}
