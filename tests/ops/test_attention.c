/* Attention, its decoding step and rotary positions against their formulas in fp64. */
#include "ops/gpu.h"

/* ---- attention ------------------------------------------------------------------------------------------------------------ */

static void record_attention(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    out[0] = cab_attention(g, in[0], in[1], in[2], NULL, argument);
}

static double capped(double s, double cap)
{
    return cap > 0 ? cap * tanh(s / cap) : s;
}

/* One query against keys first .. end of (length, width) rows `stride` apart. */
static void attend(double *y, const double *q, const double *k, const double *v, int64_t first, int64_t end,
                   int64_t stride, int64_t width, double scale, double cap)
{
    double sum = 0, largest = -INFINITY;
    for (int64_t j = first; j < end; j++) {
        double s = 0;
        for (int64_t c = 0; c < width; c++)
            s += scale * q[c] * k[j * stride + c];
        s = capped(s, cap);
        largest = s > largest ? s : largest;
    }
    memset(y, 0, (size_t)width * sizeof *y);
    for (int64_t j = first; j < end; j++) {
        double s = 0;
        for (int64_t c = 0; c < width; c++)
            s += scale * q[c] * k[j * stride + c];
        s = exp(capped(s, cap) - largest);
        sum += s;
        for (int64_t c = 0; c < width; c++)
            y[c] += s * v[j * stride + c];
    }
    for (int64_t c = 0; c < width; c++)
        y[c] /= sum;
}

static void reference_attention(const check_case *c, double *const *in, double **out)
{
    const cab_attention_shape *s = c->argument;
    int64_t batch = c->in[0].shape[0], length = c->in[0].shape[1], width = s->head_dim;
    int64_t q_columns = s->n_head * width, k_columns = s->n_kv_head * width;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t l = 0; l < length; l++)
            for (int64_t h = 0; h < s->n_head; h++) {
                int64_t at = (b * length + l) * q_columns + h * width;
                int64_t keys = b * length * k_columns + h / (s->n_head / s->n_kv_head) * width;
                int64_t first = s->window && l >= s->window ? l - s->window + 1 : 0;
                attend(out[0] + at, in[0] + at, in[1] + keys, in[2] + keys, first, s->causal ? l + 1 : length,
                       k_columns, width, (double)s->scale, (double)s->cap);
            }
}

static void run_attention(int64_t batch, int64_t length, cab_attention_shape s)
{
    int64_t q = s.n_head * s.head_dim, k = s.n_kv_head * s.head_dim;
    check_run(&(check_case){.name = "attention",
                            .n_in = 3,
                            .in = {{CHECK_ACTIVATION, 3, {batch, length, q}, -2, 2},
                                   {CHECK_ACTIVATION, 3, {batch, length, k}, -2, 2},
                                   {CHECK_ACTIVATION, 3, {batch, length, k}, 0, 0}},
                            .n_out = 1,
                            .n_seeded = 1,
                            .record = record_attention,
                            .reference = reference_attention,
                            .argument = &s});
}

static void test_attention(void **state)
{
    (void)state;
    for (int causal = 0; causal < 2; causal++) {
        run_attention(2, 7, (cab_attention_shape){2, 2, 5, 0.5f, causal, 0, 0});
        run_attention(1, 1, (cab_attention_shape){1, 1, 8, 0.35f, causal, 0, 0});
        run_attention(1, 9, (cab_attention_shape){4, 2, 3, 0.6f, causal, 0, 0});
        run_attention(1, 11, (cab_attention_shape){2, 1, 4, 0.5f, causal, 3, 0});
        run_attention(2, 7, (cab_attention_shape){4, 2, 5, 0.7f, causal, 0, 1.5f});
        run_attention(1, 20, (cab_attention_shape){2, 1, 4, 0.5f, causal, 3, 2});
    }
}

