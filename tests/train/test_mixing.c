/* test_mixing.c - the written-out matrices against the operations themselves: M x + D x is what the recurrence and attention
 * give, head by head and channel by channel; and through whole models, with their taps, orders and directions. */
#include "base/random.h"
#include "distill/initialise_vim.h"
#include "models/tiny_state_space.h"
#include "ops/backends.h"
#include "ops/scan.h"
#include "train/mixing.h"
#include "train/probe.h"

#include <math.h>

enum { L = 37 };

static float *draw(int64_t n, float scale, uint32_t sub)
{
    float *values = calloc((size_t)n, sizeof *values);
    assert_non_null(values);
    cab_random random = {.seed = 7, .stream = CAB_STREAM_TEST, .sub = sub};
    for (int64_t i = 0; i < n; i++)
        values[i] = scale * cab_random_normal(&random);
    return values;
}

static cab_tensor *input(cab_graph *g, const float *values, int n_dim, const int64_t *shape)
{
    cab_tensor *t = cab_graph_input(g, "x", CAB_F32, n_dim, shape);
    assert_non_null(t);
    assert_ok(cab_tensor_write(g, t, values));
    return t;
}

static cab_tensor *tokens(cab_graph *g, const float *values, int64_t columns)
{
    return input(g, values, 3, (int64_t[]){1, L, columns});
}

static float *output(cab_graph *g, cab_tensor *y)
{
    float *values = calloc((size_t)cab_elements(y), sizeof *values);
    assert_non_null(values);
    cab_graph_keep(g, y);
    assert_ok(cab_graph_run(g));
    assert_ok(cab_tensor_read(g, y, values));
    return values;
}

/* Columns first .. first + count of y (L, width) are M x + D x of the same columns. */
static void expect_product(const float *M, const float *x, const float *D, const float *y, int64_t width, int64_t first,
                           int64_t count)
{
    for (int64_t i = 0; i < L; i++) {
        for (int64_t c = first; c < first + count; c++) {
            double sum = (double)D[c] * (double)x[i * width + c];
            for (int64_t j = 0; j < L; j++)
                sum += (double)M[i * L + j] * (double)x[j * width + c];
            if (!(fabs(sum - (double)y[i * width + c]) < 2e-4 * (1 + fabs(sum))))
                fail_msg("row %d, column %d: %g, expected %g", (int)i, (int)c, sum, (double)y[i * width + c]);
        }
    }
}

/* ---- operations ------------------------------------------------------------------------------------------------------ */

static void compare_ssd(bool discrete, bool both, bool shared)
{
    enum { H = 6, G = 3, N = 5, P = 4 };
    const int64_t columns = both && !shared ? 2 * H : H;
    float *x = draw(L * H * P, 1, 1), *B = draw(L * G * N, 1, 2), *C = draw(L * G * N, 1, 3),
          *a = draw(L * columns, 2, 4), *D = draw(H, 1, 5), *bias = draw(columns, 1, 6), *A_log = draw(columns, 1, 7),
          *M = calloc(L * L, sizeof *M), skip[H * P];
    cab_backend *backend = NULL;
    cab_graph *g = NULL;
    assert_ok(cab_backend_open("cpu", &backend));
    assert_ok(cab_graph_new(backend, &g));
    const cab_ssd_inputs of_op = {.x = tokens(g, x, H * P),
                                  .B = tokens(g, B, G * N),
                                  .C = tokens(g, C, G * N),
                                  .dt = tokens(g, a, columns),
                                  .dt_bias = discrete ? NULL : input(g, bias, 1, &columns),
                                  .A_log = discrete ? NULL : input(g, A_log, 1, &columns),
                                  .D = input(g, D, 1, (int64_t[]){H})};
    float *y = output(g, both ? cab_ssd_both(g, &of_op, H, G) : cab_ssd(g, &of_op, H, G));
    const cab_mixing_ssd_inputs in = {.B = B,
                                      .C = C,
                                      .dt = a,
                                      .dt_bias = discrete ? NULL : bias,
                                      .A_log = discrete ? NULL : A_log,
                                      .L = L,
                                      .H = H,
                                      .G = G,
                                      .N = N,
                                      .both = both,
                                      .shared_decay = shared};
    for (int h = 0; h < H; h++) {
        for (int p = 0; p < P; p++)
            skip[h * P + p] = D[h];
        assert_ok(cab_mixing_ssd(&in, h, 1, M));
        expect_product(M, x, skip, y, H * P, h * P, P);
    }
    float *const blocks[] = {x, B, C, a, D, bias, A_log, M, y};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    cab_graph_free(g);
    cab_backend_close(backend);
}

