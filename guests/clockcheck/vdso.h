/* Finds the kernel's own reader of clocks, which a process calls without entering the kernel (the vDSO). */
#ifndef VDSO_H
#define VDSO_H

#include "machine.h"

struct elf_header {
	u8 ident[16];
	u16 type, machine;
	u32 version;
	u64 entry, segments_at, sections_at;
	u32 flags;
	u16 size, segment_size, segments, section_size, sections, names;
};

struct elf_segment {
	u32 type, flags;
	u64 offset, address, physical, file_size, memory_size, align;
};

struct elf_section {
	u32 name, type;
	u64 flags, address, offset, size;
	u32 link, info;
	u64 align, entry_size;
};

struct elf_symbol {
	u32 name;
	u8 info, other;
	u16 section;
	u64 value, size;
};

enum { PT_LOAD = 1, SHT_DYNSYM = 11 };

static int same_text(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

/* Return the address of a function of the vDSO at `base`, or 0. */
static u64 vdso_function(u64 base, const char *name)
{
	const struct elf_header *header = (const void *)base;
	u64 loaded_at = 0;
	int n;

	if (!base)
		return 0;
	for (n = header->segments - 1; n >= 0; n--) {
		const struct elf_segment *segment = (const void *)(base + header->segments_at + n * header->segment_size);

		if (segment->type == PT_LOAD)
			loaded_at = segment->address - segment->offset; /* kernels before 5.13: 1 MiB on Power */
	}
	for (n = 0; n < header->sections; n++) {
		const struct elf_section *sections = (const void *)(base + header->sections_at);
		const struct elf_symbol *symbol = (const void *)(base + sections[n].offset);
		u64 left = sections[n].size / sizeof *symbol;

		if (sections[n].type != SHT_DYNSYM)
			continue;
		for (; left; left--, symbol++)
			if (symbol->section && same_text((const char *)base + sections[sections[n].link].offset + symbol->name, name))
				return base + symbol->value - loaded_at;
	}
	return 0;
}

/* ABI v1 (big-endian Power) calls functions through descriptors, of which the vDSO has none. */
struct function {
	u64 code, toc, environment;
};

#if defined(__powerpc64__) && !defined(__LITTLE_ENDIAN__)
#define CALLABLE(function) ((void *)&(function))
#else
#define CALLABLE(function) ((void *)(function).code)
#endif

#endif
