/* tokens.c - an image as a sequence of tokens.
 *
 *   patches:        y[b, i * (W / p) + j, (c * p + r) * p + s] = image[b, c, i * p + r, j * p + s]
 *   insert_tokens:  y[b, l] = (token i if l = at[i], else the next row of x[b]) + positions[l]
 *                   dx: those rows of dy    dtoken i = sum_b dy[b, at[i]]    dpositions[l] = sum_b dy[b, l]
 *   select_tokens:  y[b, i] = x[b, first + i]    dx: those rows of dy, zero elsewhere
 *   pool_tokens:    y[b, 0] = x[b, 0]    y[b, 1] = sum over l >= first of x[b, l] / (L - first)
 *   order_tokens:   y[b, l] = x[b, 0] for l = class_at, else the next of x[b, 1 + skip ..]
 *
 * image: (B, C, H, W) F32    x: (B, T, D)    tokens: D elements F32    positions: L * D elements F32 */
#include "ops/tokens.h"

#include "ops/record.h"

const cab_op cab_op_patches = {
    .name = "patches", /* in: image   out: y */
};

const cab_op cab_op_insert_tokens = {
    .name = "insert_tokens", /* in: x positions token_0 token_1   out: y */
};

const cab_op cab_op_select_tokens = {
    .name = "select_tokens", /* in: x   out: y */
};

const cab_op cab_op_pool_tokens = {
    .name = "pool_tokens", /* in: x   out: y */
};

const cab_op cab_op_order_tokens = {
    .name = "order_tokens", /* in: x   out: y */
};

/* The same patches recorded before, as a teacher's are where its student reads them too, or NULL. */
static cab_tensor *recorded_patches(const cab_graph *g, const cab_tensor *image, int patch, cab_dtype dtype)
{
    for (int i = 0; i < cab_graph_nodes(g); i++) {
        const cab_node *node = cab_graph_node(g, i);
        if (node->op == &cab_op_patches && node->in[0] == image && node->out[0]->dtype == dtype &&
            !node->out[0]->split && ((const cab_patches_attributes *)node->attributes)->patch == patch)
            return node->out[0];
    }
    return NULL;
}