/* Values only, over several blocks: differences of so many inputs would take too long. */
static void test_attention_blocks(void **state)
{
    (void)state;
    static const int windows[] = {0, 70, 0}, widths[] = {16, 16, 40};
    for (int causal = 0; causal < 2; causal++)
        for (size_t i = 0; i < 3; i++) {
            const int64_t width = widths[i];
            cab_attention_shape s = {2, 1, widths[i], 0.25f, causal, windows[i], causal ? 0 : 3};
            check_run(&(check_case){.name = "attention",
                                    .n_in = 3,
                                    .in = {{CHECK_ACTIVATION, 3, {1, 200, 2 * width}, -2, 2},
                                           {CHECK_ACTIVATION, 3, {1, 200, width}, -2, 2},
                                           {CHECK_ACTIVATION, 3, {1, 200, width}, 0, 0}},
                                    .n_out = 1,
                                    .record = record_attention,
                                    .reference = reference_attention,
                                    .argument = &s});
        }
}

static void test_attention_threads(void **state)
{
    (void)state;
    static const cab_attention_shape s = {4, 2, 12, 0.3f, true, 0, 0};
    check_threads(&(check_case){.name = "attention",
                                .n_in = 3,
                                .in = {{CHECK_ACTIVATION, 3, {3, 133, 48}, -2, 2},
                                       {CHECK_ACTIVATION, 3, {3, 133, 24}, -2, 2},
                                       {CHECK_ACTIVATION, 3, {3, 133, 24}, 0, 0}},
                                .n_out = 1,
                                .n_seeded = 1,
                                .record = record_attention,
                                .argument = &s});
}

/* ---- gradients over several blocks: against the analytic fp64 gradient --------------------------------------------------- */

enum { LONG = 130, WIDE = 6, HEADS = 2 };

typedef struct pass {
    const double *q, *k, *v, *dy;
    double *dq, *dk, *dv;
} pass;

static void add_pair(const pass *p, int64_t i, int64_t h, int64_t keys, int window, double scale, double cap)
{
    double weight[LONG] = {0}, slope[LONG] = {0}, dp[LONG] = {0}, sum = 0, mean = 0;
    int64_t at = (i * HEADS + h) * WIDE, first = window && i >= window ? i - window + 1 : 0;
    for (int64_t j = first; j < keys; j++) {
        for (int64_t c = 0; c < WIDE; c++) {
            weight[j] += scale * p->q[at + c] * p->k[j * WIDE + c];
            dp[j] += p->dy[at + c] * p->v[j * WIDE + c];
        }
        weight[j] = capped(weight[j], cap);
        slope[j] = cap > 0 ? 1 - weight[j] / cap * (weight[j] / cap) : 1;
        weight[j] = exp(weight[j]);
        sum += weight[j];
    }
    for (int64_t j = first; j < keys; j++) {
        weight[j] /= sum;
        mean += weight[j] * dp[j];
    }
    for (int64_t j = first; j < keys; j++)
        for (int64_t c = 0; c < WIDE; c++) {
            double ds = scale * weight[j] * (dp[j] - mean) * slope[j];
            p->dq[at + c] += ds * p->k[j * WIDE + c];
            p->dk[j * WIDE + c] += ds * p->q[at + c];
            p->dv[j * WIDE + c] += weight[j] * p->dy[at + c];
        }
}

