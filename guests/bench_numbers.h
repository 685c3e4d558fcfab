/* The bench guest's loops that need floating point and vectors: each does so many rounds and returns
 * what it found, which depends on their number alone. */
#include "lib/guest.h"

/* Turn floating point and vectors on. Interrupt handlers leave their registers alone. */
void numbers_on(void);

u64 matrix(u64 rounds);
u64 bodies(u64 rounds);
u64 vector_copy(u64 rounds);
u64 vector_xor(u64 rounds);
u64 aes(u64 rounds);
