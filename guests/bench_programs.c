/* Small programs of the bench guest, each of a kind of its own; a round of each takes some microseconds. */
#include "bench_programs.h"

typedef unsigned short u16;

static u64 state;

/* Begin the sequence anew: what a program finds depends on its rounds alone. */
static void begin(void)
{
	state = 0x9e3779b97f4a7c15;
}

/* The next number of a sequence that looks random (xorshift64*). */
static u64 next(void)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1d;
}

/* ---- multiply: the product of two numbers of 1024 bits ------------------------------------------------------ */

#define LIMBS 16

u64 multiply(u64 rounds)
{
	static u64 a[LIMBS], b[LIMBS], product[2 * LIMBS];

	begin();
	for (u32 n = 0; n < LIMBS; n++)
		a[n] = next(), b[n] = next();
	while (rounds--) {
		for (u32 n = 0; n < LIMBS; n++)
			product[n] = 0;
		for (u32 n = 0; n < LIMBS; n++) {
			u64 carry = 0;

			for (u32 m = 0; m < LIMBS; m++) {
				unsigned __int128 sum = (unsigned __int128)a[n] * b[m] + product[n + m] + carry;

				product[n + m] = (u64)sum;
				carry = (u64)(sum >> 64);
			}
			product[n + LIMBS] = carry;
		}
		a[rounds % LIMBS] ^= product[LIMBS];
	}
	return product[LIMBS];
}

/* ---- copy: pieces of any length from any place to any place -------------------------------------------------- */

#define AREA 8192

static u8 area[2][AREA + 512];

static void copy_bytes(u8 *to, const u8 *from, u32 size)
{
	for (; size >= 8; size -= 8, to += 8, from += 8)
		__builtin_memcpy(to, from, 8);
	while (size--)
		*to++ = *from++;
}

u64 copy(u64 rounds)
{
	begin();
	for (u32 n = 0; n < sizeof area[0]; n++) {
		area[0][n] = (u8)next();
		area[1][n] = 0;
	}
	while (rounds--) {
		u64 draw = next();

		for (u32 n = 0; n < 16; n++, draw = draw * 5 + 3)
			copy_bytes(area[1] + draw % AREA, area[0] + (draw >> 16) % AREA, (u32)(draw >> 32) % 512);
	}
	return area[1][AREA / 2];
}

/* ---- core mix: a list, a matrix, a state machine, and a CRC over what they find ------------------------------ */

struct item {
	struct item *next;
	u32 key, data;
};

#define ITEMS 48
#define SIDE 12

static u16 crc16(u16 crc, u32 value)
{
	for (u32 bit = 0; bit < 32; bit++, value >>= 1)
		crc = (crc ^ value) & 1 ? (u16)(crc >> 1 ^ 0xa001) : (u16)(crc >> 1);
	return crc;
}

static struct item *merged(struct item *a, struct item *b)
{
	struct item head, *last = &head;

	while (a && b) {
		struct item **smaller = a->key <= b->key ? &a : &b;

		last->next = *smaller;
		last = *smaller;
		*smaller = (*smaller)->next;
	}
	last->next = a ? a : b;
	return head.next;
}

static struct item *sorted(struct item *list, u32 count)
{
	struct item *middle = list, *rest;

	if (count < 2) {
		if (list)
			list->next = 0;
		return list;
	}
	for (u32 n = 1; n < count / 2; n++)
		middle = middle->next;
	rest = middle->next;
	return merged(sorted(list, count / 2), sorted(rest, count - count / 2));
}

static u16 with_list(u16 crc)
{
	static struct item items[ITEMS];
	struct item *list = 0, *turned = 0;

	for (u32 n = 0; n < ITEMS; n++) {
		items[n].key = (u32)next() & 0xffff;
		items[n].data = n;
		items[n].next = list;
		list = &items[n];
	}
	for (u32 wanted = 0; wanted < 16; wanted++)
		for (struct item *item = list; item; item = item->next)
			if (item->data == wanted * 3)
				crc = crc16(crc, item->key);
	list = sorted(list, ITEMS);
	while (list) {
		struct item *rest = list->next;

		list->next = turned;
		turned = list;
		list = rest;
	}
	return crc16(crc, turned->key << 16 | turned->next->data);
}