static void compare_long(cab_dtype dtype, const cab_attention_shape *s)
{
    static const int64_t columns[] = {HEADS * WIDE, WIDE, WIDE, HEADS * WIDE};
    double *values[4], *expected[3];
    cab_backend *backend;
    cab_graph *g;
    cab_tensor *in[4];
    check_ok(cab_backend_open(check_device(), &backend));
    check_ok(cab_graph_new(backend, &g));
    for (int i = 0; i < 4; i++) {
        values[i] = check_draw("long", i, LONG * columns[i], -1, 1, false);
        in[i] = cab_graph_input(g, "in", dtype, 3, (int64_t[]){1, LONG, columns[i]});
        check_write(g, in[i], values[i], columns[i], 0);
    }
    for (int i = 0; i < 3; i++) {
        expected[i] = check_doubles(LONG * columns[i]);
        cab_graph_want_gradient(g, in[i]);
    }
    cab_tensor *y = cab_attention(g, in[0], in[1], in[2], NULL, s);
    cab_graph_backward(g, 1, &y, &in[3]);
    check_ok(cab_graph_run(g));
    pass p = {values[0], values[1], values[2], values[3], expected[0], expected[1], expected[2]};
    for (int64_t i = 0; i < LONG; i++)
        for (int64_t h = 0; h < HEADS; h++)
            add_pair(&p, i, h, s->causal ? i + 1 : LONG, s->window, (double)s->scale, (double)s->cap);
    for (int i = 0; i < 3; i++) {
        double *got = check_read(g, cab_graph_gradient(g, in[i]), columns[i], 0);
        double distance = check_distance(got, expected[i], LONG * columns[i]);
        if (!(distance < (dtype == CAB_F32 ? 1e-5 : 1e-2)))
            fail_msg("%s causal %d window %d: gradient %d differs by %g", cab_dtype_name(dtype), s->causal, s->window,
                     i, distance);
        free(got);
        free(expected[i]);
    }
    for (int i = 0; i < 4; i++)
        free(values[i]);
    cab_graph_free(g);
    cab_backend_close(backend);
}

static void test_attention_gradient_blocks(void **state)
{
    (void)state;
    for (int low = 0; low < 2; low++)
        for (int causal = 0; causal < 2; causal++)
            for (int window = 0; window <= 67; window += 67)
                for (int cap = 0; cap <= 1; cap++)
                    compare_long(low ? CAB_BF16 : CAB_F32,
                                 &(cab_attention_shape){HEADS, 1, WIDE, 0.5f, causal, window, (float)cap});
}

/* ---- documents: each as if it were alone ---------------------------------------------------------------------------------- */

enum { PACKED = 200 };

/* y, and the gradients of q, k and v, of `length` tokens from `first` on, into rows of `to`; starts NULL: one document. */
static void run_documents(const cab_attention_shape *s, cab_dtype dtype, double *const values[4], int64_t first,
                          int64_t length, const int32_t *starts, double *to[4])
{
    const int64_t columns[4] = {s->n_head * s->head_dim, s->n_kv_head * s->head_dim, s->n_kv_head * s->head_dim,
                                s->n_head * s->head_dim};
    cab_backend *backend;
    cab_graph *g;
    cab_tensor *in[4], *documents = NULL;
    check_ok(cab_backend_open(check_device(), &backend));
    check_ok(cab_graph_new(backend, &g));
    for (int i = 0; i < 4; i++) {
        in[i] = cab_graph_input(g, "in", dtype, 3, (int64_t[]){1, length, columns[i]});
        check_write(g, in[i], values[i] + first * columns[i], columns[i], 0);
        if (i < 3)
            cab_graph_want_gradient(g, in[i]);
    }
    if (starts != NULL) {
        documents = cab_graph_input(g, "starts", CAB_I32, 2, (int64_t[]){1, length});
        check_ok(cab_tensor_write(g, documents, starts));
    }
    cab_tensor *y = cab_attention(g, in[0], in[1], in[2], documents, s);
    cab_graph_keep(g, y);
    cab_graph_backward(g, 1, &y, &in[3]);
    check_ok(cab_graph_run(g));
    for (int i = 0; i < 4; i++) {
        double *got = check_read(g, i < 3 ? cab_graph_gradient(g, in[i]) : y, columns[i], 0);
        memcpy(to[i] + first * columns[i], got, (size_t)(length * columns[i]) * sizeof *got);
        free(got);
    }
    cab_graph_free(g);
    cab_backend_close(backend);
}