static void test_ssd(void **state)
{
    (void)state;
    compare_ssd(true, false, false);
    compare_ssd(false, false, false);
    compare_ssd(true, true, false);
    compare_ssd(false, true, false);
    compare_ssd(false, true, true);
}

static void check_scan(bool reverse)
{
    enum { E = 70, N = 3 }; /* more channels than a tile */
    float *u = draw(L * E, 1, 1), *dt = draw(L * E, 1, 2), *B = draw(L * N, 1, 3), *C = draw(L * N, 1, 4),
          *A_log = draw(E * N, 1, 5), *D = draw(E, 1, 6), *bias = draw(E, 1, 7), *M = calloc(L * L, sizeof *M),
          *sum = calloc(L * L, sizeof *sum);
    cab_backend *backend = NULL;
    cab_graph *g = NULL;
    assert_ok(cab_backend_open("cpu", &backend));
    assert_ok(cab_graph_new(backend, &g));
    const cab_scan_inputs of_op = {.u = tokens(g, u, E),
                                   .dt = tokens(g, dt, E),
                                   .A_log = input(g, A_log, 2, (int64_t[]){E, N}),
                                   .B = tokens(g, B, N),
                                   .C = tokens(g, C, N),
                                   .D = input(g, D, 1, (int64_t[]){E}),
                                   .dt_bias = input(g, bias, 1, (int64_t[]){E})};
    float *y = output(g, cab_scan(g, &of_op, reverse));
    const cab_mixing_scan_inputs in = {
        .B = B, .C = C, .dt = dt, .dt_bias = bias, .A_log = A_log, .L = L, .E = E, .N = N, .reverse = reverse};
    for (int e = 0; e < E; e++) {
        assert_ok(cab_mixing_scan(&in, e, 1, M));
        expect_product(M, u, D, y, E, e, 1);
        for (int i = 0; i < L * L; i++)
            sum[i] += M[i] / E;
    }
    assert_ok(cab_mixing_scan(&in, 0, E, M));
    assert_true(tiny_distance(M, sum, L * L) < 1e-5);
    float *const blocks[] = {u, dt, B, C, A_log, D, bias, M, sum, y};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    cab_graph_free(g);
    cab_backend_close(backend);
}

static void test_scan(void **state)
{
    (void)state;
    check_scan(false);
    check_scan(true);
}

static void check_attention(bool causal, int window)
{
    enum { H = 4, KV = 2, P = 6 };
    const cab_attention_shape shape = {
        .n_head = H, .n_kv_head = KV, .head_dim = P, .scale = 0.4f, .causal = causal, .window = window};
    float *q = draw(L * H * P, 1, 1), *k = draw(L * KV * P, 1, 2), *v = draw(L * KV * P, 1, 3),
          *M = calloc(L * L, sizeof *M), *spread = calloc(L * H * P, sizeof *spread);
    const float none[H * P] = {0};
    cab_backend *backend = NULL;
    cab_graph *g = NULL;
    assert_ok(cab_backend_open("cpu", &backend));
    assert_ok(cab_graph_new(backend, &g));
    float *y =
        output(g, cab_attention(g, tokens(g, q, H * P), tokens(g, k, KV * P), tokens(g, v, KV * P), NULL, &shape));
    for (int i = 0; i < L * H * P; i++) /* the values as each head reads them */
        spread[i] = v[i / (H * P) * KV * P + i % (H * P) / P / (H / KV) * P + i % P];
    for (int h = 0; h < H; h++) {
        assert_ok(cab_mixing_attention(q, k, L, &shape, h, 1, M));
        expect_product(M, spread, none, y, H * P, h * P, P);
    }
    float *const blocks[] = {q, k, v, M, spread, y};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    cab_graph_free(g);
    cab_backend_close(backend);
}

static void test_attention(void **state)
{
    (void)state;
    check_attention(true, 0);
    check_attention(false, 0);
    check_attention(true, 5);
}

/* ---- models ---------------------------------------------------------------------------------------------------------- */

static cab_model *vim(cab_backend *backend)
{
    const cab_arch *arch = NULL;
    cab_model *model = NULL;
    cab_config c = {.d_model = 16,
                    .n_layer = 2,
                    .n_classes = 5,
                    .d_state = 4,
                    .d_conv = 4,
                    .d_inner = 32,
                    .dt_rank = 1,
                    .n_group = 1,
                    .n_special = 1,
                    .class_middle = true,
                    .patch_size = 4,
                    .norm_eps = 1e-5};
    cab_config_set_image(&c, 12);
    assert_ok(cab_architecture_find("vim", "test", &arch));
    assert_ok(cab_model_create(arch, &c, backend, CAB_PRECISION_FP32, &model));
    assert_ok(cab_initialise_vim(model, 3, false));
    return model;
}

