/* A guest that writes its memory at a steady rate by its own timebase, and says how it gets on: what a move has to
 * keep up with.
 *
 * It waits for a line on its console, "MEBIBYTES RATE", fills so much memory from 64 MiB on, and then writes to its
 * pages in turn so that RATE million bytes of pages are touched each second; 0 for none. What time is left it counts.
 * Two hundred times a second, whatever the host does, it prints a line of numbers in hexadecimal:
 *
 *     timebase  pages written  loops counted  largest step of its timebase since the line before (ticks)
 */
#include "lib/guest.h"

#define FROM (64UL << 20)
#define PAGE 4096UL
#define LINES 200 /* a second */

static u64 filled, rate; /* bytes, bytes a second */

/* A decimal number from the console, up to a byte that is no digit. */
static u64 number(void)
{
	u64 value = 0;
	int byte;

	while ((byte = console_byte()) < '0' || byte > '9')
		;
	do {
		value = 10 * value + (u64)(byte - '0');
		while ((byte = console_byte()) < 0)
			;
	} while (byte >= '0' && byte <= '9');
	return value;
}

static void fill(void)
{
	volatile u64 *word = (volatile u64 *)FROM, *end = (volatile u64 *)(FROM + filled);
	u64 value = 0x9e3779b97f4a7c15UL;

	__asm__ volatile("" : "+r"(word), "+r"(end)); /* a fixed address is no object that the compiler knows */
	while (word < end) {
		*word++ = value;
		value += 0x9e3779b97f4a7c15UL;
	}
}

int main(void)
{
	u64 frequency = timebase_frequency(), written = 0, counted = 0, largest = 0, begun, last, line, now, at = FROM;

	filled = number() << 20;
	rate = number() * 1000000;
	fill();
	print("load: ready\n");
	begun = last = line = timebase();
	for (;;) {
		u64 due;

		now = timebase();
		if (now - last > largest)
			largest = now - last;
		last = now;
		/* In steps of a millisecond, which neither overflow nor drift. */
		due = (now - begun) / (frequency / 1000) * (rate / 1000) / PAGE;
		if (filled && written < due) {
			*(volatile u64 *)at += 1;
			at = at + PAGE < FROM + filled ? at + PAGE : FROM;
			written++;
		} else {
			counted++;
		}
		if (now - line >= frequency / LINES) {
			print("%lx %lx %lx %lx\n", now, written, counted, largest);
			line = now;
			largest = 0;
		}
	}
}
