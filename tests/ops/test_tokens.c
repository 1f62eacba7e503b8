/* test_tokens.c - patches, inserted and selected tokens against their formulas. */
#include "ops/gpu.h"

typedef struct image_shape {
    int64_t B, C, H, W;
    int patch;
} image_shape;

static void record_patches(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    out[0] = cab_patches(g, in[0], ((const image_shape *)argument)->patch, CAB_F32);
}

static void record_low_patches(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    out[0] = cab_patches(g, in[0], ((const image_shape *)argument)->patch, CAB_BF16);
}

static void reference_patches(const check_case *c, double *const *in, double **out)
{
    const image_shape *s = c->argument;
    const int64_t p = s->patch;
    double *to = out[0];
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t i = 0; i < s->H; i += p)
            for (int64_t j = 0; j < s->W; j += p)
                for (int64_t channel = 0; channel < s->C; channel++)
                    for (int64_t y = i; y < i + p; y++)
                        for (int64_t x = j; x < j + p; x++)
                            *to++ = in[0][((b * s->C + channel) * s->H + y) * s->W + x];
}

static void test_patches(void **state)
{
    (void)state;
    const image_shape shapes[] = {{2, 3, 8, 12, 4}, {1, 1, 3, 3, 3}, {3, 3, 5, 4, 1}, {1, 3, 32, 16, 16}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const image_shape *s = &shapes[i];
        check_case c = {.name = "patches",
                        .n_in = 1,
                        .in = {{CHECK_F32, 4, {s->B, s->C, s->H, s->W}, 0, 0}},
                        .n_out = 1,
                        .record = record_patches,
                        .reference = reference_patches,
                        .argument = s};
        check_run(&c);
        c.record = record_low_patches;
        check_run(&c);
    }
}

typedef struct token_shape {
    int64_t B, T, D;
    int n;
    int64_t at[2];
    bool positions;
} token_shape;

static void record_insert(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const token_shape *s = argument;
    out[0] = cab_insert_tokens(g, in[0], s->n, in + 1, s->at, s->positions ? in[1 + s->n] : NULL);
}

static void reference_insert(const check_case *c, double *const *in, double **out)
{
    const token_shape *s = c->argument;
    const int64_t L = s->T + s->n;
    double *to = out[0];
    const double *x = in[0];
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t l = 0; l < L; l++) {
            const double *from = NULL;
            for (int i = 0; i < s->n; i++)
                if (s->at[i] == l)
                    from = in[1 + i];
            for (int64_t d = 0; d < s->D; d++)
                *to++ = (from ? from[d] : *x++) + (s->positions ? in[1 + s->n][l * s->D + d] : 0);
        }
}

static void test_insert(void **state)
{
    (void)state;
    const token_shape shapes[] = {{2, 4, 5, 1, {0}, true},     {3, 4, 7, 1, {2}, true}, {1, 3, 3, 2, {0, 1}, true},
                                  {2, 3, 3, 2, {1, 4}, false}, {1, 1, 1, 1, {1}, true}, {2, 3, 4, 0, {0}, true}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const token_shape *s = &shapes[i];
        check_case c = {.name = "insert tokens",
                        .n_in = 1,
                        .in = {{CHECK_ACTIVATION, 3, {s->B, s->T, s->D}, 0, 0}},
                        .n_out = 1,
                        .n_seeded = 1,
                        .record = record_insert,
                        .reference = reference_insert,
                        .argument = s};
        for (int k = 0; k < s->n; k++)
            c.in[c.n_in++] = (check_input){CHECK_PARAMETER, 3, {1, 1, s->D}, 0, 0};
        if (s->positions)
            c.in[c.n_in++] = (check_input){CHECK_PARAMETER, 3, {1, s->T + s->n, s->D}, 0, 0};
        check_run(&c);
    }
}

typedef struct select_shape {
    int64_t B, L, D, first, n;
} select_shape;

static void record_select(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const select_shape *s = argument;
    out[0] = cab_select_tokens(g, in[0], s->first, s->n);
}

static void reference_select(const check_case *c, double *const *in, double **out)
{
    const select_shape *s = c->argument;
    for (int64_t b = 0; b < s->B; b++)
        memcpy(out[0] + b * s->n * s->D, in[0] + (b * s->L + s->first) * s->D, (size_t)(s->n * s->D) * sizeof **out);
}

static void test_select(void **state)
{
    (void)state;
    const select_shape shapes[] = {{2, 5, 3, 2, 1}, {1, 1, 4, 0, 1}, {3, 4, 2, 0, 2}, {2, 3, 5, 2, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const select_shape *s = &shapes[i];
        check_case c = {.name = "select tokens",
                        .n_in = 1,
                        .in = {{CHECK_ACTIVATION, 3, {s->B, s->L, s->D}, 0, 0}},
                        .n_out = 1,
                        .n_seeded = 1,
                        .record = record_select,
                        .reference = reference_select,
                        .argument = s,
                        .no_nan = s->first > 0};
        check_run(&c);
    }
}

static void record_order(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const select_shape *s = argument; /* first: where the first token comes to; n: left out */
    out[0] = cab_order_tokens(g, in[0], &(cab_row_map){.class_at = s->first, .skip = s->n});
}

static void reference_order(const check_case *c, double *const *in, double **out)
{
    const select_shape *s = c->argument;
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t l = 0, next = 1 + s->n; l < s->L - s->n; l++) {
            const int64_t from = l == s->first ? 0 : next++;
            memcpy(out[0] + (b * (s->L - s->n) + l) * s->D, in[0] + (b * s->L + from) * s->D,
                   (size_t)s->D * sizeof **out);
        }
}

