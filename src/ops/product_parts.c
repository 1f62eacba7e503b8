#include "ops/product_parts.h"

#include <stdbool.h>

/* Multiply-adds from which a cut gains: below, one more kernel costs what it saves. */
static const double WORTH = 1 << 30;

/* Whether rows begin at multiples of 8. */
static bool even(const cab_side *side)
{
    return (side->column == 1 ? side->row : side->column) % CAB_PRODUCT_STEP == 0;
}

/* How many of `size` the first part takes: all where the size does not run along rows, or a cut would not help. */
static int64_t first_part(const cab_gemm_shape *s, int64_t size, bool along)
{
    const bool large = (double)s->m * (double)s->n * (double)s->k >= WORTH;
    if (!along || !large || s->a.dtype != CAB_BF16 || !even(&s->a) || !even(&s->b) || !even(&s->c))
        return size;
    return size - size % CAB_PRODUCT_STEP;
}

/* [begin, end) of m, n and k: the part that computes them. */
static cab_product_part part_of(const cab_gemm_shape *s, const int64_t begin[3], const int64_t end[3])
{
    cab_product_part p = {.shape = *s,
                          .a = begin[0] * s->a.row + begin[2] * s->a.column,
                          .b = begin[2] * s->b.row + begin[1] * s->b.column,
                          .c = begin[0] * s->c.row + begin[1],
                          .bias = begin[1]};
    p.shape.m = end[0] - begin[0];
    p.shape.n = end[1] - begin[1];
    p.shape.k = end[2] - begin[2];
    return p;
}

int cab_product_cut(const cab_gemm_shape *s, cab_product_part parts[CAB_PRODUCT_PARTS])
{
    const int64_t cut[3] = {first_part(s, s->m, s->a.column != 1), first_part(s, s->n, true),
                            first_part(s, s->k, s->a.column == 1 || s->b.column != 1)};
    const int64_t size[3] = {s->m, s->n, s->k};
    int n_part = 0;
    for (int i = 0; i < CAB_PRODUCT_PARTS; i++) {
        /* Bits of i: the rest of m, the rest of n, and, as it comes first, the first part of k. */
        const bool rest[3] = {i & 4, i & 2, !(i & 1)};
        int64_t begin[3], end[3];
        bool empty = false;
        for (int d = 0; d < 3; d++) {
            begin[d] = rest[d] ? cut[d] : 0;
            end[d] = rest[d] ? size[d] : cut[d];
            empty |= begin[d] == end[d] && (rest[d] || size[d] > 0);
        }
        if (empty)
            continue;
        parts[n_part] = part_of(s, begin, end);
        if (!rest[2] && cut[2] < size[2]) { /* on top of the rest of k */
            parts[n_part].shape.accumulate = true;
            parts[n_part].shape.bias = false;
        }
        n_part++;
    }
    return n_part;
}
