/* record.h - checks that recorders share. Each leaves its sentence in the graph and returns false. */
#ifndef CAB_OPS_RECORD_H
#define CAB_OPS_RECORD_H

#include "ops/ops.h"

#include <inttypes.h>
#include <string.h>

/* x is F32 or BF16, of `dtype` unless that is CAB_DTYPES. */
static inline bool cab_expect_dtype(cab_graph *g, const char *op, const cab_tensor *x, cab_dtype dtype)
{
    if ((x->dtype == CAB_F32 || x->dtype == CAB_BF16) && (dtype == CAB_DTYPES || x->dtype == dtype))
        return true;
    cab_graph_fail(g, CAB_ESHAPE, "%s: \"%s\" is %s, expected %s", op, x->name, cab_dtype_name(x->dtype),
                   dtype == CAB_DTYPES ? "F32 or BF16" : cab_dtype_name(dtype));
    return false;
}

/* A parameter of exactly n elements, F32 or frozen BF16. */
static inline bool cab_expect_vector(cab_graph *g, const char *op, const cab_tensor *w, int64_t n)
{
    if (!cab_expect_dtype(g, op, w, CAB_DTYPES))
        return false;
    if (cab_elements(w) == n)
        return true;
    cab_graph_fail(g, CAB_ESHAPE, "%s: \"%s\" has %" PRId64 " elements, expected %" PRId64, op, w->name,
                   cab_elements(w), n);
    return false;
}

/* y has the shape and dtype of x. */
static inline bool cab_expect_same(cab_graph *g, const char *op, const cab_tensor *x, const cab_tensor *y)
{
    if (x->dtype == y->dtype && x->n_dim == y->n_dim &&
        memcmp(x->shape, y->shape, (size_t)x->n_dim * sizeof *x->shape) == 0)
        return true;
    char a[96], b[96];
    cab_graph_fail(g, CAB_ESHAPE, "%s: \"%s\" is %s and \"%s\" %s, expected the same", op, x->name,
                   cab_shape_text(x, a), y->name, cab_shape_text(y, b));
    return false;
}

/* One I32 the host writes, or NULL. */
static inline bool cab_expect_index(cab_graph *g, const char *op, const cab_tensor *t)
{
    if (!t || (t->dtype == CAB_I32 && cab_elements(t) == 1))
        return true;
    char text[96];
    cab_graph_fail(g, CAB_ESHAPE, "%s: \"%s\" is %s, expected one I32", op, t->name, cab_shape_text(t, text));
    return false;
}

/* For each token of x (B, L, ...) the first of its document, or NULL. */
static inline bool cab_expect_starts(cab_graph *g, const char *op, const cab_tensor *starts, const cab_tensor *x)
{
    if (!starts || (starts->dtype == CAB_I32 && starts->n_dim == 2 && starts->shape[0] == x->shape[0] &&
                    starts->shape[1] == x->shape[1] && starts->ld == starts->shape[1]))
        return true;
    char text[96];
    cab_graph_fail(g, CAB_ESHAPE, "%s: starts is %s, expected (%" PRId64 ", %" PRId64 ") I32", op,
                   cab_shape_text(starts, text), x->shape[0], x->shape[1]);
    return false;
}

#endif
