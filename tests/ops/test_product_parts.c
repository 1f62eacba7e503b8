/* Parts of a product: each element of each sum in one of them, sizes that are multiples of 8 where a cut was made, and the same
 * result as of the whole. */
#include "ops/check.h"
#include "ops/cpu/gemm.h"
#include "ops/product_parts.h"

/* A product with rows padded to multiples of `step`. flags: bit 0 A transposed, bit 1 B transposed. */
static cab_gemm_shape shape_of(int64_t m, int64_t n, int64_t k, int flags, int64_t step)
{
    const int64_t a = flags & 1 ? m : k, b = flags & 2 ? k : n;
    return (cab_gemm_shape){.m = m,
                            .n = n,
                            .k = k,
                            .a = cab_side_dense(CAB_BF16, (a + step - 1) / step * step, flags & 1),
                            .b = cab_side_dense(CAB_BF16, (b + step - 1) / step * step, flags & 2),
                            .c = cab_side_dense(CAB_F32, (n + step - 1) / step * step, false)};
}

/* Where a part begins, from its places. */
static void begin_of(const cab_gemm_shape *s, const cab_product_part *p, int64_t begin[3])
{
    begin[0] = p->c / s->c.row;
    begin[1] = p->c % s->c.row;
    const int64_t along_k = p->a - begin[0] * s->a.row;
    assert_int_equal(along_k % s->a.column, 0);
    begin[2] = along_k / s->a.column;
    assert_int_equal(p->b, begin[2] * s->b.row + begin[1] * s->b.column);
    assert_int_equal(p->bias, begin[1]);
}

static bool covers(const cab_product_part *p, const int64_t begin[3], const int64_t at[3])
{
    const int64_t size[3] = {p->shape.m, p->shape.n, p->shape.k};
    for (int d = 0; d < 3; d++)
        if (at[d] < begin[d] || at[d] >= begin[d] + size[d])
            return false;
    return true;
}

/* The corners of the parts: first and last of each size, and on both sides of the cut. */
static void check_cover(const cab_gemm_shape *s, int expected)
{
    cab_product_part parts[CAB_PRODUCT_PARTS];
    const int64_t size[3] = {s->m, s->n, s->k};
    const int n = cab_product_cut(s, parts);
    if (n != expected)
        fail_msg("%dx%dx%d: %d parts, expected %d", (int)s->m, (int)s->n, (int)s->k, n, expected);
    for (int corner = 0; corner < 64 && s->k > 0; corner++) {
        int64_t at[3], begin[3];
        for (int d = 0; d < 3; d++) {
            const int64_t cut = size[d] - size[d] % CAB_PRODUCT_STEP, places[4] = {0, cut - 1, cut, size[d] - 1};
            at[d] = places[corner >> 2 * d & 3];
            at[d] = at[d] < 0 ? 0 : at[d] < size[d] ? at[d] : size[d] - 1;
        }
        int found = 0;
        for (int i = 0; i < n; i++) {
            begin_of(s, &parts[i], begin);
            found += covers(&parts[i], begin, at);
        }
        assert_int_equal(found, 1);
    }
}

