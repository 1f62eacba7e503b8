#include "tensor/tensor.h"

#include <inttypes.h>
#include <stdio.h>

const char *cab_shape_text(const cab_tensor *t, char *buffer)
{
    enum { SIZE = 96 };
    int used = snprintf(buffer, SIZE, "(");
    for (int i = 0; i < t->n_dim && used < SIZE; i++)
        used += snprintf(buffer + used, (size_t)(SIZE - used), i ? ", %" PRId64 : "%" PRId64, t->shape[i]);
    if (used < SIZE)
        snprintf(buffer + used, (size_t)(SIZE - used), ") %s", cab_dtype_name(t->dtype));
    return buffer;
}

bool cab_rows_begin_at(const cab_tensor *t, int64_t multiple)
{
    int64_t offset = 0;
    for (const cab_tensor *view = t; view->base != NULL; view = view->base)
        offset += view->offset;
    return offset % multiple == 0 && t->ld % multiple == 0;
}