static u16 with_matrix(u16 crc)
{
	static short a[SIDE][SIDE], b[SIDE][SIDE];
	static s32 c[SIDE][SIDE];
	s32 sum = 0;

	for (u32 n = 0; n < SIDE; n++)
		for (u32 m = 0; m < SIDE; m++) {
			a[n][m] = (short)(n * 3 + m + crc);
			b[n][m] = (short)(n - 2 * m + crc);
		}
	for (u32 n = 0; n < SIDE; n++)
		for (u32 m = 0; m < SIDE; m++) {
			s32 element = 0;

			for (u32 k = 0; k < SIDE; k++)
				element += a[n][k] * b[k][m];
			c[n][m] = element;
			sum += element > 1000 ? 10 : (element >> 2) & 0x1f;
		}
	return crc16(crc, (u32)(sum + c[3][5]));
}

static u16 with_states(u16 crc)
{
	static const char text[] = "5012,0x7f,-3.5,+12e4,1e-7,T0.3e-1F,-110.700,+0.64400,abc,5.5.5,99,-,1E+3,,0.25";
	enum { BEGIN, SIGN, WHOLE, FRACTION, EXPONENT, EXPONENT_SIGN, EXPONENT_DIGITS, BAD, STATES } at = BEGIN;
	u32 seen[STATES] = { 0 };

	for (const char *c = text;; c++) {
		u32 digit = (u32)(*c - '0') < 10;

		if (*c == ',' || !*c) {
			seen[at]++;
			at = BEGIN;
			if (!*c)
				break;
			continue;
		}
		switch (at) {
		case BEGIN:
			at = digit ? WHOLE : *c == '+' || *c == '-' ? SIGN : BAD;
			break;
		case SIGN:
			at = digit ? WHOLE : BAD;
			break;
		case WHOLE:
			at = digit ? WHOLE : *c == '.' ? FRACTION : *c == 'e' || *c == 'E' ? EXPONENT : BAD;
			break;
		case FRACTION:
			at = digit ? FRACTION : *c == 'e' || *c == 'E' ? EXPONENT : BAD;
			break;
		case EXPONENT:
			at = digit ? EXPONENT_DIGITS : *c == '+' || *c == '-' ? EXPONENT_SIGN : BAD;
			break;
		case EXPONENT_SIGN:
		case EXPONENT_DIGITS:
			at = digit ? EXPONENT_DIGITS : BAD;
			break;
		default:
			break;
		}
	}
	for (u32 n = 0; n < STATES; n++)
		crc = crc16(crc, seen[n]);
	return crc;
}

u64 core_mix(u64 rounds)
{
	u16 crc = 0;

	begin();
	while (rounds--)
		crc = with_states(with_matrix(with_list(crc)));
	return crc;
}

/* ---- sort: 512 numbers by quicksort, short parts by insertion ------------------------------------------------ */

#define NUMBERS 512

static void quicksort(u32 *first, u32 *last)
{
	while (last - first > 12) {
		u32 pivot = first[(last - first) / 2], *low = first, *high = last;

		while (low <= high) {
			while (*low < pivot)
				low++;
			while (*high > pivot)
				high--;
			if (low <= high) {
				u32 kept = *low;

				*low++ = *high;
				*high-- = kept;
			}
		}
		quicksort(first, high);
		first = low;
	}
	for (u32 *one = first + 1; one <= last; one++) {
		u32 value = *one, *place = one;

		for (; place > first && place[-1] > value; place--)
			*place = place[-1];
		*place = value;
	}
}

u64 sort(u64 rounds)
{
	static u32 numbers[NUMBERS];

	begin();
	while (rounds--) {
		for (u32 n = 0; n < NUMBERS; n++)
			numbers[n] = (u32)next();
		quicksort(numbers, numbers + NUMBERS - 1);
	}
	return numbers[NUMBERS / 2];
}

/* ---- hash: words counted in a table with open addressing (FNV-1a) --------------------------------------------- */

#define PLACES 1024

static u32 spell(u8 *word, u64 number)
{
	u32 length = 0;

	do
		word[length++] = (u8)('a' + number % 26);
	while (number /= 26);
	return length;
}

u64 hash(u64 rounds)
{
	static struct entry { u64 hash; u32 count, length; u8 word[16]; } table[PLACES];
	u64 found = 0;

	begin();
	while (rounds--) {
		for (u32 n = 0; n < PLACES; n++)
			table[n].count = 0;
		for (u32 n = 0; n < 1024; n++) {
			u64 hash = 0xcbf29ce484222325;
			u8 word[16];
			u32 length = spell(word, next() % 700), place;

			for (u32 m = 0; m < length; m++)
				hash = (hash ^ word[m]) * 0x100000001b3;
			for (place = hash % PLACES; table[place].count; place = (place + 1) % PLACES) {
				u32 m = 0;

				if (table[place].hash != hash || table[place].length != length)
					continue;
				while (m < length && table[place].word[m] == word[m])
					m++;
				if (m == length)
					break;
			}
			if (!table[place].count) {
				table[place].hash = hash;
				table[place].length = length;
				for (u32 m = 0; m < length; m++)
					table[place].word[m] = word[m];
			}
			found += ++table[place].count;
		}
	}
	return found;
}