static void compare_documents(cab_dtype dtype, cab_attention_shape s)
{
    static const int64_t edges[] = {0, 37, 38, 64, 130, PACKED};
    int32_t starts[PACKED];
    double *values[4], *packed[4], *alone[4];
    for (int i = 0; i < 4; i++) {
        const int64_t n = PACKED * (int64_t)s.head_dim * (i == 0 || i == 3 ? s.n_head : s.n_kv_head);
        values[i] = check_draw("documents", i, n, -1, 1, false);
        packed[i] = check_doubles(n);
        alone[i] = check_doubles(n);
    }
    for (int e = 0; e < 5; e++) {
        for (int64_t l = edges[e]; l < edges[e + 1]; l++)
            starts[l] = (int32_t)edges[e];
        run_documents(&s, dtype, values, edges[e], edges[e + 1] - edges[e], NULL, alone);
    }
    run_documents(&s, dtype, values, 0, PACKED, starts, packed);
    for (int i = 0; i < 4; i++) {
        const int64_t n = PACKED * (int64_t)s.head_dim * (i == 0 || i == 3 ? s.n_head : s.n_kv_head);
        const double distance = check_distance(packed[i], alone[i], n);
        if (!(distance < (dtype == CAB_F32 ? 1e-5 : 1e-2)))
            fail_msg("%s, heads of %d, window %d: result %d differs by %g", cab_dtype_name(dtype), s.head_dim, s.window,
                     i, distance);
        free(values[i]);
        free(packed[i]);
        free(alone[i]);
    }
}

static void test_attention_documents(void **state)
{
    (void)state;
    for (int low = 0; low < 2; low++) {
        const cab_dtype dtype = low ? CAB_BF16 : CAB_F32;
        compare_documents(dtype, (cab_attention_shape){2, 1, 32, 0.25f, true, 0, 0});
        compare_documents(dtype, (cab_attention_shape){2, 2, 16, 0.25f, true, 50, 2});
        compare_documents(dtype, (cab_attention_shape){1, 1, 80, 0.15f, true, 0, 0});
    }
}

/* ---- the decoding step: token by token it must give what the whole sequence gives ------------------------------------------ */

static void compare_steps(cab_dtype dtype, int window, float cap)
{
    enum { BATCH = 2, LENGTH = 9, WIDTH = 6, Q = 4 * WIDTH, K = 2 * WIDTH };
    cab_attention_shape s = {4, 2, WIDTH, 0.4f, true, window, cap};
    static const int64_t columns[] = {Q, K, K};
    double *values[3];
    cab_backend *backend;
    cab_graph *whole, *step;
    cab_tensor *in[3], *token[3];
    check_ok(cab_backend_open(check_device(), &backend));
    check_ok(cab_graph_new(backend, &whole));
    check_ok(cab_graph_new(backend, &step));
    for (int i = 0; i < 3; i++) {
        values[i] = check_draw("steps", i, BATCH * LENGTH * columns[i], -2, 2, false);
        in[i] = cab_graph_input(whole, "in", dtype, 3, (int64_t[]){BATCH, LENGTH, columns[i]});
        check_write(whole, in[i], values[i], columns[i], 0);
        token[i] = cab_graph_input(step, "token", dtype, 3, (int64_t[]){BATCH, 1, columns[i]});
    }
    cab_tensor *y = cab_attention(whole, in[0], in[1], in[2], NULL, &s);
    cab_graph_keep(whole, y);
    check_ok(cab_graph_run(whole));
    double *expected = check_read(whole, y, Q, 0);

    cab_tensor *k_cache = cab_graph_state(step, "k", dtype, 3, (int64_t[]){BATCH, LENGTH, K});
    cab_tensor *v_cache = cab_graph_state(step, "v", dtype, 3, (int64_t[]){BATCH, LENGTH, K});
    cab_tensor *position = cab_graph_input(step, "position", CAB_I32, 1, (int64_t[]){1});
    cab_tensor *out = cab_attention_step(step, token[0], token[1], token[2], k_cache, v_cache, position, &s);
    cab_graph_keep(step, out);
    for (int32_t l = 0; l < LENGTH; l++) {
        check_ok(cab_tensor_write(step, position, &l));
        for (int i = 0; i < 3; i++) {
            double row[BATCH * Q];
            for (int64_t b = 0; b < BATCH; b++)
                memcpy(row + b * columns[i], values[i] + (b * LENGTH + l) * columns[i],
                       (size_t)columns[i] * sizeof *row);
            check_write(step, token[i], row, columns[i], 0);
        }
        check_ok(cab_graph_run(step));
        double *got = check_read(step, out, Q, 0);
        for (int64_t b = 0; b < BATCH; b++)
            assert_true(check_distance(got + b * Q, expected + (b * LENGTH + l) * Q, Q) <
                        (dtype == CAB_F32 ? 1e-5 : 1e-2));
        free(got);
    }
    int32_t outside = LENGTH;
    check_ok(cab_tensor_write(step, position, &outside));
    cab_status status = cab_graph_run(step);
    if (status == CAB_OK && backend->wait) /* a GPU tells when it is waited for */
        status = backend->wait(backend);
    assert_int_equal(status, CAB_EARG);
    for (int i = 0; i < 3; i++)
        free(values[i]);
    free(expected);
    cab_graph_free(whole);
    cab_graph_free(step);
    cab_backend_close(backend);
}

