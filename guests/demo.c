/* A guest that watches its own time, and says what it saw when it is asked.
 *
 * It believes nothing but its own readings of the timebase. It counts the steps between them, whether any goes back
 * (on one vCPU, or from one to another), whether each decrementer interrupt that it asked for comes, and when, and
 * whether each entry of its dispatch trace log lies between two of its readings. All times are timebase ticks.
 *
 * Commands, a byte each on the console, looked for after every decrementer interrupt:
 *   r  report, in one line of key=value
 *   t  print the timebase, 16 hexadecimal digits in one hypercall, read just after an entry from user space
 *   x  make 100 hypercalls that go to user space and back: as many entries and exits
 *   q  report, and power off
 *
 * Command line: vcpus=N (2 to 8) starts no more than N vCPUs.
 */
#include "lib/guest.h"

#define VPA_SIZE 640
#define VPA_LENGTH 0x04
#define VPA_DTL_MASK 0xb8
#define VPA_DTL_INDEX 0x218
#define REGISTER_VPA (1UL << 45)
#define REGISTER_DTL (2UL << 45)
#define LOG_ENTRIES 85

#define PERIOD 512000UL       /* of the decrementer's deadlines: 1 ms */
#define LATE 128000UL         /* an interrupt not here at a reading this long after its deadline is late … */
#define LOST (4 * PERIOD)     /* … and lost if it is not here at this, nor after some more looks (a host can be busy) */
#define LOOKS 256
#define NEVER 0x7fffffff

struct dispatch {
	u8 reasons[2];
	unsigned short processor;
	u32 waits[3];
	u64 timebase; /* big-endian, as all of it */
	u64 rest[3];
};

/* Shared with the hypervisor: big-endian, aligned as the PAPR asks. */
static u8 vpa[VPA_SIZE] __attribute__((aligned(1024)));
static struct dispatch trace_log[LOG_ENTRIES] __attribute__((aligned(4096)));

/* ---- readings ---------------------------------------------------------------------------------------------- */

static u64 readings, smallest = ~0UL, largest, back;
static u32 others; /* vCPUs beside vCPU 0 */
static volatile u64 latest[MAX_CPUS], readings_of[MAX_CPUS], back_of[MAX_CPUS]; /* by vCPU; each writes its own */

static int before(u64 a, u64 b)
{
	return (s64)(a - b) < 0;
}

/* Read the timebase on vCPU 0 and compare it with the reading before, and with the last one of another vCPU. */
static u64 look(void)
{
	u64 elsewhere = others ? latest[1 + readings % others] : 0, last = latest[0], now = timebase();
	u64 step = now - last;

	if (elsewhere && before(now, elsewhere))
		back_of[0]++;
	if (readings++) {
		if (before(now, last))
			back++;
		else if (step > largest)
			largest = step;
		if (step < smallest)
			smallest = step;
	}
	latest[0] = now;
	return now;
}

/* Any other vCPU: compare its time with its own before, and with vCPU 0's. */
static void watch_vcpu_0(u64 cpu)
{
	set_decrementer(NEVER);
	for (;;) {
		u64 elsewhere = latest[0], now = timebase();

		if (before(now, elsewhere) || (readings_of[cpu] && before(now, latest[cpu])))
			back_of[cpu]++;
		latest[cpu] = now;
		readings_of[cpu]++;
	}
}

/* ---- the decrementer --------------------------------------------------------------------------------------- */

static volatile u64 deadline, asked, taken, early, late, lost, ticked;
static u64 overdue, looks; /* the deadline that was found to be late, and looks since then */

/* Ask for an interrupt at the next multiple of PERIOD. */
static void ask_for_interrupt(void)
{
	u64 now = timebase();

	deadline = now - now % PERIOD + PERIOD;
	asked++;
	set_decrementer((s64)(deadline - timebase()));
}

static void decrementer_interrupt(struct frame *frame)
{
	u64 now = timebase();

	(void)frame;
	if (before(now, latest[0]))
		back++;
	if (before(now, deadline)) {
		early++;
		set_decrementer((s64)(deadline - now));
		return;
	}
	taken++;
	ticked = 1;
	ask_for_interrupt();
}

/* The interrupt comes before the next instruction, so a reading behind the deadline means that it did not. */
static void check_deadline(void)
{
	u64 due = deadline, now = look();

	if (due != deadline || before(now, due + LATE))
		return;
	if (overdue != due) {
		overdue = due;
		looks = 0;
		late++;
	}
	if (++looks > LOOKS && !before(now, due + LOST)) {
		lost++;
		ticked = 1;
		interrupts_off();
		ask_for_interrupt();
		interrupts_on();
	}
}

/* ---- the dispatch trace log -------------------------------------------------------------------------------- */

static u64 entries, outside, seen, checked_at;

