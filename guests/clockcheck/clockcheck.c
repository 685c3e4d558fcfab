/*
 * clockcheck: checks the clocks of a Linux guest from the inside.
 *
 * On every CPU in turn the program reads the hardware's counter and each of the kernel's clocks, by the vDSO and by the
 * system call, and checks that none goes back. A timer on each CPU in turn wakes the program at a steady pace; the
 * program records how late the timer is. It prints a line per wakeup, which `chronovisor clockcheck` reads:
 *
 *   cc1 hello  arch= kernel= cpus= freq= interval= vdso=     once, at the start
 *   cc1 sample seq= cpu= tb= span= freq= interval= mono= raw= boot= real= monoc= realc= late= lost= skipped= backs=
 *   cc1 back   seq= cpu= clock= via= from= to=               a clock went from one value back to another
 *   cc1 bye    seq= backs= early= lost= skipped=             once, at the end
 *
 * `tb` and `span` are ticks of the counter (the timebase, TSC or CNTVCT), `freq` is in Hz, all else is in nanoseconds
 * or a count. The counter was `tb` before and `tb + span` after the clocks were read. Every line ends in `sum=`, the
 * CRC-32 of all bytes of the line before " sum=", because the kernel's own messages can break into a line.
 *
 * Options: seconds=N (0: for ever), interval=MILLISECONDS, cpus=0,2-3. As init the program takes them from the kernel's
 * command line (clockcheck.seconds=20), mounts what it needs, and powers the machine off at the end.
 */
#include "machine.h"
#include "vdso.h"

enum {
	BACKS_SHOWN = 8,          /* lines about clocks that went back, per sample */
	CPUS = 8192,              /* the size of the masks of CPUs, in bits */
	CPUS_VISITED = 64,        /* CPUs that are visited between two samples */
	ROUNDS = 50,              /* readings of all clocks on each CPU visited */
	TRIES = 8,                /* readings for a sample, of which the quickest is printed */
	CLOCK_MONOTONIC = 1,
	CLOCK_MONOTONIC_RAW = 4,
	O_RDWR = 2,
	POLLIN = 1,
	TIMER_ABSTIME = 1,
	EINVAL = 22,
	INIT = 1,                 /* the process id */
	AT_FDCWD = -100,
	AT_SYSINFO_EHDR = 33,
};

#define SECOND 1000000000UL
#define GRACE (2 * SECOND)        /* a timer that has not fired so long after its time is lost */

struct timespec {
	s64 sec, nsec;
};

struct clock {
	const char *name;
	s64 id;
	u64 last;                 /* the newest reading, by whatever way and on whatever CPU */
	int absent;               /* the kernel has no such clock */
};

static struct clock clocks[] = {
	{"mono", 1, 0, 0}, {"raw", 4, 0, 0}, {"boot", 7, 0, 0}, {"real", 0, 0, 0}, {"monoc", 6, 0, 0}, {"realc", 5, 0, 0},
};
enum { CLOCKS = sizeof clocks / sizeof *clocks };

static struct clock counter = {"tb", 0, 0, 0};
static struct function vdso_reader;
static u64 cpus[CPUS / 64], seconds = 20, interval = 100000000, frequency;
static u64 sequence, backs, backs_shown, early, lost, skipped;
static u64 cpu;

/* ---- lines */

struct line {
	u64 length;
	char text[480];
};

static void put(struct line *line, const char *text)
{
	/* What follows the text, its checksum and the line's end, has a place of its own. */
	while (*text && line->length < sizeof line->text - 16)
		line->text[line->length++] = *text++;
}

static void put_number(struct line *line, u64 value)
{
	char digits[24];
	int at = sizeof digits;

	digits[--at] = 0;
	do
		digits[--at] = '0' + value % 10;
	while (value /= 10);
	put(line, digits + at);
}

static void field(struct line *line, const char *name, u64 value)
{
	put(line, " ");
	put(line, name);
	put(line, "=");
	put_number(line, value);
}

static void field_text(struct line *line, const char *name, const char *text)
{
	put(line, " ");
	put(line, name);
	put(line, "=");
	put(line, text);
}

static void begin(struct line *line, const char *kind)
{
	line->length = 0;
	put(line, "cc1 ");
	put(line, kind);
}

static u32 checksum(const char *text, u64 length)
{
	u32 sum = ~0U;

	while (length--) {
		int bit;

		sum ^= (u8)*text++;
		for (bit = 0; bit < 8; bit++)
			sum = sum >> 1 ^ (sum & 1 ? 0xedb88320U : 0);
	}
	return ~sum;
}

static void finish(u64 status)
{
	for (;;)
		system_call(SYS_exit_group, status, 0, 0, 0, 0);
}

