/* The bench guest's small programs: fixed-point code as compilers make it of what people write. */
#include "lib/guest.h"

void multiply(u64 rounds);
void copy(u64 rounds);
void core_mix(u64 rounds);
void sort(u64 rounds);
void hash(u64 rounds);
void strings(u64 rounds);
void sha256(u64 rounds);