static void test_attention_step(void **state)
{
    (void)state;
    compare_steps(CAB_F32, 0, 0);
    compare_steps(CAB_F32, 3, 0);
    compare_steps(CAB_F32, 0, 1.25f);
    compare_steps(CAB_BF16, 0, 0);
    compare_steps(CAB_BF16, 0, 1.25f);
}

/* ---- larger, on the GPU against the CPU --------------------------------------------------------------------------------- */

/* check_slow(): one sequence and one head of k, as the others are computed alike by blocks of their own. */
static void compare_attention(int64_t batch, int64_t length, cab_attention_shape s)
{
    if (check_slow()) {
        batch = 1;
        s.n_head /= s.n_kv_head;
        s.n_kv_head = 1;
    }
    int64_t q = s.n_head * s.head_dim, k = s.n_kv_head * s.head_dim;
    gpu_compare(&(check_case){.name = "attention",
                              .n_in = 3,
                              .in = {{CHECK_ACTIVATION, 3, {batch, length, q}, -2, 2},
                                     {CHECK_ACTIVATION, 3, {batch, length, k}, -2, 2},
                                     {CHECK_ACTIVATION, 3, {batch, length, k}, 0, 0}},
                              .n_out = 1,
                              .n_seeded = length > 1, /* one token: gradients of q and k are 0 but for rounding */
                              .record = record_attention,
                              .argument = &s},
                1e-5, 2e-2);
}

/* cuDNN's shapes, those it leaves to our own kernels, and every width of tile of these. */
static void test_attention_gpu(void **state)
{
    (void)state;
    for (int causal = 0; causal < 2; causal++) {
        compare_attention(2, 197, (cab_attention_shape){3, 3, 64, 0.125f, causal, 0, 0});
        compare_attention(1, 256, (cab_attention_shape){4, 2, 32, 0.177f, causal, 0, 0});
        compare_attention(2, 150, (cab_attention_shape){4, 1, 48, 0.144f, causal, 70, 0});
        compare_attention(1, 131, (cab_attention_shape){2, 1, 80, 0.112f, causal, 0, 0});
        compare_attention(1, 130, (cab_attention_shape){2, 2, 128, 0.088f, causal, 0, 0});
        compare_attention(1, 100, (cab_attention_shape){2, 1, 256, 0.063f, causal, 33, 0});
        compare_attention(1, 140, (cab_attention_shape){3, 3, 37, 0.164f, causal, 0, 0});
        compare_attention(2, 150, (cab_attention_shape){4, 2, 64, 0.125f, causal, 70, 3});
        compare_attention(1, 131, (cab_attention_shape){2, 1, 128, 0.088f, causal, 0, 5});
        compare_attention(1, 100, (cab_attention_shape){2, 1, 256, 0.063f, causal, 33, 2});
    }
}

