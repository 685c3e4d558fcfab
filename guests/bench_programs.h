/* The bench guest's small programs: fixed-point code as compilers make it of what people write.
 * Each does so many rounds and returns what it found, which depends on their number alone. */
#include "lib/guest.h"

u64 multiply(u64 rounds);
u64 copy(u64 rounds);
u64 core_mix(u64 rounds);
u64 sort(u64 rounds);
u64 hash(u64 rounds);
u64 strings(u64 rounds);
u64 sha256(u64 rounds);