static void print(const char *text, u64 length)
{
	while (length) {
		s64 written = system_call(SYS_write, 1, (u64)text, length, 0, 0);

		if (written <= 0)
			finish(1);
		text += written;
		length -= written;
	}
}

static void end(struct line *line)
{
	u32 sum = checksum(line->text, line->length);
	int shift;

	put(line, " sum=");
	for (shift = 28; shift >= 0; shift -= 4)
		line->text[line->length++] = "0123456789abcdef"[sum >> shift & 15];
	line->text[line->length++] = '\n';
	print(line->text, line->length);
}

/* ---- clocks */

static u64 nanoseconds(const struct timespec *time)
{
	return time->sec * SECOND + time->nsec;
}

static u64 read_by_call(s64 id)
{
	struct timespec time = {0, 0};

	system_call(SYS_clock_gettime, id, (u64)&time, 0, 0, 0);
	return nanoseconds(&time);
}

static u64 read_by_vdso(s64 id)
{
	struct timespec time = {0, 0};
	s64 (*reader)(s64, struct timespec *) = CALLABLE(vdso_reader);

	if (!vdso_reader.code || reader(id, &time))
		return read_by_call(id);
	return nanoseconds(&time);
}

static void went_back(const struct clock *clock, const char *via, u64 now)
{
	struct line line;

	backs++;
	if (backs_shown++ >= BACKS_SHOWN)
		return;
	begin(&line, "back");
	field(&line, "seq", sequence);
	field(&line, "cpu", cpu);
	field_text(&line, "clock", clock->name);
	field_text(&line, "via", via);
	field(&line, "from", clock->last);
	field(&line, "to", now);
	end(&line);
}

static void compare(struct clock *clock, const char *via, u64 now)
{
	if ((s64)(now - clock->last) < 0)
		went_back(clock, via, now);
	clock->last = now;
}

/* Read every clock by both ways, and compare each reading with the one before. */
static void check_clocks(void)
{
	int n;

	compare(&counter, "counter", read_counter());
	for (n = 0; n < CLOCKS; n++)
		if (!clocks[n].absent) {
			compare(&clocks[n], "vdso", read_by_vdso(clocks[n].id));
			compare(&clocks[n], "call", read_by_call(clocks[n].id));
		}
	compare(&counter, "counter", read_counter());
}

static void find_clocks(void)
{
	struct timespec time;
	int n;

	for (n = 0; n < CLOCKS; n++) {
		clocks[n].absent = system_call(SYS_clock_gettime, clocks[n].id, (u64)&time, 0, 0, 0) != 0;
		clocks[n].last = clocks[n].absent ? 0 : nanoseconds(&time);
	}
	counter.last = read_counter();
}

/* Read the raw clock and the counter, as nearly at one moment as a few tries allow. */
static void raw_clock_at(u64 *ticks, u64 *raw)
{
	u64 span = ~0UL;
	int try;

	for (try = 0; try < TRIES; try++) {
		u64 before = read_counter(), now = read_by_vdso(CLOCK_MONOTONIC_RAW), after = read_counter();

		if (after - before < span) {
			span = after - before;
			*ticks = before + span / 2;
			*raw = now;
		}
	}
}

/* Find the counter's frequency: what the hardware or the kernel says, or else what the raw clock measures. */
static void find_frequency(u64 vdso)
{
#if defined(__powerpc64__)
	struct function function = {vdso_function(vdso, "__kernel_get_tbfreq"), 0, 0};
	u64 (*ask)(void) = CALLABLE(function);

	if (function.code)
		frequency = ask();
#elif defined(__aarch64__)
	__asm__("mrs %0,cntfrq_el0" : "=r"(frequency));
#endif
	(void)vdso;
	if (!frequency) {
		u64 ticks, ended_at, begun, now, tries = 100000000;

		raw_clock_at(&ticks, &begun);
		do
			now = read_by_vdso(CLOCK_MONOTONIC_RAW);
		while (now - begun < SECOND / 5 && --tries);
		raw_clock_at(&ended_at, &now);
		/* In parts, so that nothing overflows: ticks per nanosecond times 2^20, then per second. */
		frequency = now == begun ? 0 : ((ended_at - ticks) << 20) / (now - begun) * (SECOND >> 9) >> 11;
	}
}

/* ---- CPUs */

static int has_cpu(u64 number)
{
	return number < CPUS && cpus[number / 64] >> number % 64 & 1;
}

static u64 next_cpu(u64 number)
{
	do
		number = (number + 1) % CPUS;
	while (!has_cpu(number));
	return number;
}

/* Go to a CPU. One that has been taken away from the guest meanwhile is left out. */
static void go_to(u64 number)
{
	static u64 mask[CPUS / 64];

	mask[cpu / 64] = 0;
	mask[number / 64] = 1UL << number % 64;
	system_call(SYS_sched_setaffinity, 0, sizeof mask, (u64)mask, 0, 0);
	cpu = number;
}

