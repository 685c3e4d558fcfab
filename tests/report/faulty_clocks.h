/* Puts a fault between the guest's half and the machine: FAULT says which. Included before clockcheck.c. */
#define read_counter true_counter
#define system_call true_call
#include "machine.h"
#undef read_counter
#undef system_call

enum { COUNTER_BACK = 1, CALL_BACK, TIMER_LOST, TIMER_EARLY };

static u64 read_counter(void)
{
	static u64 readings, taken;

	if (FAULT == COUNTER_BACK && ++readings == 200)
		taken = 1UL << 24;
	return true_counter() - taken;
}

static s64 system_call(s64 number, u64 a, u64 b, u64 c, u64 d, u64 e)
{
	static u64 readings, waits, timers;
	s64 result;

	if (FAULT == TIMER_EARLY && number == SYS_timerfd_settime && ++timers == 3) {
		s64 *first = (s64 *)c + 2; /* when it expires first: seconds, nanoseconds */
		s64 due = first[0] * 1000000000 + first[1] - 200000000;

		first[0] = due / 1000000000;
		first[1] = due % 1000000000;
	}
	if (FAULT == TIMER_LOST && number == SYS_ppoll && ++waits == 3)
		return 0;
	result = true_call(number, a, b, c, d, e);
	if (FAULT == CALL_BACK && number == SYS_clock_gettime && a == 1 && ++readings == 50)
		((s64 *)b)[0] -= 3;
	return result;
}