cab_tensor *cab_patches(cab_graph *g, cab_tensor *image, int patch, cab_dtype dtype)
{
    char a[96];
    if (cab_graph_failed(g) || !image)
        return NULL;
    if (image->n_dim != 4 || image->dtype != CAB_F32 || image->ld != cab_columns(image) || patch < 1 ||
        image->shape[2] % patch != 0 || image->shape[3] % patch != 0)
        return cab_graph_fail(g, CAB_ESHAPE, "patches: image is %s, expected (B, C, H, W) F32, H and W multiples of %d",
                              cab_shape_text(image, a), patch);
    cab_tensor *before = recorded_patches(g, image, patch, dtype);
    if (before != NULL)
        return before;
    const int64_t shape[] = {image->shape[0], image->shape[2] / patch * (image->shape[3] / patch),
                             image->shape[1] * patch * patch};
    cab_tensor *y = cab_graph_activation(g, "patches", dtype, 3, shape);
    const cab_patches_attributes attributes = {.patch = patch};
    cab_graph_append(g, &cab_op_patches, 1, &image, 1, &y, &attributes, sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}

static bool token_fits(cab_graph *g, const cab_tensor *t, int64_t elements)
{
    char a[96];
    if (t->dtype == CAB_F32 && t->ld == cab_columns(t) && cab_elements(t) == elements)
        return true;
    cab_graph_fail(g, CAB_ESHAPE, "insert_tokens: \"%s\" is %s, expected %" PRId64 " elements F32", t->name,
                   cab_shape_text(t, a), elements);
    return false;
}

cab_tensor *cab_insert_tokens(cab_graph *g, cab_tensor *x, int n, cab_tensor *const *tokens, const int64_t *at,
                              cab_tensor *positions)
{
    char a[96];
    if (cab_graph_failed(g) || !x || !cab_expect_dtype(g, "insert_tokens", x, CAB_DTYPES))
        return NULL;
    if (x->n_dim != 3 || n < 0 || n > CAB_TOKENS_MAX)
        return cab_graph_fail(g, CAB_ESHAPE, "insert_tokens: \"%s\" is %s, expected (B, T, D) and at most %d tokens",
                              x->name, cab_shape_text(x, a), CAB_TOKENS_MAX);
    const int64_t L = x->shape[1] + n, D = cab_columns(x);
    cab_insert_attributes attributes = {.n = n};
    cab_tensor *in[CAB_INSERT_TOKENS + CAB_TOKENS_MAX] = {x, positions};
    if (positions && !token_fits(g, positions, L * D))
        return NULL;
    for (int i = 0; i < n; i++) {
        if (!tokens[i] || !token_fits(g, tokens[i], D))
            return NULL;
        if (at[i] < (i > 0 ? at[i - 1] + 1 : 0) || at[i] >= L)
            return cab_graph_fail(g, CAB_EARG, "insert_tokens: token %d stands at %" PRId64 " of %" PRId64, i, at[i],
                                  L);
        attributes.at[i] = at[i];
        in[CAB_INSERT_TOKENS + i] = tokens[i];
    }
    cab_tensor *y = cab_graph_activation(g, "tokens", x->dtype, 3, (int64_t[]){x->shape[0], L, D});
    cab_graph_append(g, &cab_op_insert_tokens, CAB_INSERT_TOKENS + n, in, 1, &y, &attributes, sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}

cab_tensor *cab_select_tokens(cab_graph *g, cab_tensor *x, int64_t first, int64_t n)
{
    char a[96];
    if (cab_graph_failed(g) || !x || !cab_expect_dtype(g, "select_tokens", x, CAB_DTYPES))
        return NULL;
    if (x->n_dim != 3 || first < 0 || n < 1 || first + n > x->shape[1])
        return cab_graph_fail(g, CAB_ESHAPE, "select_tokens: \"%s\" is %s, expected %" PRId64 " tokens from %" PRId64,
                              x->name, cab_shape_text(x, a), n, first);
    cab_tensor *y = cab_graph_activation(g, "selected", x->dtype, 3, (int64_t[]){x->shape[0], n, cab_columns(x)});
    const cab_select_attributes attributes = {.first = first};
    cab_graph_append(g, &cab_op_select_tokens, 1, &x, 1, &y, &attributes, sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}

cab_tensor *cab_pool_tokens(cab_graph *g, cab_tensor *x, int64_t first)
{
    char a[96];
    if (cab_graph_failed(g) || !x || !cab_expect_dtype(g, "pool_tokens", x, CAB_DTYPES))
        return NULL;
    if (x->n_dim != 3 || first < 1 || first >= x->shape[1])
        return cab_graph_fail(g, CAB_ESHAPE, "pool_tokens: \"%s\" is %s, expected tokens from %" PRId64, x->name,
                              cab_shape_text(x, a), first);
    cab_tensor *y = cab_graph_activation(g, "pooled", x->dtype, 3, (int64_t[]){x->shape[0], 2, cab_columns(x)});
    const cab_pool_attributes attributes = {.first = first};
    cab_graph_append(g, &cab_op_pool_tokens, 1, &x, 1, &y, &attributes, sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}

cab_tensor *cab_order_tokens(cab_graph *g, cab_tensor *x, const cab_row_map *rows)
{
    char a[96];
    if (cab_graph_failed(g) || !x || !cab_expect_dtype(g, "order_tokens", x, CAB_DTYPES))
        return NULL;
    if (x->n_dim != 3 || rows->skip < 0 || rows->class_at < 0 || rows->class_at >= x->shape[1] - rows->skip)
        return cab_graph_fail(g, CAB_ESHAPE,
                              "order_tokens: \"%s\" is %s, expected a first token that comes to %" PRId64
                              " when %" PRId64 " are left out",
                              x->name, cab_shape_text(x, a), rows->class_at, rows->skip);
    const int64_t shape[3] = {x->shape[0], x->shape[1] - rows->skip, cab_columns(x)};
    cab_tensor *y = cab_graph_activation(g, "ordered", x->dtype, 3, shape);
    const cab_order_attributes attributes = {.rows = *rows};
    cab_graph_append(g, &cab_op_order_tokens, 1, &x, 1, &y, &attributes, sizeof attributes);
    return cab_graph_failed(g) ? NULL : y;
}