/* Lengths about the edges of tiles and blocks of our tensor-core kernels, every width that heads are padded to. */
static void test_attention_gpu_tiles(void **state)
{
    (void)state;
    for (int causal = 0; causal < 2; causal++) {
        compare_attention(2, 1, (cab_attention_shape){2, 1, 64, 0.125f, causal, 0, 0});
        compare_attention(1, 63, (cab_attention_shape){2, 2, 96, 0.102f, causal, 0, 0});
        compare_attention(2, 64, (cab_attention_shape){2, 1, 64, 0.125f, causal, 0, 0});
        compare_attention(1, 65, (cab_attention_shape){2, 2, 80, 0.112f, causal, 0, 0});
        compare_attention(1, 129, (cab_attention_shape){3, 1, 16, 0.25f, causal, 0, 0});
        compare_attention(2, 200, (cab_attention_shape){2, 2, 64, 0.125f, causal, 2, 0});
        compare_attention(1, 200, (cab_attention_shape){2, 1, 128, 0.088f, causal, 65, 0});
        compare_attention(1, 330, (cab_attention_shape){2, 1, 64, 0.125f, causal, 130, 0});
        compare_attention(1, 197, (cab_attention_shape){2, 2, 8, 0.354f, causal, 0, 0});
    }
}

static void record_step(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    out[0] = cab_attention_step(g, in[0], in[1], in[2], in[3], in[4], in[5], argument);
}

/* Positions of several chunks. */
static void compare_step(int position, cab_attention_shape s)
{
    enum { BATCH = 3, CAPACITY = 600 };
    int64_t q = s.n_head * s.head_dim, k = s.n_kv_head * s.head_dim;
    gpu_compare(&(check_case){.name = "attention_step",
                              .n_in = 6,
                              .in = {{CHECK_ACTIVATION, 3, {BATCH, 1, q}, -2, 2},
                                     {CHECK_ACTIVATION, 3, {BATCH, 1, k}, -2, 2},
                                     {CHECK_ACTIVATION, 3, {BATCH, 1, k}, 0, 0},
                                     {CHECK_STATE, 3, {BATCH, CAPACITY, k}, -2, 2},
                                     {CHECK_STATE, 3, {BATCH, CAPACITY, k}, 0, 0},
                                     {CHECK_IDS, 1, {1}, position, position + 1}},
                              .n_out = 1,
                              .record = record_step,
                              .argument = &s},
                1e-5, 1e-2);
}

static void test_attention_step_gpu(void **state)
{
    (void)state;
    compare_step(0, (cab_attention_shape){4, 2, 64, 0.125f, true, 0, 0});
    compare_step(255, (cab_attention_shape){4, 4, 80, 0.112f, true, 0, 0});
    compare_step(520, (cab_attention_shape){4, 2, 64, 0.125f, true, 0, 0});
    compare_step(520, (cab_attention_shape){4, 1, 37, 0.164f, true, 300, 0});
    compare_step(599, (cab_attention_shape){2, 1, 256, 0.063f, true, 3, 0});
    compare_step(300, (cab_attention_shape){4, 2, 64, 0.125f, true, 0, 2});
}

/* ---- rotary ------------------------------------------------------------------------------------------------------------------ */

typedef struct rotary_case {
    int n_head;
    bool first;
    float scale;
} rotary_case;

