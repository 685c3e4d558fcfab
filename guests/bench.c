/* How fast this machine is: each loop runs until it has taken long enough, and says how many rounds it made in how
 * many ticks. The same image runs in Chronovisor and, for comparison, in any other PAPR machine. */
#include "bench_numbers.h"
#include "bench_programs.h"

#define WORDS 8192

static u64 from[WORDS], to[WORDS];
static volatile u64 sink;

/* Fixed-point arithmetic and logic in registers. */
static u64 integer(u64 rounds)
{
	u64 a = 0x9e3779b97f4a7c15, b = 1, c = rounds;

	while (rounds--) {
		a ^= a << 13;
		a ^= a >> 7;
		a ^= a << 17;
		b += a ^ (c << 3);
		c = (c + b) & ~(a >> 9);
		b = (b << 5 | b >> 59) - c;
	}
	return a + b + c;
}

/* A copy of 64 KiB by doublewords. */
static u64 memory(u64 rounds)
{
	for (u32 n = 0; n < WORDS; n++)
		from[n] = n * 0x9e3779b97f4a7c15;
	while (rounds--) {
		for (u32 n = 0; n < WORDS; n++)
			to[n] = from[n];
		__asm__ volatile("" : : "r"(from), "r"(to) : "memory");
	}
	return to[WORDS / 2];
}

/* Branches that depend on data: a bitwise CRC, a sort by insertion, a linked list walked. */
static u64 mixed(u64 rounds)
{
	static u32 values[64];
	static struct node { struct node *next; u64 value; } nodes[64];
	u32 crc = ~0u, seed = 1;

	while (rounds--) {
		for (u32 n = 0; n < 64; n++) {
			seed = seed * 1103515245 + 12345;
			values[n] = seed >> 8;
			nodes[n].value = seed;
			nodes[n].next = n == 63 ? 0 : &nodes[n + 1];
			crc ^= seed & 0xff;
			for (u32 bit = 0; bit < 8; bit++)
				crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
		}
		for (u32 n = 1; n < 64; n++) {
			u32 value = values[n], m = n;

			for (; m && values[m - 1] > value; m--)
				values[m] = values[m - 1];
			values[m] = value;
		}
		for (struct node *node = nodes; node; node = node->next)
			crc += node->value & 1 ? values[node->value & 63] : crc >> 3;
	}
	return crc;
}

static u64 read_timebase(u64 rounds)
{
	while (rounds--)
		sink = timebase();
	return 0;
}

static u64 write_decrementer(u64 rounds)
{
	while (rounds--) {
		set_decrementer(0x7fffffff);
		sink = decrementer();
	}
	return 0;
}

/* A call that the hypervisor answers itself: a processor wakes itself. */
static u64 call_hypervisor(u64 rounds)
{
	while (rounds--)
		hypercall(H_PROD, 0, 0, 0, 0, 0);
	return 0;
}

/* A call that user space answers: print nothing. */
static u64 call_user_space(u64 rounds)
{
	while (rounds--)
		hypercall(H_PUT_TERM_CHAR, 0, 0, 0, 0, 0);
	return 0;
}

/* A system call of the guest's own: to its handler, which returns at once. */
static u64 call_system(u64 rounds)
{
	while (rounds--)
		__asm__ volatile("sc 0" : : : "memory");
	return 0;
}

static const u32 return_at_once = 0x4c000024; /* rfid */

static void have_system_calls_return(void)
{
	u32 *vector = (u32 *)0xc00;

	__asm__ volatile("" : "+r"(vector)); /* a fixed address is no object that the compiler knows */
	*vector = return_at_once;
	__asm__ volatile("dcbst 0,%0; sync; icbi 0,%0; sync; isync" : : "r"(vector) : "memory");
}

/* What it does so many times, and what it returns then: of a program that depends on the rounds alone. */
struct loop {
	const char *name;
	u64 (*run)(u64 rounds);
};

/* What computes: in real mode, and with addresses translated. */
static const struct loop programs[] = {
	{ "integer", integer },
	{ "memory", memory },
	{ "mixed", mixed },
	{ "multiply", multiply },
	{ "copy", copy },
	{ "core mix", core_mix },
	{ "sort", sort },
	{ "hash", hash },
	{ "strings", strings },
	{ "SHA-256", sha256 },
	{ "matrix product", matrix },
	{ "bodies", bodies },
	{ "vector copy", vector_copy },
	{ "vector xor", vector_xor },
	{ "vector AES", aes },
};

