/* repeat.h - the same bits: a case run in two variants (the same twice, or other numbers of threads) must agree exactly. */
#ifndef REPEAT_H
#define REPEAT_H

#include "ops/check.h"

/* Outputs, then gradients, of one run: at most `capacity` numbers. Returns how many. */
static inline size_t repeat_run(const check_case *c, const check_variant *v, const check_reference *r, double *to,
                                size_t capacity)
{
    check_graph k;
    size_t n = 0;
    check_open(c, v, r->in, &k);
    check_backward(c, v, r, &k);
    check_ok(cab_graph_plan(k.graph, NULL));
    check_ok(cab_graph_run(k.graph));
    for (int i = 0; i < c->n_out + c->n_in; i++) {
        const bool output = i < c->n_out;
        if (!output && !check_differentiable(c, i - c->n_out))
            continue;
        const check_input *in = &c->in[output ? 0 : i - c->n_out];
        double *values = output ? check_read(k.graph, k.out[0][i], cab_columns(k.out[0][i]), 0)
                                : check_gradient(c, v, &k, i - c->n_out);
        const size_t count = (size_t)(output ? cab_elements(k.out[0][i]) : check_count(in->n_dim, in->shape));
        assert_true(n + count <= capacity);
        memcpy(to + n, values, count * sizeof *to);
        n += count;
        free(values);
    }
    check_close(&k);
    return n;
}

/* Seeds are all one. */
static inline void repeat_compare(const check_case *c, const check_variant *a, const check_variant *b, size_t capacity)
{
    check_reference r = {0};
    for (int i = 0; i < c->n_in; i++)
        r.in[i] = check_values(c, i);
    for (int o = 0; o < c->n_seeded; o++) {
        r.out_count[o] = (int64_t)capacity;
        r.seed[o] = check_doubles((int64_t)capacity);
        for (size_t i = 0; i < capacity; i++)
            r.seed[o][i] = 1;
    }
    double *first = check_doubles((int64_t)capacity), *second = check_doubles((int64_t)capacity);
    const size_t n = repeat_run(c, a, &r, first, capacity);
    assert_int_equal(repeat_run(c, b, &r, second, capacity), n);
    assert_true(n > 0);
    assert_memory_equal(first, second, n * sizeof *first);
    free(first);
    free(second);
    check_release(&r);
}

#endif
