/* Text on the console, and what the compiler expects to find. */
#include <stdarg.h>

#include "guest.h"

/* Up to 16 bytes a hypercall; the first byte is the most significant of the first register. */
struct line {
	u64 word[2];
	u32 length;
};

static void flush(struct line *line)
{
	if (line->length)
		while (hypercall(H_PUT_TERM_CHAR, 0, line->length, line->word[0], line->word[1], 0) == 1)
			; /* H_BUSY */
	line->word[0] = line->word[1] = 0;
	line->length = 0;
}

static void put(struct line *line, char byte)
{
	line->word[line->length >> 3] |= (u64)(u8)byte << (56 - 8 * (line->length & 7));
	if (++line->length == 16)
		flush(line);
}

static void put_number(struct line *line, u64 value, u32 base, int negative, u32 width, char pad)
{
	char digits[24];
	u32 count = 0;

	do {
		digits[count++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	if (negative && pad == ' ')
		digits[count++] = '-';
	else if (negative)
		put(line, '-');
	for (; width > count; width--)
		put(line, pad);
	while (count)
		put(line, digits[--count]);
}

static void print_list(const char *format, va_list list)
{
	struct line line = {{0, 0}, 0};

	for (; *format; format++) {
		u32 width = 0, wide = 0, sharp = 0;
		char pad = ' ';

		if (*format != '%') {
			put(&line, *format);
			continue;
		}
		if (*++format == '#') {
			sharp = 1;
			format++;
		}
		if (*format == '0')
			pad = '0';
		while (*format >= '0' && *format <= '9')
			width = 10 * width + (u32)(*format++ - '0');
		while (*format == 'l') {
			wide = 1;
			format++;
		}
		if (*format == 's') {
			const char *text = va_arg(list, const char *);

			while (*text)
				put(&line, *text++);
		} else if (*format == 'c') {
			put(&line, (char)va_arg(list, int));
		} else if (*format == 'd') {
			s64 value = wide ? va_arg(list, s64) : va_arg(list, int);

			put_number(&line, value < 0 ? -(u64)value : (u64)value, 10, value < 0, width, pad);
		} else if (*format == 'u' || *format == 'x') {
			u64 value = wide ? va_arg(list, u64) : va_arg(list, u32);

			if (sharp) {
				put(&line, '0');
				put(&line, 'x');
			}
			put_number(&line, value, *format == 'u' ? 10 : 16, 0, width, pad);
		} else {
			put(&line, *format);
		}
	}
	flush(&line);
}

void print(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	print_list(format, list);
	va_end(list);
}

void panic(const char *format, ...)
{
	static const char message[] = "the guest gave up; its console says why";
	u32 argument = (u32)(u64)message, status;
	va_list list;

	print("guest: ");
	va_start(list, format);
	print_list(format, list);
	va_end(list);
	print("\n");
	rtas("ibm,os-term", 1, &argument, 1, &status);
	for (;;)
		power_off();
}

int console_byte(void)
{
	static u64 results[4];
	static u32 next;

	if (next == results[0]) {
		next = 0;
		results[0] = 0;
		if (hypercall(H_GET_TERM_CHAR, 0, 0, 0, 0, results) != H_SUCCESS || !results[0])
			return -1;
	}
	next++;
	return (int)(results[1 + ((next - 1) >> 3)] >> (56 - 8 * ((next - 1) & 7)) & 0xff);
}

/* The compiler makes calls of these from loops and structure copies. */

void *memcpy(void *to, const void *from, u64 size)
{
	u8 *t = to;
	const u8 *f = from;

	while (size--)
		*t++ = *f++;
	return to;
}

void *memset(void *to, int byte, u64 size)
{
	u8 *t = to;

	while (size--)
		*t++ = (u8)byte;
	return to;
}
