/* elementwise.c - activations, gates and sums.
 *
 *   activate:  y = f(x)
 *       gelu_tanh  x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)      gelu_erf  x (1 + erf(x / sqrt(2))) / 2
 *       silu       x sigmoid(x)            relu  max(x, 0)                  tanh
 *   glu:       y = f(gate) up
 *   add:       y = x_0 + ... + x_(n-1)        mean:  y = (x_0 + ... + x_(n-1)) / n        scale:  y = factor x
 *   gate:      y = v silu(z + z_bias)
 *
 * All of one shape, z_bias over the last dimension. Backward passes read the inputs. */
#include "ops/elementwise.h"

#include "ops/cpu/vec.h"
#include "ops/record.h"

const cab_op cab_op_activate = {
    .name = "activate", /* in: x   out: y */
    .saves = CAB_SAVE_IN(0),
};

const cab_op cab_op_glu = {
    .name = "glu", /* in: gate up   out: y */
    .saves = CAB_SAVE_IN(0) | CAB_SAVE_IN(1),
};

const cab_op cab_op_add = {
    .name = "add", /* in: x_0 ... x_(n-1)   out: y */
};

const cab_op cab_op_gate = {
    .name = "gate", /* in: v z z_bias   out: y */
    .saves = CAB_SAVE_IN(0) | CAB_SAVE_IN(1) | CAB_SAVE_IN(2),
};

/* One output of x's shape. */
static cab_tensor *record(cab_graph *g, const cab_op *op, int n, cab_tensor *const *in, const void *attributes,
                          size_t size)
{
    cab_tensor *y = cab_graph_activation(g, op->name, in[0]->dtype, in[0]->n_dim, in[0]->shape);
    if (y)
        cab_graph_append(g, op, n, in, 1, &y, attributes, size);
    return cab_graph_failed(g) ? NULL : y;
}

cab_tensor *cab_activate(cab_graph *g, cab_tensor *x, cab_activation_kind kind)
{
    if (cab_graph_failed(g) || !x || !cab_expect_dtype(g, "activate", x, CAB_DTYPES))
        return NULL;
    cab_activate_attributes attributes = {.kind = kind};
    return record(g, &cab_op_activate, 1, &x, &attributes, sizeof attributes);
}

cab_tensor *cab_glu(cab_graph *g, cab_tensor *gate, cab_tensor *up, cab_activation_kind kind)
{
    if (cab_graph_failed(g) || !gate || !up || !cab_expect_dtype(g, "glu", gate, CAB_DTYPES) ||
        !cab_expect_same(g, "glu", gate, up))
        return NULL;
    cab_activate_attributes attributes = {.kind = kind};
    return record(g, &cab_op_glu, 2, (cab_tensor *[]){gate, up}, &attributes, sizeof attributes);
}

static cab_tensor *sum(cab_graph *g, int n, cab_tensor *const *xs, float scale)
{
    if (cab_graph_failed(g))
        return NULL;
    for (int i = 0; i < n; i++)
        if (!xs[i] || !cab_expect_dtype(g, "add", xs[i], CAB_DTYPES) || !cab_expect_same(g, "add", xs[0], xs[i]))
            return NULL;
    cab_add_attributes attributes = {.scale = scale};
    return record(g, &cab_op_add, n, xs, &attributes, sizeof attributes);
}

static bool some_terms(cab_graph *g, int n)
{
    if (n >= 2 && n <= CAB_ADD_MAX)
        return true;
    cab_graph_fail(g, CAB_EARG, "add: %d terms, expected 2 to %d", n, CAB_ADD_MAX);
    return false;
}

cab_tensor *cab_add(cab_graph *g, int n, cab_tensor *const *xs)
{
    return some_terms(g, n) ? sum(g, n, xs, 1.0f) : NULL;
}

cab_tensor *cab_mean(cab_graph *g, int n, cab_tensor *const *xs)
{
    return some_terms(g, n) ? sum(g, n, xs, 1.0f / (float)n) : NULL;
}

cab_tensor *cab_scale(cab_graph *g, cab_tensor *x, float factor)
{
    return factor == 1.0f || x == NULL ? x : sum(g, 1, &x, factor);
}

cab_tensor *cab_gate(cab_graph *g, cab_tensor *y, cab_tensor *z, cab_tensor *z_bias)
{
    if (cab_graph_failed(g) || !y || !z || !cab_expect_dtype(g, "gate", y, CAB_DTYPES) ||
        !cab_expect_same(g, "gate", y, z) || (z_bias && !cab_expect_vector(g, "gate", z_bias, cab_columns(z))))
        return NULL;
    return record(g, &cab_op_gate, 3, (cab_tensor *[]){y, z, z_bias}, NULL, 0);
}