/* What a kernel and a hypervisor do: in real mode alone. */
static const struct loop operations[] = {
	{ "mftb", read_timebase },
	{ "mtdec+mfdec", write_decrementer },
	{ "sc+rfid", call_system },
	{ "hypervisor call", call_hypervisor },
	{ "user space call", call_user_space },
};

static volatile u64 begun, wanted, finished;

static void help(u64 unused)
{
	(void)unused;
	begun = 1;
	while (!wanted)
		;
	sink = integer(wanted);
	finished = 1;
}

/* The same loop on one vCPU, the other not started, and on two at once: a round takes half the time where the second
 * is a whole one. */
static void measure_two(u64 enough)
{
	u64 rounds = 1, alone, together, begin;

	for (;; rounds *= 2) {
		begin = timebase();
		sink = integer(rounds);
		alone = timebase() - begin;
		if (alone > enough)
			break;
	}
	if (start_cpu(1, help, 0))
		return;
	while (!begun)
		;
	begin = timebase();
	wanted = rounds;
	sink = integer(rounds);
	while (!finished)
		;
	together = timebase() - begin;
	print("one vCPU: %lu rounds in %lu ticks\n", rounds, alone);
	print("two vCPUs: %lu rounds in %lu ticks\n", 2 * rounds, together);
}

static u64 woken;

static void wake(struct frame *frame)
{
	(void)frame;
	woken = timebase();
	set_decrementer(0x7fffffff);
}

#define SLEEPS 501

/* How late a processor that ceded itself takes the interrupt that it waits for: the median of some short sleeps, which
 * others on the machine disturb least. */
static void measure_wake_up(void)
{
	static u64 late[SLEEPS];
	const u64 sleep = timebase_frequency() / 5000;

	on_interrupt(0x900, wake);
	for (u32 n = 0; n < SLEEPS; n++) {
		u64 begin, found;
		u32 m = n;

		interrupts_off();
		begin = timebase();
		set_decrementer(sleep);
		cede();
		found = woken - begin - sleep;
		for (; m && late[m - 1] > found; m--)
			late[m] = late[m - 1];
		late[m] = found;
	}
	interrupts_off();
	on_interrupt(0x900, 0);
	print("wake-up: 1 rounds in %lu ticks\n", late[SLEEPS / 2]);
}

#define CHECKED 3

/* Run loops until each has taken `enough` ticks. What a few rounds return can be compared with other machines. */
static void measure(const struct loop *loops, u32 count, u64 enough, const char *how)
{
	for (u32 n = 0; n < count; n++) {
		u64 rounds = 1, ticks;

		for (;; rounds *= 2) {
			u64 begin = timebase();

			loops[n].run(rounds);
			ticks = timebase() - begin;
			if (ticks > enough)
				break;
		}
		print("%s%s: %lu rounds in %lu ticks\n", loops[n].name, how, rounds, ticks);
		print("%s%s: result %lx\n", loops[n].name, how, loops[n].run(CHECKED));
	}
}

/* Map the first GiB one to one by radix trees (Power ISA 3.0B, Book III, 5.7.10), and translate addresses from then on:
 * interrupts would not, and none may come. */
static void translate(void)
{
	static u64 root[8192] __attribute__((aligned(65536))), directory[512] __attribute__((aligned(4096)));
	static u64 processes[512] __attribute__((aligned(4096)));

	/* One leaf: valid, referenced, changed, for all accesses. Its directory, the root, the tree of process 0. */
	directory[0] = big64(3ul << 62 | 0x187);
	root[0] = big64(1ul << 63 | (u64)directory | 9);
	processes[0] = big64(2ul << 61 | (u64)root | 5 << 5 | 13);
	if (hypercall(H_REGISTER_PROCESS_TABLE, 0x1d, (u64)processes, 0, 0, 0))
		panic("the process table was not taken");
	interrupts_off();
	set_decrementer(0x7fffffff);
	__asm__ volatile("mtspr 48,%0; isync" : : "r"(0ul) : "memory"); /* PIDR */
	__asm__ volatile("mfmsr 0; ori 0,0,0x30; mtspr 27,0; bcl 20,31,1f; 1: mflr 4; addi 4,4,16; mtspr 26,4; rfid"
			 : : : "r0", "r4", "lr", "memory"); /* MSR[IR], MSR[DR] */
}

int main(void)
{
	u64 enough = timebase_frequency() / 3;

	measure_two(enough);
	measure_wake_up();
	have_system_calls_return();
	numbers_on();

	measure(programs, sizeof(programs) / sizeof(*programs), enough, "");
	measure(operations, sizeof(operations) / sizeof(*operations), enough, "");
	translate();
	measure(programs, sizeof(programs) / sizeof(*programs), enough, ", translated");
	return 0;
}