static u64 log_index(void)
{
	return big64(*(volatile u64 *)(vpa + VPA_DTL_INDEX));
}

/* Whatever was logged since the last check happened after it and before now. */
static void check_log(void)
{
	u64 now, index = log_index();

	if (index != seen) {
		if (index < seen)
			seen = 0; /* a new host writes the log from its start */
		if (index - seen > LOG_ENTRIES)
			seen = index - LOG_ENTRIES;
		now = timebase();
		for (; seen != index; seen++) {
			u64 at = big64(trace_log[seen % LOG_ENTRIES].timebase);

			entries++;
			if (before(at, checked_at) || before(now, at))
				outside++;
		}
	}
	checked_at = latest[0];
}

static void register_areas(void)
{
	*(volatile unsigned short *)(vpa + VPA_LENGTH) =
#ifdef __LITTLE_ENDIAN__
		__builtin_bswap16(VPA_SIZE);
#else
		VPA_SIZE;
#endif
	vpa[VPA_DTL_MASK] = 7;
	*(volatile u32 *)((u8 *)trace_log + 4) = big32(sizeof trace_log);
	checked_at = look();
	if (hypercall(H_REGISTER_VPA, REGISTER_VPA, 0, (u64)vpa, 0, 0) != H_SUCCESS ||
	    hypercall(H_REGISTER_VPA, REGISTER_DTL, 0, (u64)trace_log, 0, 0) != H_SUCCESS)
		panic("the virtual processor area and its log cannot be registered");
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

#define WORDS 2048
static u64 words[WORDS], sum, state = 0x9e3779b97f4a7c15UL;

static void change_a_word(void)
{
	u64 *word;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	word = &words[state % WORDS];
	sum += state - *word;
	*word = state;
}

static int memory_is_intact(void)
{
	u64 total = 0;
	u32 i;

	for (i = 0; i < WORDS; i++)
		total += words[i];
	return total == sum;
}

/* ---- commands ---------------------------------------------------------------------------------------------- */

static void report(void)
{
	u64 number, came, due, now, readings_others = 0, back_between = 0;
	u32 cpu;

	do { /* with no interrupt in between, so that all four belong together */
		number = asked;
		came = taken;
		due = deadline;
		now = timebase();
	} while (number != asked);
	number -= before(now, due); /* one may be still to come */
	for (cpu = 0; cpu <= others; cpu++) {
		readings_others += readings_of[cpu];
		back_between += back_of[cpu];
	}
	print("guest: readings=%lu smallest_step=%lu largest_step=%lu back=%lu readings_others=%lu back_between=%lu "
	      "expected=%lu taken=%lu early=%lu late=%lu lost=%lu entries=%lu outside=%lu memory=%s\n",
	      readings, smallest, largest, back, readings_others, back_between, number, came, early, late, lost,
	      entries, outside, memory_is_intact() ? "intact" : "CHANGED");
}

static void go_to_user_space(u32 times)
{
	static u64 nothing[4];

	while (times--)
		hypercall(H_PUT_TERM_CHAR, 0, 0, 0, 0, nothing);
}

/* From the entry before it to the reading the instructions are the same ones every time. */
static void print_timebase(void)
{
	u64 now, word[2] = {0, 0};
	u32 i;

	interrupts_off(); /* so that none comes between */
	go_to_user_space(1);
	now = timebase();
	for (i = 0; i < 16; i++)
		word[i >> 3] = word[i >> 3] << 8 | (u8)"0123456789abcdef"[now >> (60 - 4 * i) & 15];
	hypercall(H_PUT_TERM_CHAR, 0, 16, word[0], word[1], 0);
	interrupts_on();
	print("\n");
}

static void obey(int command)
{
	switch (command) {
	case 'r':
		report();
		break;
	case 't':
		print_timebase();
		break;
	case 'x':
		go_to_user_space(100);
		break;
	case 'q':
		report();
		power_off();
	}
}

/* How many vCPUs to start: all there are, or N where the command line is "vcpus=N". */
static u32 wanted_vcpus(void)
{
	static const char option[] = "vcpus=";
	u32 length, i;
	const char *line = device_tree_property("bootargs", &length);

	for (i = 0; line && option[i]; i++)
		if (i >= length || line[i] != option[i])
			return MAX_CPUS;
	return line && i < length ? (u32)(line[i] - '0') : MAX_CPUS;
}

int main(void)
{
	u32 wanted = wanted_vcpus();

	register_areas();
	while (others + 1 < wanted && !start_cpu(others + 1, watch_vcpu_0, others + 1))
		others++;
	print("guest: watching, %u vCPUs\n", others + 1);
	on_interrupt(0x900, decrementer_interrupt);
	ask_for_interrupt();
	interrupts_on();
	for (;;) {
		check_deadline();
		check_log();
		change_a_word();
		if (ticked) {
			ticked = 0;
			obey(console_byte());
		}
	}
}
