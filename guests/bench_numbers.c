/* Loops of the bench guest that compute with floating-point numbers and vectors. This file alone is compiled for
 * them. */
#include "bench_numbers.h"

#define SIZE 16
#define WORDS 8192

static double left[SIZE][SIZE], right[SIZE][SIZE], product[SIZE][SIZE];

/* The bits of a double. */
static u64 bits(double value)
{
	u64 found;

	__builtin_memcpy(&found, &value, sizeof found);
	return found;
}

/* Turn the facilities on (MSR[FP], MSR[VEC], MSR[VSX]). */
void numbers_on(void)
{
	u64 msr;

	__asm__ volatile("mfmsr %0" : "=r"(msr));
	msr |= 1ul << 13 | 1ul << 25 | 1ul << 23;
	__asm__ volatile("mtmsrd %0; isync" : : "r"(msr) : "memory");
}

/* A product of two matrices of 16 by 16: multiply-add, loads and stores of doubles. */
u64 matrix(u64 rounds)
{
	for (u32 n = 0; n < SIZE; n++)
		for (u32 m = 0; m < SIZE; m++) {
			left[n][m] = 1.0 / (n + m + 1);
			right[n][m] = n == m ? 1.25 : 0.1 * (n + 2 * m);
		}
	while (rounds--) {
		for (u32 n = 0; n < SIZE; n++)
			for (u32 m = 0; m < SIZE; m++) {
				double sum = 0;

				for (u32 k = 0; k < SIZE; k++)
					sum += left[n][k] * right[k][m];
				product[n][m] = sum;
			}
		__asm__ volatile("" : : "r"(left), "r"(right), "r"(product) : "memory");
	}
	return bits(product[3][5]);
}

struct body {
	double at[3], speed[3], mass;
};

/* One step of bodies that attract each other: sums, products, quotients, square roots. */
u64 bodies(u64 rounds)
{
	static struct body all[5];

	for (u32 n = 0; n < 5; n++) {
		for (u32 d = 0; d < 3; d++) {
			all[n].at[d] = n * 1.7 + d * 0.9 - (double)(n * d) * 0.31;
			all[n].speed[d] = 0.01 * (double)(n - d);
		}
		all[n].mass = 1.0 / (1 + 3 * n);
	}
	while (rounds--) {
		for (u32 n = 0; n < 5; n++)
			for (u32 m = n + 1; m < 5; m++) {
				double away[3], square = 0.01, pull;

				for (u32 d = 0; d < 3; d++) {
					away[d] = all[n].at[d] - all[m].at[d];
					square += away[d] * away[d];
				}
				pull = 0.001 / (square * __builtin_sqrt(square));
				for (u32 d = 0; d < 3; d++) {
					all[n].speed[d] -= away[d] * all[m].mass * pull;
					all[m].speed[d] += away[d] * all[n].mass * pull;
				}
			}
		for (u32 n = 0; n < 5; n++)
			for (u32 d = 0; d < 3; d++)
				all[n].at[d] += 0.001 * all[n].speed[d];
	}
	return bits(all[0].at[0]);
}

typedef u64 vector __attribute__((vector_size(16)));

static vector from[WORDS / 2], to[WORDS / 2];

static void fill(void)
{
	for (u32 n = 0; n < WORDS / 2; n++) {
		from[n] = (vector){ n * 0x9e3779b97f4a7c15, ~(u64)n };
		to[n] = (vector){ 0, 0 };
	}
}

/* A copy of 64 KiB by vectors. */
u64 vector_copy(u64 rounds)
{
	fill();
	while (rounds--) {
		for (u32 n = 0; n < WORDS / 2; n++)
			to[n] = from[n];
		__asm__ volatile("" : : "r"(from), "r"(to) : "memory");
	}
	return to[WORDS / 4][0];
}

/* The exclusive or of two blocks of 64 KiB, by vectors. */
u64 vector_xor(u64 rounds)
{
	fill();
	while (rounds--) {
		for (u32 n = 0; n < WORDS / 2; n++)
			to[n] ^= from[n];
		__asm__ volatile("" : : "r"(from), "r"(to) : "memory");
	}
	return to[WORDS / 4][0];
}

/* A chain of 64 blocks through ten rounds of AES, by the processor's own instructions: vcipher, vcipherlast. */
u64 aes(u64 rounds)
{
	static vector blocks[64], keys[11];
	vector chained = { 0, 0 };

	for (u32 n = 0; n < 11; n++)
		keys[n] = (vector){ n * 0x9e3779b97f4a7c15, ~(u64)n * 0xbf58476d1ce4e5b9 };
	for (u32 n = 0; n < 64; n++)
		blocks[n] = (vector){ n, ~(u64)n };
	while (rounds--) {
		for (u32 n = 0; n < 64; n++) {
			chained ^= blocks[n] ^ keys[0];
			for (u32 m = 1; m < 10; m++)
				__asm__("vcipher %0,%0,%1" : "+v"(chained) : "v"(keys[m]));
			__asm__("vcipherlast %0,%0,%1" : "+v"(chained) : "v"(keys[10]));
			blocks[n] = chained;
		}
		__asm__ volatile("" : : "r"(blocks) : "memory");
	}
	return chained[0] ^ chained[1];
}