static void test_cuts(void **state)
{
    (void)state;
    const struct {
        int64_t m, n, k;
        int flags, parts;
    } cases[] = {
        {2560, 50257, 768, 2, 2}, /* logits */
        {2560, 768, 50257, 0, 2}, /* their gradient, to the hidden states */
        {50257, 768, 2560, 1, 2}, /* and to the table */
        {32768, 3084, 768, 2, 2}, {32768, 768, 3084, 0, 2}, {3084, 768, 32768, 1, 2}, {32768, 3080, 768, 2, 1},
        {32767, 3072, 768, 2, 1}, /* rows may be as many as they are */
        {3072, 768, 32767, 1, 1}, {2049, 2049, 2049, 3, 8}, {2049, 2049, 2049, 1, 4}, {2049, 2049, 2049, 0, 4},
        {32, 50257, 768, 2, 2},   {1, 50257, 768, 2, 1},    {100, 101, 102, 3, 1},    {3, 5, 0, 0, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cab_gemm_shape s = shape_of(cases[i].m, cases[i].n, cases[i].k, cases[i].flags, 8);
        check_cover(&s, cases[i].parts);
        s = shape_of(cases[i].m, cases[i].n, cases[i].k, cases[i].flags, 1);
        if (cases[i].parts > 1)
            check_cover(&s, 1); /* rows that begin anywhere */
        s = shape_of(cases[i].m, cases[i].n, cases[i].k, cases[i].flags, 8);
        s.a.dtype = s.b.dtype = CAB_F32;
        check_cover(&s, 1);
    }
}

static void run(const cab_backend *backend, const cab_gemm_shape *s, const cab_bf16 *a, const cab_bf16 *b, float *c,
                const float *bias)
{
    const cab_gemm *gemm;
    void *scratch;
    check_ok(cab_gemm_get(backend, s, &gemm));
    check_ok(cab_alloc(&scratch, cab_gemm_scratch(gemm), 1, "scratch"));
    check_ok(cab_gemm_run(gemm, a, b, c, s->bias ? bias : NULL, scratch));
    cab_free(scratch);
}

static cab_bf16 *draw(int which, int64_t n)
{
    double *values = check_draw("parts", which, n, -1, 1, false);
    cab_bf16 *low = calloc((size_t)n, sizeof *low);
    assert_non_null(low);
    for (int64_t i = 0; i < n; i++)
        cab_convert(low + i, CAB_BF16, &(float){(float)values[i]}, CAB_F32, 1);
    free(values);
    return low;
}

static void compare_runs(const cab_gemm_shape *s)
{
    enum { RUNS = 2 };
    cab_product_part parts[CAB_PRODUCT_PARTS];
    const int64_t elements = s->m * s->c.row;
    float *c[RUNS], *bias = calloc((size_t)s->n, sizeof *bias);
    cab_bf16 *a = draw(0, (s->a.column == 1 ? s->m : s->k) * (s->a.column == 1 ? s->a.row : s->a.column));
    cab_bf16 *b = draw(1, (s->b.column == 1 ? s->k : s->n) * (s->b.column == 1 ? s->b.row : s->b.column));
    cab_backend *backend;
    check_ok(cab_backend_open("cpu", &backend));
    assert_non_null(bias);
    for (int64_t i = 0; i < s->n; i++)
        bias[i] = (float)(i % 7);
    for (int r = 0; r < RUNS; r++) {
        c[r] = calloc((size_t)elements, sizeof *c[r]);
        assert_non_null(c[r]);
        for (int64_t i = 0; i < elements; i++)
            c[r][i] = (float)(i % 5);
    }
    run(backend, s, a, b, c[0], bias);
    const int n = cab_product_cut(s, parts);
    assert_true(n > 1);
    for (int i = 0; i < n; i++)
        run(backend, &parts[i].shape, a + parts[i].a, b + parts[i].b, c[1] + parts[i].c, bias + parts[i].bias);
    for (int64_t i = 0; i < elements; i++)
        if (!(fabsf(c[0][i] - c[1][i]) <= 1e-3f))
            fail_msg("element %d is %g in parts, expected %g", (int)i, (double)c[1][i], (double)c[0][i]);
    for (int r = 0; r < RUNS; r++)
        free(c[r]);
    free(bias);
    free(a);
    free(b);
    cab_backend_close(backend);
}

static void test_same_result(void **state)
{
    (void)state;
    cab_gemm_shape s = shape_of(1031, 1027, 1021, 2, 8);
    s.bias = true;
    s.bias_dtype = CAB_F32;
    compare_runs(&s);
    s = shape_of(1021, 1031, 1027, 1, 8);
    s.accumulate = true;
    compare_runs(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cuts), cmocka_unit_test(test_same_result)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