/* Runs the model's first recurrence or two of layer 0 again over an impulse in every channel at one token, without skip and
 * gate: the mean over channels is a column of the matrix. `layer_input`: what the model's own recurrences of the layer read. */
typedef struct layer_inputs {
    float *parts[2][CAB_SCAN_INPUTS];
    int64_t T, E, N;
} layer_inputs;

static void read_layer(const cab_model *model, const float *pixels, int layer, layer_inputs *in)
{
    const cab_config *c = &model->config;
    cab_graph *g = NULL;
    int seen = 0;
    in->T = c->max_length;
    in->E = c->d_inner;
    in->N = c->d_state;
    assert_ok(cab_graph_new(model->backend, &g));
    cab_tensor *x = cab_graph_input(g, "pixels", CAB_F32, 4, (int64_t[]){1, 3, c->image_size, c->image_size});
    cab_graph_keep(g, cab_model_record(g, model, x, false, NULL));
    for (int i = 0; i < cab_graph_nodes(g); i++)
        for (int k = 0; k < cab_graph_node(g, i)->n_in; k++)
            cab_graph_keep(g, cab_graph_node(g, i)->in[k]);
    assert_ok(cab_graph_plan(g, NULL));
    assert_ok(cab_tensor_write(g, x, pixels));
    assert_ok(cab_graph_run(g));
    for (int i = 0; i < cab_graph_nodes(g); i++) {
        const cab_node *node = cab_graph_node(g, i);
        if (strcmp(node->op->name, "scan") != 0 || seen++ != layer)
            continue;
        for (int k = 0; k < CAB_SCAN_BOTH; k++) {
            const cab_tensor *t = node->in[k];
            const int64_t rows = cab_rows(t), columns = cab_columns(t);
            float **to = &in->parts[k / CAB_SCAN_INPUTS][k % CAB_SCAN_INPUTS];
            *to = calloc((size_t)(rows * columns), sizeof(float));
            assert_non_null(*to);
            for (int64_t r = 0; r < rows; r++)
                memcpy(*to + r * columns, (const float *)t->data + r * t->ld, (size_t)columns * sizeof(float));
        }
    }
    cab_graph_free(g);
}

static float *respond(cab_backend *backend, const layer_inputs *in, bool reverse, int64_t impulse)
{
    float *const *p = in->parts[reverse];
    const int64_t T = in->T, E = in->E, N = in->N;
    float *u = calloc((size_t)(T * E), sizeof *u), *none = calloc((size_t)E, sizeof *none);
    cab_graph *g = NULL;
    for (int64_t e = 0; e < E; e++)
        u[impulse * E + e] = 1;
    assert_ok(cab_graph_new(backend, &g));
    const cab_scan_inputs of_op = {.u = input(g, u, 3, (int64_t[]){1, T, E}),
                                   .dt = input(g, p[CAB_SCAN_DT], 3, (int64_t[]){1, T, E}),
                                   .A_log = input(g, p[CAB_SCAN_A_LOG], 2, (int64_t[]){E, N}),
                                   .B = input(g, p[CAB_SCAN_B], 3, (int64_t[]){1, T, N}),
                                   .C = input(g, p[CAB_SCAN_C], 3, (int64_t[]){1, T, N}),
                                   .D = input(g, none, 1, (int64_t[]){E}),
                                   .dt_bias = input(g, p[CAB_SCAN_DT_BIAS], 1, (int64_t[]){E})};
    float *y = output(g, cab_scan(g, &of_op, reverse));
    cab_graph_free(g);
    free(u);
    free(none);
    return y;
}