static void record_rotary(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const rotary_case *r = argument;
    out[0] = cab_rotary(g, in[0], in[1], r->first ? in[2] : NULL, r->n_head, r->scale);
}

static void reference_rotary(const check_case *c, double *const *in, double **out)
{
    const rotary_case *r = c->argument;
    int64_t rows = c->in[0].shape[0] * c->in[0].shape[1], length = c->in[0].shape[1];
    int64_t width = c->in[0].shape[2] / r->n_head, half = c->in[1].shape[0];
    for (int64_t i = 0; i < rows * r->n_head; i++) {
        const double *x = in[0] + i * width;
        double *y = out[0] + i * width;
        memcpy(y, x, (size_t)width * sizeof *y);
        for (int64_t k = 0; k < half; k++) {
            double angle = ((double)(i / r->n_head % length) + (r->first ? in[2][0] : 0)) * in[1][k];
            y[k] = (double)r->scale * (x[k] * cos(angle) - x[half + k] * sin(angle));
            y[half + k] = (double)r->scale * (x[half + k] * cos(angle) + x[k] * sin(angle));
        }
    }
}

static void test_rotary(void **state)
{
    (void)state;
    static const struct {
        int64_t batch, length, width, half;
        rotary_case r;
    } cases[] = {{2, 5, 8, 4, {2, false, 1}}, {1, 1, 6, 2, {1, true, 1}}, {1, 7, 21, 5, {3, true, 1.25f}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_run(&(check_case){
            .name = "rotary",
            .n_in = 3,
            .in = {{CHECK_ACTIVATION, 3, {cases[i].batch, cases[i].length, cases[i].width * cases[i].r.n_head}, 0, 0},
                   {CHECK_F32, 1, {cases[i].half}, 0.01, 1},
                   {CHECK_IDS, 1, {1}, 3, 9}},
            .n_out = 1,
            .n_seeded = 1,
            .record = record_rotary,
            .reference = reference_rotary,
            .argument = &cases[i].r});
}

static void test_rotary_gpu(void **state)
{
    (void)state;
    static const struct {
        int64_t width, half;
        rotary_case r;
    } cases[] = {{64, 16, {32, true, 1}}, {64, 32, {12, false, 1.25f}}, {40, 10, {3, true, 1}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        gpu_compare(&(check_case){.name = "rotary",
                                  .n_in = 3,
                                  .in = {{CHECK_ACTIVATION, 3, {2, 133, cases[i].width * cases[i].r.n_head}, 0, 0},
                                         {CHECK_F32, 1, {cases[i].half}, 0.01, 1},
                                         {CHECK_IDS, 1, {1}, 1000, 1100}},
                                  .n_out = 1,
                                  .n_seeded = 1,
                                  .record = record_rotary,
                                  .argument = &cases[i].r},
                    2e-5, 1e-2);
}

static void test_rotary_threads(void **state)
{
    (void)state;
    static const rotary_case r = {3, false, 1};
    check_threads(&(check_case){.name = "rotary",
                                .n_in = 2,
                                .in = {{CHECK_ACTIVATION, 3, {2, 101, 60}, 0, 0}, {CHECK_F32, 1, {9}, 0.01, 1}},
                                .n_out = 1,
                                .n_seeded = 1,
                                .record = record_rotary,
                                .argument = &r});
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_attention),
                                       cmocka_unit_test(test_attention_blocks),
                                       cmocka_unit_test(test_attention_gpu),
                                       cmocka_unit_test(test_attention_gpu_tiles),
                                       cmocka_unit_test(test_attention_gradient_blocks),
                                       cmocka_unit_test(test_attention_documents),
                                       cmocka_unit_test(test_attention_step),
                                       cmocka_unit_test(test_attention_step_gpu),
                                       cmocka_unit_test(test_attention_threads),
                                       cmocka_unit_test(test_rotary),
                                       cmocka_unit_test(test_rotary_gpu),
                                       cmocka_unit_test(test_rotary_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