static void visit_cpus(void)
{
	u64 first = cpu, visited, round;

	for (visited = 0; visited < CPUS_VISITED; visited++) {
		go_to(next_cpu(cpu));
		for (round = 0; round < ROUNDS; round++)
			check_clocks();
		if (cpu == first)
			break;
	}
}

/* ---- samples */

static void print_sample(s64 late)
{
	u64 best[CLOCKS], tb = 0, span = ~0UL;
	struct line line;
	int try, n;

	for (try = 0; try < TRIES; try++) {
		u64 read[CLOCKS], before = read_counter(), after;

		for (n = 0; n < CLOCKS; n++)
			read[n] = clocks[n].absent ? 0 : read_by_vdso(clocks[n].id);
		after = read_counter();
		if (after - before < span) {
			span = after - before;
			tb = before;
			for (n = 0; n < CLOCKS; n++)
				best[n] = read[n];
		}
	}
	begin(&line, "sample");
	field(&line, "seq", sequence);
	field(&line, "cpu", cpu);
	field(&line, "tb", tb);
	field(&line, "span", span);
	field(&line, "freq", frequency);
	field(&line, "interval", interval);
	for (n = 0; n < CLOCKS; n++)
		if (!clocks[n].absent)
			field(&line, clocks[n].name, best[n]);
	put(&line, " late=");
	put(&line, late < 0 ? "-" : "");
	put_number(&line, late < 0 ? -late : late);
	field(&line, "lost", lost);
	field(&line, "skipped", skipped);
	field(&line, "backs", backs);
	end(&line);
}

/* Wait on this CPU for a timer that is set to `due`. Return by how much it was late; negative: early. */
static s64 wait_until(s64 timer, u64 due)
{
	struct {
		struct timespec period, first;
	} setting = {{0, 0}, {due / SECOND, due % SECOND}};
	struct {
		u32 file;
		short wanted, found;
	} poll = {timer, POLLIN, 0};
	u64 now = read_by_vdso(CLOCK_MONOTONIC), patience = (due > now ? due - now : 0) + GRACE, fired;
	struct timespec limit = {patience / SECOND, patience % SECOND};
	s64 late;

	system_call(SYS_timerfd_settime, timer, TIMER_ABSTIME, (u64)&setting, 0, 0);
	if (system_call(SYS_ppoll, (u64)&poll, 1, (u64)&limit, 0, 0) == 0)
		lost++;
	else
		system_call(SYS_read, timer, (u64)&fired, sizeof fired, 0, 0);
	late = read_by_vdso(CLOCK_MONOTONIC) - due;
	early += late < 0;
	return late;
}

static void check(void)
{
	s64 timer = system_call(SYS_timerfd_create, CLOCK_MONOTONIC, 0, 0, 0, 0);
	u64 begun = read_by_vdso(CLOCK_MONOTONIC), due = begun, now;
	struct line line;
	s64 late;

	go_to(next_cpu(CPUS - 1));
	while (!seconds || due - begun < seconds * SECOND) {
		go_to(next_cpu(cpu));
		due += interval;
		now = read_by_vdso(CLOCK_MONOTONIC);
		if (due + interval < now) {
			u64 late_by = (now - due) / interval;

			skipped += late_by;
			due += late_by * interval;
		} else if (due > now + 2 * interval) {
			/* The clock went back: wait for no time that is so far ahead. */
			begun -= due - now;
			due = now + interval;
		}
		late = wait_until(timer, due);
		backs_shown = 0;
		check_clocks();
		print_sample(late);
		visit_cpus();
		sequence++;
	}
	begin(&line, "bye");
	field(&line, "seq", sequence);
	field(&line, "backs", backs);
	field(&line, "early", early);
	field(&line, "lost", lost);
	field(&line, "skipped", skipped);
	end(&line);
}

/* ---- start and end */

static const char *after(const char *text, const char *start)
{
	while (*start)
		if (*text++ != *start++)
			return 0;
	return text;
}

/* Read a number of at most ten digits; return what follows it, or 0 if there is none. */
static const char *number(const char *text, u64 *value)
{
	const char *first = text;

	for (*value = 0; *text >= '0' && *text <= '9' && text - first < 10; text++)
		*value = *value * 10 + *text - '0';
	return text == first || (*text >= '0' && *text <= '9') ? 0 : text;
}

static int ends(const char *text)
{
	return text && (!*text || *text == ' ' || *text == '\n');
}

