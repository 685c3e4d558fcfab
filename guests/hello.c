/* Say hello, read the timebase twice, take one decrementer interrupt, power off. */
#include "lib/guest.h"

static volatile u64 fired;

static void decrementer_interrupt(struct frame *frame)
{
	(void)frame;
	fired = timebase();
	set_decrementer(0x7fffffff);
}

int main(void)
{
	u64 first = timebase(), due;

	print("Hello from a %s-endian Power guest.\n",
#ifdef __LITTLE_ENDIAN__
	      "little"
#else
	      "big"
#endif
	);
	print("timebase %#lx, %s\n", first, timebase() > first ? "and it goes forward" : "AND IT STANDS STILL");
	on_interrupt(0x900, decrementer_interrupt);
	due = timebase() + 1000000;
	set_decrementer(1000000);
	interrupts_on();
	while (!fired)
		cede();
	interrupts_off();
	print("decrementer interrupt %s\n", fired >= due ? "on time" : "TOO EARLY");
	return 0;
}
