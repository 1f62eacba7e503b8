/* test_align_rows.c - the alignment loss with the teacher's rows moved: class token into the middle, rows left out. */
#include "ops/gpu.h"

typedef struct shape {
    int64_t B, L, D;
    cab_feature_map map;
    cab_row_map rows;
    bool relative;
} shape;

static void record(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const shape *s = argument;
    out[0] = cab_align_loss(g, in[0], in[1], &(cab_alignment){s->map, &s->rows, s->relative});
}

/* The target as the student's tokens stand. */
static double *moved(const shape *s, const double *target)
{
    const int64_t from = s->L + s->rows.skip, D = s->D;
    double *to = check_doubles(s->B * s->L * D);
    for (int64_t b = 0; b < s->B; b++) {
        int64_t next = 1 + s->rows.skip;
        for (int64_t l = 0; l < s->L; l++) {
            const int64_t row = l == s->rows.class_at ? 0 : next++;
            memcpy(to + (b * s->L + l) * D, target + (b * from + row) * D, (size_t)D * sizeof *to);
        }
    }
    return to;
}

static double mapped_value(const shape *s, const double *t, int64_t i)
{
    const int64_t D = s->D, b = i / (s->L * D);
    double sum = 0;
    switch (s->map) {
    case CAB_MAP_SOFTMAX_FEATURES:
        for (int64_t d = 0; d < D; d++)
            sum += exp(t[i / D * D + d]);
        return exp(t[i]) / sum;
    case CAB_MAP_SOFTMAX_TOKENS:
        for (int64_t l = 0; l < s->L; l++)
            sum += exp(t[(b * s->L + l) * D + i % D]);
        return exp(t[i]) / sum;
    default:
        return t[i];
    }
}

static void reference(const check_case *c, double *const *in, double **out)
{
    const shape *s = c->argument;
    double *t = moved(s, in[1]);
    const int64_t n = s->L * s->D;
    out[0][0] = 0;
    for (int64_t b = 0; b < s->B; b++) {
        double sum = 0, total = 0, squares = 0;
        for (int64_t i = b * n; i < (b + 1) * n; i++) {
            const double psi = mapped_value(s, t, i), difference = in[0][i] - psi;
            sum += difference * difference;
            total += psi / (double)n;
            squares += psi * psi / (double)n;
        }
        const double variance = squares - total * total;
        out[0][0] += sum / (double)(s->B * n) / (!s->relative ? 1 : variance > 1e-12 ? variance : INFINITY);
    }
    free(t);
}

static void test_rows(void **state)
{
    (void)state;
    const cab_feature_map maps[] = {CAB_MAP_NONE, CAB_MAP_SOFTMAX_FEATURES, CAB_MAP_SOFTMAX_TOKENS};
    const struct {
        int64_t B, L, D;
        cab_row_map rows;
    } sizes[] = {{2, 5, 3, {.class_at = 2}},
                 {2, 6, 4, {.class_at = 5}},
                 {1, 17, 2, {.class_at = 8, .skip = 1}},
                 {2, 4, 3, {.class_at = 0, .skip = 2}},
                 {1, 1, 3, {.class_at = 0}}};
    for (size_t m = 0; m < 2 * sizeof maps / sizeof *maps; m++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            const shape s = {sizes[i].B, sizes[i].L, sizes[i].D, maps[m / 2], sizes[i].rows, m % 2 > 0};
            check_case c = {.name = "align rows",
                            .n_in = 2,
                            .in = {{CHECK_ACTIVATION, 3, {s.B, s.L, s.D}, 0, 0},
                                   {CHECK_CONSTANT, 3, {s.B, s.L + s.rows.skip, s.D}, -3, 3}},
                            .n_out = 1,
                            .n_seeded = 1,
                            .record = record,
                            .reference = reference,
                            .argument = &s};
            check_run(&c);
        }
}

/* The same at the size of a vision model, on a GPU. */
static void test_rows_gpu(void **state)
{
    (void)state;
    const cab_feature_map maps[] = {CAB_MAP_NONE, CAB_MAP_SOFTMAX_FEATURES, CAB_MAP_SOFTMAX_TOKENS};
    for (size_t m = 0; m < 2 * sizeof maps / sizeof *maps; m++) {
        const shape s = {3, 197, 192, maps[m / 2], {.class_at = 98, .skip = 1}, m % 2 > 0};
        const check_case c = {.name = "align rows on a GPU",
                              .n_in = 2,
                              .in = {{CHECK_ACTIVATION, 3, {s.B, s.L, s.D}, 0, 0},
                                     {CHECK_CONSTANT, 3, {s.B, s.L + s.rows.skip, s.D}, -3, 3}},
                              .n_out = 1,
                              .n_seeded = 1,
                              .record = record,
                              .argument = &s};
        gpu_compare(&c, 1e-5, 5e-3);
    }
}

static void test_shape_errors(void **state)
{
    (void)state;
    cab_backend *backend;
    cab_graph *g;
    check_ok(cab_backend_open("cpu", &backend));
    for (int wrong = 0; wrong < 2; wrong++) {
        check_ok(cab_graph_new(backend, &g));
        cab_tensor *pred = cab_graph_input(g, "pred", CAB_F32, 3, (int64_t[]){1, 5, 4});
        cab_tensor *target = cab_graph_input(g, "target", CAB_F32, 3, (int64_t[]){1, 6, 4});
        const cab_row_map rows = {.class_at = wrong ? 5 : 2, .skip = wrong ? 1 : 0};
        assert_null(cab_align_loss(g, pred, target, &(cab_alignment){.rows = &rows}));
        assert_int_equal(cab_graph_plan(g, NULL), wrong ? CAB_EARG : CAB_ESHAPE);
        assert_non_null(strstr(cab_error_text(), wrong ? "stands at 5 of (1, 5, 4)" : "target (1, 6, 4)"));
        cab_graph_free(g);
    }
    cab_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_rows_gpu),
                                       cmocka_unit_test(test_shape_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
