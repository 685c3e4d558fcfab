/* The bench guest's loops that need floating point and vectors: each runs so many rounds. */
#include "lib/guest.h"

/* Turn floating point and vectors on. Interrupt handlers leave their registers alone. */
void numbers_on(void);

void matrix(u64 rounds);
void bodies(u64 rounds);
void vector_copy(u64 rounds);
void vector_xor(u64 rounds);
void aes(u64 rounds);