/* The class token stands in the middle of the model's tokens and first in the matrix; both directions are in it. */
static void test_probe_of_vim(void **state)
{
    enum { TOKENS = 10, MIDDLE = 4 };
    (void)state;
    cab_backend *backend = NULL;
    cab_probe *probe = NULL;
    layer_inputs in = {0};
    float expected[TOKENS * TOKENS] = {0}, got[TOKENS * TOKENS];
    assert_ok(cab_backend_open("cpu", &backend));
    cab_model *model = vim(backend);
    float *pixels = draw(3 * 12 * 12, 1, 9);
    assert_ok(cab_probe_new(model, 0, &probe));
    assert_int_equal(cab_probe_tokens(probe), TOKENS);
    assert_ok(cab_probe_run(probe, pixels));
    assert_ok(cab_probe_matrix(probe, 1, got));
    read_layer(model, pixels, 1, &in);
    for (int reverse = 0; reverse < 2; reverse++) {
        for (int j = 0; j < TOKENS; j++) {
            float *y = respond(backend, &in, reverse, j);
            for (int i = 0; i < TOKENS; i++) {
                const int row = i == MIDDLE  ? 0
                                : i < MIDDLE ? i + 1
                                             : i,
                          column = j == MIDDLE  ? 0
                                   : j < MIDDLE ? j + 1
                                                : j;
                for (int64_t e = 0; e < in.E; e++)
                    expected[row * TOKENS + column] += y[i * in.E + e] / (float)in.E;
            }
            free(y);
        }
    }
    assert_true(tiny_distance(got, expected, TOKENS * TOKENS) < 1e-5);
    for (int i = 0; i < 2 * CAB_SCAN_INPUTS; i++)
        free(in.parts[i / CAB_SCAN_INPUTS][i % CAB_SCAN_INPUTS]);
    free(pixels);
    cab_probe_free(probe);
    cab_model_free(model);
    cab_backend_close(backend);
}

/* Rows of attention sum to 1 and nothing looks ahead; a student's first row is C_0 . B_0 alone. */
static void test_probe_of_text(void **state)
{
    enum { TOKENS = 9 };
    const int32_t ids[TOKENS] = {1, 5, 2, 22, 0, 7, 7, 3, 11};
    const tiny models[] = {tiny_gpt2(CAB_F32, ""), tiny_phi(CAB_F32),    tiny_phi_mamba(CAB_F32),
                           tiny_mamba(CAB_F32),    tiny_mamba2(CAB_F32), tiny_falcon_h1(CAB_F32)};
    for (int m = 0; m < 6; m++) {
        cab_backend *backend = NULL;
        cab_model *model = NULL;
        cab_probe *probe = NULL;
        float M[TOKENS * TOKENS];
        assert_ok(cab_backend_open("cpu", &backend));
        assert_ok(cab_model_open(tiny_write(state, &models[m], 1), backend, CAB_PRECISION_FP32, false, &model));
        assert_ok(cab_probe_new(model, TOKENS, &probe));
        assert_ok(cab_probe_run(probe, ids));
        for (int l = 0; l < 2; l++) {
            assert_ok(cab_probe_matrix(probe, l, M));
            for (int i = 0; i < TOKENS; i++) {
                float sum = 0;
                for (int j = 0; j < TOKENS; j++) {
                    assert_true(j <= i || M[i * TOKENS + j] == 0);
                    sum += M[i * TOKENS + j];
                }
                assert_true(m >= 2 ? sum != 0 : fabsf(sum - 1) < 1e-5f);
            }
        }
        cab_probe_free(probe);
        cab_model_free(model);
        cab_backend_close(backend);
    }
}

/* The class token and the patches remain of DeiT's tokens: what a row gives the distillation token is missing from its sum. */
static void test_probe_of_deit(void **state)
{
    static const char *const directory = "../shared/golden/hf_deit";
    (void)state;
    if (!cab_path_exists(directory)) {
        print_message("%s is not here: skipped\n", directory);
        skip();
    }
    cab_backend *backend = NULL;
    cab_model *model = NULL;
    cab_probe *probe = NULL;
    assert_ok(cab_backend_open("cpu", &backend));
    assert_ok(cab_model_open(directory, backend, CAB_PRECISION_FP32, false, &model));
    const cab_config *c = &model->config;
    assert_int_equal(c->n_special, 2);
    assert_ok(cab_probe_new(model, 0, &probe));
    const int64_t T = cab_probe_tokens(probe);
    assert_int_equal(T, c->max_length - 1);
    float *pixels = draw((int64_t)3 * c->image_size * c->image_size, 1, 9), *M = calloc((size_t)(T * T), sizeof *M);
    assert_ok(cab_probe_run(probe, pixels));
    assert_ok(cab_probe_matrix(probe, c->n_layer - 1, M));
    for (int64_t i = 0; i < T; i++) {
        float sum = 0;
        for (int64_t j = 0; j < T; j++)
            sum += M[i * T + j];
        assert_true(sum < 1 && sum > 0.5f);
    }
    free(pixels);
    free(M);
    cab_probe_free(probe);
    cab_model_free(model);
    cab_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ssd),          cmocka_unit_test(test_scan),   cmocka_unit_test(test_attention),
        cmocka_unit_test(test_probe_of_vim), TEMP_TEST(test_probe_of_text), cmocka_unit_test(test_probe_of_deit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
