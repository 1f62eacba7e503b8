/* account.h - what became of each part of a teacher that an initialisation tried to reuse, over all layers. */
#ifndef CAB_DISTILL_ACCOUNT_H
#define CAB_DISTILL_ACCOUNT_H

#include "models/part.h"

enum { CAB_REASON_MAX = 96 };

typedef struct cab_account {
    const char *name;
    int copied, tried;
    char reason[CAB_REASON_MAX]; /* the last one for not copying */
} cab_account;

/* Notes that the part was tried; returns whether it fits. The text says why not. */
bool cab_account_note(cab_account *account, bool fits, const char *format, ...) CAB_PRINTF(3, 4);
/* The same of a part that must have this shape. */
bool cab_account_shape(cab_account *account, const cab_part_values *part, int64_t rows, int64_t columns);
/* A line with cab_log_info() for each that was tried. */
void cab_account_print(const cab_account *accounts, size_t count);

#endif