/* Keep the CPUs that a list like 0,2-3 names; return what follows it, or 0. */
static const char *choose_cpus(const char *text)
{
	static u64 chosen[CPUS / 64];
	u64 first, last, n, any = 0;

	for (;; text++) {
		if (!(text = number(text, &first)))
			return 0;
		last = first;
		if (*text == '-' && !(text = number(text + 1, &last)))
			return 0;
		for (n = first; n <= last && n < CPUS; n++)
			chosen[n / 64] |= 1UL << n % 64;
		if (*text != ',')
			break;
	}
	for (n = 0; n < CPUS / 64; n++)
		any |= cpus[n] & chosen[n];
	if (!any)
		return 0;
	for (n = 0; n < CPUS / 64; n++)
		cpus[n] &= chosen[n];
	return text;
}

/* Take an option; return whether it makes sense. */
static int take(const char *word)
{
	const char *value;
	u64 given;

	if ((value = after(word, "seconds="))) {
		if (!ends(number(value, &given)))
			return 0;
		seconds = given;
		return 1;
	}
	if ((value = after(word, "interval="))) {
		if (!ends(number(value, &given)) || !given || given > 60000)
			return 0;
		interval = given * 1000000;
		return 1;
	}
	if ((value = after(word, "cpus=")))
		return ends(choose_cpus(value));
	return 0;
}

static void complain(const char *word)
{
	struct line line;

	line.length = 0;
	put(&line, "clockcheck: cannot take \"");
	for (; !ends(word) && line.length < 200; word++)
		line.text[line.length++] = *word;
	put(&line, "\": give seconds=N, interval=MILLISECONDS (1 to 60000), cpus=LIST (such as 0,2-3)\n");
	print(line.text, line.length);
}

static void take_from_kernel(void)
{
	static char text[4097];
	s64 file = system_call(SYS_openat, AT_FDCWD, (u64)"/proc/cmdline", 0, 0, 0);
	s64 length = file < 0 ? 0 : system_call(SYS_read, file, (u64)text, sizeof text - 1, 0, 0);
	const char *at = text, *word;

	text[length > 0 ? length : 0] = 0;
	while (*at) {
		if ((word = after(at, "clockcheck.")) && !take(word))
			complain(word);
		while (!ends(at))
			at++;
		while (*at == ' ' || *at == '\n')
			at++;
	}
}

static void mount(const char *kind, const char *at)
{
	system_call(SYS_mount, (u64)kind, (u64)at, (u64)kind, 0, 0);
}

/* As init: have /proc and /dev, and a console even if the initramfs has no device file for it. */
static void be_init(void)
{
	s64 file;

	mount("proc", "/proc");
	mount("devtmpfs", "/dev");
	file = system_call(SYS_openat, AT_FDCWD, (u64)"/dev/console", O_RDWR, 0, 0);
	while (file >= 0 && file < 2)
		file = system_call(SYS_openat, AT_FDCWD, (u64)"/dev/console", O_RDWR, 0, 0);
	take_from_kernel();
}

static void power_off(void)
{
	system_call(SYS_sync, 0, 0, 0, 0, 0);
	system_call(SYS_reboot, 0xfee1dead, 0x28121969, 0x4321fedc, 0, 0);
	for (;;)
		system_call(SYS_ppoll, 0, 0, 0, 0, 0);
}

static void say_hello(u64 count)
{
	static char names[6][65];
	struct line line;

	system_call(SYS_uname, (u64)names, 0, 0, 0, 0);
	begin(&line, "hello");
	field_text(&line, "arch", MACHINE);
	field_text(&line, "kernel", names[2]);
	field(&line, "cpus", count);
	field(&line, "freq", frequency);
	field(&line, "interval", interval);
	field(&line, "vdso", vdso_reader.code != 0);
	end(&line);
}

/* `stack` is the process's first: the number of arguments, their addresses, 0, the environment's, 0, pairs of values. */
__attribute__((used)) void start(u64 *stack)
{
	char **arguments = (char **)(stack + 1);
	u64 count = stack[0], *pair = stack + count + 2, vdso = 0, n, known = 0;
	int init = system_call(SYS_getpid, 0, 0, 0, 0, 0) == INIT;

	while (*pair++)
		;
	for (; pair[0]; pair += 2)
		if (pair[0] == AT_SYSINFO_EHDR)
			vdso = pair[1];
	vdso_reader.code = vdso_function(vdso, VDSO_CLOCK_GETTIME);
	system_call(SYS_sched_getaffinity, 0, sizeof cpus, (u64)cpus, 0, 0);
	if (init)
		be_init();
	for (n = 1; n < count && !init; n++)
		if (!take(arguments[n])) {
			complain(arguments[n]);
			finish(2);
		}
	find_clocks();
	find_frequency(vdso);
	for (n = 0; n < CPUS; n++)
		known += has_cpu(n);
	say_hello(known);
	check();
	if (init)
		power_off();
	finish(0);
}