/* ---- strings: lengths, comparisons, searches, numbers out of text ---------------------------------------------- */

static u32 length_of(const char *text)
{
	const char *end = text;

	while (*end)
		end++;
	return (u32)(end - text);
}

static s32 compared(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return (u8)*a - (u8)*b;
}

static const char *found_in(const char *text, const char *wanted)
{
	for (; *text; text++) {
		u32 n = 0;

		while (wanted[n] && text[n] == wanted[n])
			n++;
		if (!wanted[n])
			return text;
	}
	return 0;
}

u64 strings(u64 rounds)
{
	static const char *const lines[] = {
		"The quick brown fox jumps over the lazy dog, twice a day and three times on Sundays",
		"The quick brown fox jumps over the lazy dog, twice a day and three times on Mondays",
		"pack my box with 1200 dozen liquor jugs and 36 of the other kind",
		"how vexingly quick daft zebras jump 77 fences",
	};
	u64 found = 0;

	while (rounds--) {
		for (u32 n = 0; n < 4; n++) {
			const char *line = lines[(n + rounds) % 4], *place = found_in(line, "quick");
			u32 number = 0;

			found += length_of(line) + (place ? (u64)(place - line) : 1);
			found += (u64)compared(line, lines[n]);
			for (; *line; line++)
				number = (u32)(*line - '0') < 10 ? number * 10 + (u32)(*line - '0') : number;
			found += number;
		}
	}
	return found;
}

/* ---- SHA-256 of 1 KiB (FIPS 180-4); the constants are roots of primes, computed at first -------------------------- */

static u32 constants[64];

/* The first 32 bits behind the point of a prime's cube root. */
static u32 cube_root_bits(u64 prime)
{
	u64 low = 0, high = (u64)7 << 32;

	while (low + 1 < high) {
		u64 middle = (low + high) / 2;

		if ((unsigned __int128)middle * middle * middle <= (unsigned __int128)prime << 96)
			low = middle;
		else
			high = middle;
	}
	return (u32)low;
}

static void make_constants(void)
{
	u32 count = 0;

	for (u64 number = 2; count < 64; number++) {
		u64 divisor = 2;

		while (number % divisor)
			divisor++;
		if (divisor == number)
			constants[count++] = cube_root_bits(number);
	}
}

static u32 turned(u32 value, u32 by)
{
	return value >> by | value << (32 - by);
}

static void take_block(u32 *digest, const u8 *block)
{
	u32 words[64], now[8];

	for (u32 n = 0; n < 16; n++)
		words[n] = (u32)block[4 * n] << 24 | (u32)block[4 * n + 1] << 16 | (u32)block[4 * n + 2] << 8 |
			   block[4 * n + 3];
	for (u32 n = 16; n < 64; n++) {
		u32 a = words[n - 15], b = words[n - 2];

		words[n] = words[n - 16] + words[n - 7] + (turned(a, 7) ^ turned(a, 18) ^ a >> 3) +
			   (turned(b, 17) ^ turned(b, 19) ^ b >> 10);
	}
	for (u32 n = 0; n < 8; n++)
		now[n] = digest[n];
	for (u32 n = 0; n < 64; n++) {
		u32 a = now[0], e = now[4];
		u32 first = now[7] + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & now[5]) ^ (~e & now[6])) +
			    constants[n] + words[n];
		u32 second = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) +
			     ((a & now[1]) ^ (a & now[2]) ^ (now[1] & now[2]));

		for (u32 m = 7; m; m--)
			now[m] = now[m - 1];
		now[4] += first;
		now[0] = first + second;
	}
	for (u32 n = 0; n < 8; n++)
		digest[n] += now[n];
}

u64 sha256(u64 rounds)
{
	static const u32 initial[8] = {
		0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
	};
	static u8 message[1024];
	u32 digest[8];

	if (!constants[0])
		make_constants();
	for (u32 n = 0; n < 8; n++)
		digest[n] = initial[n];
	while (rounds--)
		for (u32 at = 0; at < sizeof message; at += 64)
			take_block(digest, message + at);
	return digest[0];
}