static void test_order(void **state)
{
    (void)state;
    const select_shape shapes[] = {{2, 5, 3, 2, 1}, {1, 1, 4, 0, 0}, {3, 6, 2, 0, 2}, {2, 7, 9, 6, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const select_shape *s = &shapes[i];
        check_case c = {.name = "order tokens",
                        .n_in = 1,
                        .in = {{CHECK_CONSTANT, 3, {s->B, s->L, s->D}, 0, 0}},
                        .n_out = 1,
                        .record = record_order,
                        .reference = reference_order,
                        .argument = s,
                        .no_nan = s->n > 0};
        check_run(&c);
    }
}

static void record_pool(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    out[0] = cab_pool_tokens(g, in[0], ((const select_shape *)argument)->first);
}

static void reference_pool(const check_case *c, double *const *in, double **out)
{
    const select_shape *s = c->argument;
    for (int64_t b = 0; b < s->B; b++)
        for (int64_t d = 0; d < s->D; d++) {
            double sum = 0;
            for (int64_t l = s->first; l < s->L; l++)
                sum += in[0][(b * s->L + l) * s->D + d];
            out[0][2 * b * s->D + d] = in[0][b * s->L * s->D + d];
            out[0][(2 * b + 1) * s->D + d] = sum / (double)(s->L - s->first);
        }
}

static void test_pool(void **state)
{
    (void)state;
    const select_shape shapes[] = {{2, 5, 3, 1, 0}, {1, 2, 4, 1, 0}, {3, 7, 5, 4, 0}, {2, 4, 2, 3, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const select_shape *s = &shapes[i];
        check_case c = {.name = "pool tokens",
                        .n_in = 1,
                        .in = {{CHECK_ACTIVATION, 3, {s->B, s->L, s->D}, 0, 0}},
                        .n_out = 1,
                        .n_seeded = 1,
                        .record = record_pool,
                        .reference = reference_pool,
                        .argument = s,
                        .no_nan = s->first > 1};
        check_run(&c);
    }
}

/* Rows wider than a piece, as views, with the gradients the formula gives. */
static void test_wide(void **state)
{
    (void)state;
    enum { B = 2, T = 3, D = 1030, L = T + 1 };
    const token_shape s = {B, T, D, 1, {2}, true};
    check_case c = {.name = "wide tokens",
                    .n_in = 3,
                    .in = {{CHECK_ACTIVATION, 3, {B, T, D}, 0, 0},
                           {CHECK_PARAMETER, 3, {1, 1, D}, 0, 0},
                           {CHECK_PARAMETER, 3, {1, L, D}, 0, 0}},
                    .n_out = 1,
                    .n_seeded = 1,
                    .record = record_insert,
                    .reference = reference_insert,
                    .argument = &s};
    check_reference r = {0};
    for (int i = 0; i < 3; i++) {
        const int64_t n = check_count(3, c.in[i].shape);
        r.in[i] = check_draw(c.name, i, n, -1, 1, false);
        r.gradient[i] = check_doubles(n);
    }
    r.out_count[0] = B * L * D;
    r.out[0] = check_doubles(B * L * D);
    r.seed[0] = check_draw(c.name, 100, B * L * D, -1, 1, false);
    reference_insert(&c, r.in, r.out);
    for (int64_t i = 0; i < B * L * D; i++) {
        const int64_t b = i / (L * D), l = i / D % L, d = i % D;
        r.gradient[2][l * D + d] += r.seed[0][i];
        if (l == 2)
            r.gradient[1][d] += r.seed[0][i];
        else
            r.gradient[0][(b * T + (l > 2 ? l - 1 : l)) * D + d] = r.seed[0][i];
    }
    for (int low = 0; low < 2; low++) {
        check_variant v = {.dtype = low ? CAB_BF16 : CAB_F32, .isa = "v1", .view = true, .twice = true};
        check_one(&c, &v, &r);
    }
    check_release(&r);
}

/* A ViT's rows: whole packets, sums over a batch that does not fill its lanes. */
static void test_gpu(void **state)
{
    (void)state;
    const image_shape image = {3, 3, 64, 32, 16};
    const token_shape one = {19, 196, 192, 1, {98}, true}, two = {5, 20, 36, 2, {0, 21}, true};
    const token_shape *const shapes[] = {&one, &two};
    check_case patches = {.name = "patches on the GPU",
                          .n_in = 1,
                          .in = {{CHECK_F32, 4, {image.B, image.C, image.H, image.W}, 0, 0}},
                          .n_out = 1,
                          .record = record_patches,
                          .argument = &image};
    gpu_compare(&patches, 1e-7, 1e-7);
    patches.record = record_low_patches;
    gpu_compare(&patches, 1e-7, 1e-7);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const token_shape *s = shapes[i];
        check_case c = {.name = "tokens on the GPU",
                        .n_in = 2 + s->n,
                        .in = {{CHECK_ACTIVATION, 3, {s->B, s->T, s->D}, 0, 0},
                               {CHECK_PARAMETER, 3, {1, 1, s->D}, 0, 0},
                               {CHECK_PARAMETER, 3, {1, 1, s->D}, 0, 0},
                               {CHECK_PARAMETER, 3, {1, s->T + 2, s->D}, 0, 0}},
                        .n_out = 1,
                        .n_seeded = 1,
                        .record = record_insert,
                        .argument = s};
        c.in[1 + s->n] = (check_input){CHECK_PARAMETER, 3, {1, s->T + s->n, s->D}, 0, 0};
        gpu_compare(&c, 1e-5, 1e-2);
    }
    const select_shape pooled[] = {{19, 37, 192, 5, 0}, {3, 6, 7, 1, 0}};
    for (int i = 0; i < 2; i++) {
        const select_shape *s = &pooled[i];
        check_case c = {.name = "pooled tokens on the GPU",
                        .n_in = 1,
                        .in = {{CHECK_ACTIVATION, 3, {s->B, s->L, s->D}, 0, 0}},
                        .n_out = 1,
                        .n_seeded = 1,
                        .record = record_pool,
                        .argument = s};
        gpu_compare(&c, 1e-5, 1e-2);
    }
}

static void expect_failure(cab_graph *g, const char *text)
{
    assert_int_not_equal(cab_graph_plan(g, NULL), CAB_OK);
    assert_non_null(strstr(cab_error_text(), text));
    cab_graph_free(g);
}

static void test_shape_errors(void **state)
{
    (void)state;
    cab_backend *backend;
    cab_graph *g;
    check_ok(cab_backend_open("cpu", &backend));
    check_ok(cab_graph_new(backend, &g));
    assert_null(cab_patches(g, cab_graph_input(g, "image", CAB_F32, 4, (int64_t[]){1, 3, 30, 32}), 16, CAB_F32));
    expect_failure(g, "patches: image is (1, 3, 30, 32) F32");
    check_ok(cab_graph_new(backend, &g));
    cab_tensor *x = cab_graph_input(g, "x", CAB_F32, 3, (int64_t[]){1, 4, 6});
    cab_tensor *token = cab_graph_input(g, "class", CAB_F32, 3, (int64_t[]){1, 1, 6});
    assert_null(cab_insert_tokens(g, x, 1, &token, (int64_t[]){5}, NULL));
    expect_failure(g, "token 0 stands at 5 of 5");
    check_ok(cab_graph_new(backend, &g));
    x = cab_graph_input(g, "x", CAB_F32, 3, (int64_t[]){1, 4, 6});
    assert_null(cab_select_tokens(g, x, 3, 2));
    expect_failure(g, "expected 2 tokens from 3");
    check_ok(cab_graph_new(backend, &g));
    x = cab_graph_input(g, "x", CAB_F32, 3, (int64_t[]){1, 4, 6});
    assert_null(cab_pool_tokens(g, x, 4));
    expect_failure(g, "pool_tokens: \"x\" is (1, 4, 6) F32, expected tokens from 4");
    cab_backend_close(backend);
}

/* A teacher and its student read the same patches. */
static void test_patches_once(void **state)
{
    (void)state;
    cab_backend *backend;
    check_ok(cab_backend_open("cpu", &backend));
    cab_graph *g;
    check_ok(cab_graph_new(backend, &g));
    cab_tensor *image[2];
    for (int i = 0; i < 2; i++)
        image[i] = cab_graph_input(g, "image", CAB_F32, 4, (int64_t[]){1, 3, 32, 32});
    cab_tensor *y = cab_patches(g, image[0], 16, CAB_F32), *other = cab_patches(g, image[1], 16, CAB_F32), *parts[2];
    assert_ptr_equal(y, cab_patches(g, image[0], 16, CAB_F32));
    assert_ptr_not_equal(y, other);
    assert_ptr_not_equal(y, cab_patches(g, image[0], 8, CAB_F32));
    assert_ptr_not_equal(y, cab_patches(g, image[0], 16, CAB_BF16));
    cab_split(g, y, 2, (int64_t[]){256, 512}, parts);
    assert_ptr_not_equal(y, cab_patches(g, image[0], 16, CAB_F32));
    check_ok(cab_graph_plan(g, NULL));
    cab_graph_free(g);
    cab_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patches),      cmocka_unit_test(test_insert),       cmocka_unit_test(test_select),
        cmocka_unit_test(test_order),        cmocka_unit_test(test_wide),         cmocka_unit_test(test_gpu),
        cmocka_unit_test(test_shape_errors), cmocka_unit_test(test_patches_once), cmocka_unit_test(test_pool)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
