#include "distill/account.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

bool cab_account_note(cab_account *a, bool fits, const char *format, ...)
{
    a->tried++;
    a->copied += fits;
    if (!fits) {
        va_list args;
        va_start(args, format);
        vsnprintf(a->reason, sizeof a->reason, format, args);
        va_end(args);
    }
    return fits;
}

bool cab_account_shape(cab_account *a, const cab_part_values *p, int64_t rows, int64_t columns)
{
    return cab_account_note(a, p->values != NULL && p->rows == rows && p->columns == columns,
                            "the teacher's is %" PRId64 " x %" PRId64 ", the student's %" PRId64 " x %" PRId64, p->rows,
                            p->columns, rows, columns);
}

void cab_account_print(const cab_account *accounts, size_t count)
{
    for (const cab_account *a = accounts; a < accounts + count; a++)
        if (a->tried > 0)
            cab_log_info("reuse    %-28s %d of %d%s%s", a->name, a->copied, a->tried, a->reason[0] ? ": " : "",
                         a->reason);
}
