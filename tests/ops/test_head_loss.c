/* test_head_loss.c - the vocabulary losses against plain softmaxes in fp64: values, gradients, masks, temperatures. */
#include "ops/golden.h"
#include "ops/gpu.h"
#include "ops/repeat.h"

typedef struct shape {
    int64_t B, L, D, V;
    int64_t teacher; /* its D; 0: none */
    bool bias, valid;
    double temperature;
    bool targets;
    double cap, teacher_cap; /* 0: none */
} shape;

enum { HIDDEN, W, BIAS, TEACHER_HIDDEN, TEACHER_W, TEACHER_BIAS, LABELS, VALID, TARGETS, INPUTS };
enum { CE, KL, COUNT, AGREEMENT, OUTPUTS }; /* without a teacher CE and the counts */

static void record(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const shape *s = argument;
    const cab_head_side student = {in[HIDDEN], in[W], s->bias ? in[BIAS] : NULL, (float)s->cap};
    const cab_head_side teacher = {in[TEACHER_HIDDEN], in[TEACHER_W], s->bias ? in[TEACHER_BIAS] : NULL,
                                   (float)s->teacher_cap};
    cab_head_losses losses =
        cab_head_loss_targets(g, &student, s->teacher ? &teacher : NULL, in[LABELS], s->targets ? in[TARGETS] : NULL,
                              s->valid ? in[VALID] : NULL, (float)s->temperature);
    out[CE] = losses.ce;
    if (s->teacher) {
        out[KL] = losses.kl;
        out[AGREEMENT] = losses.agreement;
    }
    out[s->teacher ? COUNT : KL] = losses.count;
}

/* The logits of a row, capped. Returns the arg max. */
static int64_t row_logits(const double *hidden, const double *w, const double *bias, int64_t D, int64_t V, double cap,
                          double *logits)
{
    int64_t largest = 0;
    for (int64_t v = 0; v < V; v++) {
        logits[v] = bias ? bias[v] : 0;
        for (int64_t d = 0; d < D; d++)
            logits[v] += hidden[d] * w[v * D + d];
        logits[v] = cap > 0 ? cap * tanh(logits[v] / cap) : logits[v];
        largest = logits[v] > logits[largest] ? v : largest;
    }
    return largest;
}

static void log_softmax(const double *logits, int64_t V, double T, double *out)
{
    double sum = 0;
    for (int64_t v = 0; v < V; v++)
        sum += exp(logits[v] / T);
    for (int64_t v = 0; v < V; v++)
        out[v] = logits[v] / T - log(sum);
}

/* What the cross-entropy of row r wants of word v, and in *sum of all words. */
static double target_of(const shape *s, double *const *in, int64_t r, int64_t v, double *sum)
{
    const int64_t label = (int64_t)in[LABELS][r];
    *sum = label >= 0;
    if (label < 0 || !s->targets)
        return label == v;
    *sum = 0;
    for (int64_t i = 0; i < s->V; i++)
        *sum += in[TARGETS][r * s->V + i];
    return in[TARGETS][r * s->V + v];
}

/* Values, and with `gradient` also those of <seed, (ce, kl)> by the formulas. */
static void compute(const shape *s, double *const *in, double **out, const double *seed, double **gradient)
{
    const int64_t rows = s->B * s->L, V = s->V, D = s->D;
    const double T = s->temperature;
    double n_label = 0, n_valid = 0;
    double *work = check_doubles(5 * V), *student = work, *teacher = work + V, *p = work + 2 * V, *pT = work + 3 * V,
           *qT = work + 4 * V;
    out[CE][0] = 0;
    if (s->teacher)
        out[KL][0] = 0;
    if (s->teacher && out[AGREEMENT] != NULL)
        out[AGREEMENT][0] = 0;
    for (int64_t r = 0; r < rows; r++) {
        n_label += in[LABELS][r] >= 0;
        n_valid += !s->valid || in[VALID][r] != 0;
    }
    out[s->teacher ? COUNT : KL][0] = n_label;
    out[s->teacher ? COUNT : KL][1] = n_valid;
    for (int64_t r = 0; r < rows; r++) {
        const int64_t label = (int64_t)in[LABELS][r];
        const bool valid = s->teacher && (!s->valid || in[VALID][r] != 0);
        int64_t best = row_logits(in[HIDDEN] + r * D, in[W], s->bias ? in[BIAS] : NULL, D, V, s->cap, student);
        log_softmax(student, V, 1, p);
        for (int64_t v = 0; v < V && label >= 0; v++) {
            double sum;
            out[CE][0] -= target_of(s, in, r, v, &sum) * p[v] / n_label;
        }
        if (valid) {
            int64_t same = row_logits(in[TEACHER_HIDDEN] + r * s->teacher, in[TEACHER_W],
                                      s->bias ? in[TEACHER_BIAS] : NULL, s->teacher, V, s->teacher_cap, teacher);
            if (out[AGREEMENT] != NULL)
                out[AGREEMENT][0] += (same == best) / n_valid;
            log_softmax(student, V, T, pT);
            log_softmax(teacher, V, T, qT);
            for (int64_t v = 0; v < V; v++)
                out[KL][0] += T * T * exp(qT[v]) * (qT[v] - pT[v]) / n_valid;
        }
        for (int64_t v = 0; v < V && gradient; v++) {
            double sum, y = target_of(s, in, r, v, &sum), d = 0;
            d += label >= 0 ? seed[0] / n_label * (sum * exp(p[v]) - y) : 0;
            d += valid ? seed[1] * T / n_valid * (exp(pT[v]) - exp(qT[v])) : 0;
            d *= s->cap > 0 ? 1 - student[v] / s->cap * (student[v] / s->cap) : 1;
            gradient[BIAS][v] += d;
            for (int64_t i = 0; i < D; i++) {
                gradient[HIDDEN][r * D + i] += d * in[W][v * D + i];
                gradient[W][v * D + i] += d * in[HIDDEN][r * D + i];
            }
        }
    }
    free(work);
}

static void reference(const check_case *c, double *const *in, double **out)
{
    compute(c->argument, in, out, NULL, NULL);
}

static check_case make_case(const char *name, const shape *s)
{
    const int64_t teacher = s->teacher ? s->teacher : 1;
    return (check_case){.name = name,
                        .n_in = INPUTS,
                        .in = {{CHECK_ACTIVATION, 3, {s->B, s->L, s->D}, -2, 2},
                               {CHECK_PARAMETER, 2, {s->V, s->D}, -2, 2},
                               {s->bias ? CHECK_PARAMETER : CHECK_FROZEN, 1, {s->V}, 0, 0},
                               {CHECK_CONSTANT, 3, {s->B, s->L, teacher}, -2, 2},
                               {CHECK_FROZEN, 2, {s->V, teacher}, -2, 2},
                               {CHECK_FROZEN, 1, {s->V}, 0, 0},
                               {CHECK_IDS, 2, {s->B, s->L}, -1, (double)s->V},
                               {CHECK_IDS, 2, {s->B, s->L}, 0, 2},
                               {CHECK_F32, 3, {s->B, s->L, s->V}, 0, 1}},
                        .n_out = s->teacher ? OUTPUTS : 2,
                        .n_seeded = s->teacher ? 2 : 1,
                        .record = record,
                        .reference = reference,
                        .argument = s,
                        .no_nan = s->valid,
                        .apart = strcmp(check_device(), "cpu") != 0};
}

/* A GPU holds the logits of a training step in bf16, where nearly equal ones are equal: another may come out largest. */
static bool loses_agreement(const shape *s)
{
    return s->teacher && strcmp(check_device(), "cpu") != 0;
}

static void test_small(void **state)
{
    (void)state;
    const shape shapes[] = {
        {2, 3, 4, 11, 5, true, true, 1, false, 0, 0},   {1, 1, 3, 7, 3, true, false, 1, false, 0, 0},
        {2, 4, 3, 9, 2, false, true, 2.5, false, 0, 0}, {1, 5, 4, 33, 4, false, false, 1, false, 0, 0},
        {1, 6, 3, 5, 0, true, false, 1, false, 0, 0},   {1, 3, 2, 70, 0, false, false, 1, false, 0, 0},
        {2, 3, 4, 11, 5, true, true, 1, true, 0, 0},    {1, 5, 2, 70, 0, false, false, 1, true, 0, 0},
        {2, 2, 3, 9, 4, true, false, 2, true, 0, 0},    {2, 3, 4, 11, 5, true, true, 1, false, 3, 2},
        {2, 4, 3, 9, 2, false, true, 2.5, false, 0, 4}, {1, 3, 2, 70, 0, false, false, 1, false, 2.5, 0},
        {2, 2, 3, 9, 4, true, false, 2, true, 1.5, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_case c = make_case("head_loss", &shapes[i]);
        if (loses_agreement(&shapes[i])) {
            c.f32_only = true;
            check_run(&c);
            c.f32_only = false;
            c.n_out = AGREEMENT;
        }
        check_run(&c);
    }
}

/* More rows than a chunk holds, more words than a piece: the gradient by the formulas. */
static void test_chunks(void **state)
{
    (void)state;
    const shape shapes[] = {{3, 181, 6, 21, 4, true, true, 1, false, 0, 0},
                            {1, 30, 5, 1101, 3, true, true, 3, false, 0, 0},
                            {1, 70, 5, 1101, 3, true, true, 1, true, 0, 0},
                            {1, 30, 5, 1101, 3, true, true, 3, false, 4, 6}};
    const char *const isas[] = {"v1", "v3", "v4"};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_case c = make_case("head_loss chunks", &shapes[i]);
        check_reference r = {0};
        double *out[OUTPUTS];
        for (int j = 0; j < INPUTS; j++) {
            const check_input *in = &c.in[j];
            const int64_t n = check_count(in->n_dim, in->shape);
            r.in[j] = check_draw(c.name, j, n, in->low < in->high ? in->low : -1, in->low < in->high ? in->high : 1,
                                 in->kind == CHECK_IDS);
            r.gradient[j] = check_doubles(n);
        }
        for (int o = 0; o < OUTPUTS; o++) {
            r.out_count[o] = o == COUNT ? 2 : 1;
            out[o] = r.out[o] = check_doubles(2);
        }
        r.seed[CE] = check_doubles(1);
        r.seed[KL] = check_doubles(1);
        r.seed[CE][0] = 0.75;
        r.seed[KL][0] = -1.5;
        compute(&shapes[i], r.in, out, (double[]){0.75, -1.5}, r.gradient);
        for (size_t k = 0; k < 3; k++)
            for (int low = 0; low < 2 && check_have(isas[k]); low++) {
                check_variant v = {.dtype = low ? CAB_BF16 : CAB_F32,
                                   .isa = isas[k],
                                   .view = true,
                                   .twice = true,
                                   .threads = low ? 0 : 3};
                c.n_out = low && loses_agreement(&shapes[i]) ? AGREEMENT : OUTPUTS;
                check_one(&c, &v, &r);
            }
        check_release(&r);
    }
}

/* Blocks of either size on the GPU, rows that fit into its shared memory and rows that do not, several chunks; check_slow(): few rows, fewer of
 * many words, and of these one size. */
static void test_gpu(void **state)
{
    (void)state;
    const shape shapes[] = {
        {2, 300, 64, 1000, 48, true, true, 1, false, 0, 0},     {1, 90, 40, 1003, 56, false, false, 2, true, 0, 0},
        {1, 200, 64, 1000, 0, true, false, 1, true, 0, 0},      {1, 90, 40, 1003, 56, true, false, 2, false, 5, 3},
        {2, 350, 32, 20011, 40, false, true, 2.5, false, 0, 0}, {1, 2600, 16, 50257, 16, true, false, 1, false, 0, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes - (check_slow() ? 1 : 0); i++) {
        shape s = shapes[i];
        if (check_slow())
            s.L = s.V > 16384 ? 8 : 40;
        check_case c = make_case("head_loss on a GPU", &s);
        const int matrices[] = {HIDDEN, W, TEACHER_HIDDEN, TEACHER_W};
        for (size_t j = 0; j < sizeof matrices / sizeof *matrices; j++) {
            c.in[matrices[j]].low = -0.75;
            c.in[matrices[j]].high = 0.75;
        }
        c.n_in = s.targets ? INPUTS : TARGETS;
        c.n_out = s.teacher ? AGREEMENT : 2;
        gpu_compare(&c, 1e-4, 2e-2);
    }
}

/* One graph over given hidden states of width 1 and head w, V = 3: what it reports. */
static void report(const float *hidden, const float *teacher, const int32_t *labels, const int32_t *valid, int rows,
                   float *ce, float *kl, float *agreement, float counts[2])
{
    cab_backend *backend;
    cab_params *params;
    cab_graph *g;
    cab_tensor *w;
    check_ok(cab_backend_open("cpu", &backend));
    check_ok(cab_params_new(backend, &params));
    check_ok(cab_graph_new(backend, &g));
    check_ok(cab_params_add(params, "w", CAB_F32, 2, (int64_t[]){3, 1}, CAB_DECAY, &w));
    check_ok(cab_params_write(params, w, (float[]){1, 0, -1}));
    cab_tensor *h = cab_graph_input(g, "h", CAB_F32, 3, (int64_t[]){1, rows, 1});
    cab_tensor *t = cab_graph_input(g, "t", CAB_F32, 3, (int64_t[]){1, rows, 1});
    cab_tensor *l = cab_graph_input(g, "labels", CAB_I32, 2, (int64_t[]){1, rows});
    cab_tensor *v = cab_graph_input(g, "valid", CAB_I32, 2, (int64_t[]){1, rows});
    check_ok(cab_tensor_write(g, h, hidden));
    check_ok(cab_tensor_write(g, t, teacher));
    check_ok(cab_tensor_write(g, l, labels));
    check_ok(cab_tensor_write(g, v, valid));
    cab_head_losses losses =
        cab_head_loss(g, &(cab_head_side){h, w, NULL, 0}, &(cab_head_side){t, w, NULL, 0}, l, v, 1.0f);
    cab_tensor *outputs[] = {losses.ce, losses.kl, losses.agreement, losses.count};
    for (int i = 0; i < 4; i++)
        cab_graph_keep(g, outputs[i]);
    check_ok(cab_graph_plan(g, NULL));
    check_ok(cab_graph_run(g));
    check_ok(cab_scalar_read(g, losses.ce, ce));
    check_ok(cab_scalar_read(g, losses.kl, kl));
    check_ok(cab_scalar_read(g, losses.agreement, agreement));
    check_ok(cab_tensor_read(g, losses.count, counts));
    cab_graph_free(g);
    cab_params_free(params);
    cab_backend_close(backend);
}

/* Logits of +-1000 in fp32, ties, and rows that take part in nothing. */
static void test_edges(void **state)
{
    (void)state;
    float ce, kl, agreement, counts[2];
    report((float[]){1000, -1000, 0}, (float[]){1000, -1000, 2}, (int32_t[]){0, 0, -1}, (int32_t[]){1, 0, 1}, 3, &ce,
           &kl, &agreement, counts);
    assert_true(counts[0] == 2.0f && counts[1] == 2.0f);
    assert_true(fabsf(ce - 1000.0f) < 1e-3f); /* 0 for the first, 2000 for the second */
    assert_true(agreement == 1.0f); /* the third row is a tie of all: the lowest index is the teacher's choice */
    assert_true(kl > 0.0f && isfinite(kl));
    report((float[]){3}, (float[]){3}, (int32_t[]){-1}, (int32_t[]){0}, 1, &ce, &kl, &agreement, counts);
    assert_true(ce == 0.0f && kl == 0.0f && agreement == 0.0f && counts[0] == 0.0f && counts[1] == 0.0f);
    report((float[]){3}, (float[]){3}, (int32_t[]){2}, (int32_t[]){1}, 1, &ce, &kl, &agreement, counts);
    assert_true(fabsf(kl) < 1e-6f && agreement == 1.0f);
}

/* A label outside the vocabulary is an error at run time, teachers of other vocabularies one when recorded. */
static void test_errors(void **state)
{
    (void)state;
    cab_backend *backend;
    cab_graph *g;
    for (int i = 0; i < 2; i++) {
        check_ok(cab_backend_open("cpu", &backend));
        check_ok(cab_graph_new(backend, &g));
        cab_tensor *h = cab_graph_input(g, "h", CAB_F32, 3, (int64_t[]){1, 2, 4});
        cab_tensor *w = cab_graph_input(g, "w", CAB_F32, 2, (int64_t[]){5, 4});
        cab_tensor *other = cab_graph_input(g, "other", CAB_F32, 2, (int64_t[]){6, 4});
        cab_tensor *labels = cab_graph_input(g, "labels", CAB_I32, 2, (int64_t[]){1, 2});
        check_ok(cab_tensor_write(g, labels, (int32_t[]){0, 5}));
        const cab_head_side student = {h, w, NULL, 0}, teacher = {h, other, NULL, 0};
        cab_head_losses losses = cab_head_loss(g, &student, i ? &teacher : NULL, labels, NULL, 1.0f);
        cab_graph_keep(g, losses.ce);
        if (i == 0) {
            check_ok(cab_graph_plan(g, NULL));
            assert_int_equal(cab_graph_run(g), CAB_EARG);
            assert_string_equal(cab_error_text(), "head_loss: label 5 in row 1, expected -1 to 4");
        } else {
            assert_null(losses.ce);
            assert_int_equal(cab_graph_plan(g, NULL), CAB_ESHAPE);
        }
        cab_graph_free(g);
        cab_backend_close(backend);
    }
}

enum { GOLDEN_B = 2, GOLDEN_L = 19, WORDS = 53, ROWS = GOLDEN_B * GOLDEN_L };

static cab_tensor *golden_logits(cab_graph *g, const golden *gold, const char *name)
{
    cab_tensor *t = cab_graph_input(g, name, CAB_F32, 3, (int64_t[]){GOLDEN_B, GOLDEN_L, WORDS});
    float *values = golden_read(gold, name, ROWS * WORDS);
    check_ok(cab_tensor_write(g, t, values));
    free(values);
    return t;
}

/* The next token of each, none for the last. */
static cab_tensor *golden_labels(cab_graph *g, const golden *gold)
{
    cab_tensor *t = cab_graph_input(g, "labels", CAB_I32, 2, (int64_t[]){GOLDEN_B, GOLDEN_L});
    int32_t *ids = golden_read(gold, "input_ids", ROWS), labels[ROWS];
    for (int i = 0; i < ROWS; i++)
        labels[i] = i % GOLDEN_L + 1 < GOLDEN_L ? ids[i + 1] : -1;
    check_ok(cab_tensor_write(g, t, labels));
    free(ids);
    return t;
}

static void assert_golden(const golden *gold, const char *name, const float *got, size_t n)
{
    float *expected = golden_read(gold, name, n);
    assert_true(golden_distance(got, expected, n) < 1e-5);
    free(expected);
}

/* The reference's logits stand in for hidden states, with the identity for a head: its losses and, as the gradient of a
 * bias, the column sums of its dlogits. */
static void golden_losses(const golden *gold, bool kl)
{
    cab_backend *backend;
    cab_params *params;
    cab_graph *g;
    cab_tensor *w, *b;
    float identity[WORDS * WORDS] = {0}, value, gradient[WORDS];
    for (int i = 0; i < WORDS; i++)
        identity[i * WORDS + i] = 1;
    check_ok(cab_backend_open("cpu", &backend));
    check_ok(cab_params_new(backend, &params));
    check_ok(cab_graph_new(backend, &g));
    check_ok(cab_params_add(params, "w", CAB_F32, 2, (int64_t[]){WORDS, WORDS}, CAB_DECAY, &w));
    check_ok(cab_params_add(params, "b", CAB_F32, 1, (int64_t[]){WORDS}, CAB_NO_DECAY, &b));
    check_ok(cab_params_set_trainable(params, "b", true, NULL));
    check_ok(cab_params_write(params, w, identity));
    const cab_head_side student = {golden_logits(g, gold, "logits"), w, b, 0};
    const cab_head_side teacher = {golden_logits(g, gold, "teacher_logits"), w, NULL, 0};
    cab_head_losses losses = cab_head_loss(g, &student, &teacher, golden_labels(g, gold), NULL, 1.0f);
    cab_graph_keep(g, losses.ce);
    cab_graph_keep(g, losses.kl);
    cab_tensor *one = cab_graph_scalar(g, "one", 1.0f);
    cab_graph_backward(g, 1, kl ? &losses.kl : &losses.ce, &one);
    check_ok(cab_graph_plan(g, NULL));
    check_ok(cab_graph_run(g));
    check_ok(cab_scalar_read(g, losses.ce, &value));
    assert_golden(gold, "loss_ce", &value, 1);
    check_ok(cab_scalar_read(g, losses.kl, &value));
    assert_golden(gold, "loss_kl_all_positions", &value, 1);
    check_ok(cab_params_read_grad(params, b, gradient));
    assert_golden(gold, kl ? "grad_kl.lm_head.bias" : "grad_ce.lm_head.bias", gradient, WORDS);
    cab_graph_free(g);
    cab_params_free(params);
    cab_backend_close(backend);
}

static void test_golden(void **state)
{
    (void)state;
    golden gold = {0};
    if (!golden_open(&gold, "phi_mamba_small"))
        skip();
    golden_losses(&gold, false);
    golden_losses(&gold, true);
    golden_close(&gold);
}

/* The same bits twice. */
static void test_repeat(void **state)
{
    (void)state;
    const shape s = {3, 181, 6, 21, 4, true, true, 1, false, 0, 0};
    const check_case c = make_case("head_loss repeat", &s);
    const check_variant v = {.dtype = CAB_BF16, .isa = "v1", .threads = 2};
    repeat_compare(&c, &v, &v, 10000);
}

enum { LARGE = 262144, LARGE_D = 4, LARGE_ROWS = 130 };

typedef struct large_loss {
    cab_params *params;
    cab_graph *g;
    cab_tensor *w, *hidden, *labels, *ce;
} large_loss;

/* Cross-entropy of `rows` rows over a large vocabulary, planned. Returns the bytes that its nodes work in. */
static size_t large_open(cab_backend *backend, int64_t rows, large_loss *l)
{
    size_t scratch = 0;
    check_ok(cab_params_new(backend, &l->params));
    check_ok(cab_params_add(l->params, "w", CAB_F32, 2, (int64_t[]){LARGE, LARGE_D}, CAB_DECAY, &l->w));
    check_ok(cab_graph_new(backend, &l->g));
    l->hidden = cab_graph_input(l->g, "hidden", CAB_F32, 3, (int64_t[]){1, rows, LARGE_D});
    l->labels = cab_graph_input(l->g, "labels", CAB_I32, 2, (int64_t[]){1, rows});
    const cab_head_side student = {l->hidden, l->w, NULL, 0};
    l->ce = cab_head_loss(l->g, &student, NULL, l->labels, NULL, 1.0f).ce;
    cab_graph_keep(l->g, l->ce);
    check_ok(cab_graph_plan(l->g, NULL));
    for (int i = 0; i < cab_graph_nodes(l->g); i++)
        scratch += cab_graph_node(l->g, i)->scratch_bytes;
    return scratch;
}

static void large_close(large_loss *l)
{
    cab_graph_free(l->g);
    cab_params_free(l->params);
}

/* -log softmax of the label in fp64. */
static double large_reference(const float *hidden, const float *w, int32_t label)
{
    double sum = 0, own = 0;
    for (int32_t v = 0; v < LARGE; v++) {
        double logit = 0;
        for (int d = 0; d < LARGE_D; d++)
            logit += (double)hidden[d] * (double)w[v * LARGE_D + d];
        sum += exp(logit);
        own = v == label ? logit : own;
    }
    return log(sum) - own;
}

/* A vocabulary of 262,144: what the op works in does not grow with the rows, but for three numbers each. */
static void test_large_vocabulary_is_flat(void **state)
{
    (void)state;
    enum { FEW = 1200, MANY = 4800 };
    cab_backend *backend;
    large_loss few, many;
    check_ok(cab_backend_open(check_device(), &backend));
    const size_t small = large_open(backend, FEW, &few), large = large_open(backend, MANY, &many);
    print_message("scratch of %d rows %zu, of %d rows %zu bytes\n", FEW, small, MANY, large);
    assert_true(small > 0 && large <= small + (size_t)(MANY - FEW) * 3 * sizeof(float) + 4096);
    assert_true(large < (size_t)MANY * LARGE); /* a quarter of all logits in fp32 */
    large_close(&few);
    large_close(&many);
    cab_backend_close(backend);
}

/* In the first chunk, in the middle, and in the last one, which is not full, the loss is the whole softmax's. */
static void test_large_vocabulary(void **state)
{
    (void)state;
    cab_backend *backend;
    large_loss l;
    int32_t labels[LARGE_ROWS];
    float hidden[LARGE_ROWS * LARGE_D], *w = calloc((size_t)LARGE * LARGE_D, sizeof *w), value;
    cab_random random = {.seed = 5, .stream = CAB_STREAM_TEST};
    assert_non_null(w);
    if (check_slow()) {
        free(w);
        skip();
    }
    for (int i = 0; i < LARGE_ROWS * LARGE_D; i++)
        hidden[i] = cab_bf16_to_f32(cab_bf16_from_f32(cab_random_normal(&random)));
    for (int i = 0; i < LARGE * LARGE_D; i++)
        w[i] = cab_bf16_to_f32(cab_bf16_from_f32(cab_random_normal(&random)));
    check_ok(cab_backend_open(check_device(), &backend));
    large_open(backend, LARGE_ROWS, &l);
    check_ok(cab_params_write(l.params, l.w, w));
    check_ok(cab_tensor_write(l.g, l.hidden, hidden));
    for (int r = 0; r < LARGE_ROWS; r += 43) {
        for (int i = 0; i < LARGE_ROWS; i++)
            labels[i] = i == r ? LARGE - 1 - 7 * i : -1;
        const double expected = large_reference(hidden + r * LARGE_D, w, labels[r]);
        check_ok(cab_tensor_write(l.g, l.labels, labels));
        check_ok(cab_graph_run(l.g));
        check_ok(cab_scalar_read(l.g, l.ce, &value));
        if (!(fabs((double)value - expected) < 3e-5 * expected)) /* a sum of 262,144 terms in fp32 */
            fail_msg("row %d: %.7g, expected %.7g", r, (double)value, expected);
    }
    free(w);
    large_close(&l);
    cab_backend_close(backend);
}

/* ---- a teacher that is its likeliest words -------------------------------------------------------------------------------- */

enum { WORDS_ROWS = 5, WORDS_V = 37 };

/* Logits of both models, the same numbers in either dtype. */
static void draw_logits(double *s, double *t)
{
    double *a = check_draw("words", 0, WORDS_ROWS * WORDS_V, -3, 3, false),
           *b = check_draw("words", 1, WORDS_ROWS * WORDS_V, -3, 3, false);
    memcpy(s, a, WORDS_ROWS * WORDS_V * sizeof *s);
    memcpy(t, b, WORDS_ROWS * WORDS_V * sizeof *t);
    free(a);
    free(b);
}

/* The k likeliest words of the teacher with their log p. */
static void likeliest_words(const double *t, int k, int32_t *ids, float *top)
{
    double logp[WORDS_V];
    bool taken[WORDS_V] = {false};
    log_softmax(t, WORDS_V, 1, logp);
    for (int i = 0; i < k; i++) {
        int best = -1;
        for (int v = 0; v < WORDS_V; v++)
            if (!taken[v] && (best < 0 || t[v] > t[best]))
                best = v;
        taken[best] = true;
        ids[i] = best;
        top[i] = (float)logp[best];
    }
}

/* KL of a row and, scaled by `scale`, its gradient in the student's logits, by the formulas of ops.h. */
static double words_kl(const double *s, const int32_t *ids, const float *top, int k, double T, double scale, double *ds)
{
    double p[WORDS_V], t[WORDS_V], pT[WORDS_V], qT[WORDS_V], rest = 1, outside = 1, kl = 0;
    log_softmax(s, WORDS_V, 1, p);
    for (int i = 0; i < k; i++) {
        rest -= exp((double)top[i]);
        outside -= exp(p[ids[i]]);
    }
    for (int v = 0; v < WORDS_V; v++)
        t[v] = p[v] + log(rest / outside);
    for (int i = 0; i < k; i++)
        t[ids[i]] = (double)top[i];
    log_softmax(s, WORDS_V, T, pT);
    log_softmax(t, WORDS_V, T, qT);
    for (int v = 0; v < WORDS_V; v++) {
        kl += T * T * exp(qT[v]) * (qT[v] - pT[v]);
        ds[v] = scale * T * (exp(pT[v]) - exp(qT[v]));
    }
    return kl;
}

/* Records and runs the losses of hidden states that are the student's logits: the head is the identity. */
static void run_words(cab_dtype dtype, const double *s, const int32_t *ids, const float *top, int k, double T,
                      double *kl, double *agreement, double *ds)
{
    cab_backend *backend;
    cab_params *params;
    cab_graph *g;
    cab_tensor *w;
    float *eye = calloc((size_t)WORDS_V * WORDS_V, sizeof *eye), value;
    int32_t labels[WORDS_ROWS];
    assert_non_null(eye);
    for (int v = 0; v < WORDS_V; v++)
        eye[v * WORDS_V + v] = 1;
    for (int r = 0; r < WORDS_ROWS; r++)
        labels[r] = -1;
    check_ok(cab_backend_open(check_device(), &backend));
    check_ok(cab_params_new(backend, &params));
    check_ok(cab_graph_new(backend, &g));
    check_ok(cab_params_add(params, "w", CAB_F32, 2, (int64_t[]){WORDS_V, WORDS_V}, CAB_DECAY, &w));
    check_ok(cab_params_write(params, w, eye));
    cab_tensor *h = cab_graph_input(g, "h", dtype, 3, (int64_t[]){1, WORDS_ROWS, WORDS_V});
    cab_tensor *l = cab_graph_input(g, "labels", CAB_I32, 2, (int64_t[]){1, WORDS_ROWS});
    const cab_head_words words = {cab_graph_input(g, "ids", CAB_I32, 3, (int64_t[]){1, WORDS_ROWS, k}),
                                  cab_graph_input(g, "top", CAB_F32, 3, (int64_t[]){1, WORDS_ROWS, k})};
    check_write(g, h, s, WORDS_V, 0);
    check_ok(cab_tensor_write(g, l, labels));
    check_ok(cab_tensor_write(g, words.ids, ids));
    check_ok(cab_tensor_write(g, words.top, top));
    cab_graph_want_gradient(g, h);
    const cab_head_losses losses = cab_head_loss_words(g, &(cab_head_side){h, w, NULL, 0}, &words, l, NULL, (float)T);
    cab_tensor *seed = cab_graph_scalar(g, "seed", 0.5f), *kl_out = losses.kl;
    cab_graph_keep(g, losses.kl);
    cab_graph_keep(g, losses.agreement);
    cab_graph_backward(g, 1, &kl_out, &seed);
    check_ok(cab_graph_plan(g, NULL));
    check_ok(cab_graph_run(g));
    check_ok(cab_scalar_read(g, losses.kl, &value));
    *kl = (double)value;
    check_ok(cab_scalar_read(g, losses.agreement, &value));
    *agreement = (double)value;
    double *read = check_read(g, cab_graph_gradient(g, h), WORDS_V, 0);
    memcpy(ds, read, WORDS_ROWS * WORDS_V * sizeof *ds);
    free(read);
    free(eye);
    cab_graph_free(g);
    cab_params_free(params);
    cab_backend_close(backend);
}

static double distance(const double *a, const double *b, int n)
{
    double apart = 0, size = 0;
    for (int i = 0; i < n; i++) {
        apart += (a[i] - b[i]) * (a[i] - b[i]);
        size += b[i] * b[i];
    }
    return sqrt(apart / size);
}

/* One word, some, all; at k = V what the whole teacher gives, which needs no formula of the words. */
static void test_words(void **state)
{
    (void)state;
    const int counts[] = {1, 8, 36, WORDS_V};
    double s[WORDS_ROWS * WORDS_V], t[WORDS_ROWS * WORDS_V], ds[WORDS_ROWS * WORDS_V], wanted[WORDS_ROWS * WORDS_V];
    draw_logits(s, t);
    for (int n = 0; n < 4; n++)
        for (int low = 0; low < 2; low++)
            for (int warm = 0; warm < 2; warm++) {
                const int k = counts[n];
                const double T = warm ? 2 : 1;
                int32_t ids[WORDS_ROWS * WORDS_V];
                float top[WORDS_ROWS * WORDS_V];
                double kl = 0, got, agreement, same = 0, whole = 0;
                for (int r = 0; r < WORDS_ROWS; r++) {
                    const double *row = s + r * WORDS_V, *teacher = t + r * WORDS_V;
                    double pT[WORDS_V], qT[WORDS_V];
                    int best = 0;
                    likeliest_words(teacher, k, ids + r * k, top + r * k);
                    kl += words_kl(row, ids + r * k, top + r * k, k, T, 0.5 / WORDS_ROWS, wanted + r * WORDS_V) /
                          WORDS_ROWS;
                    for (int v = 0; v < WORDS_V; v++)
                        best = row[v] > row[best] ? v : best;
                    same += (double)(best == ids[r * k]) / WORDS_ROWS;
                    log_softmax(row, WORDS_V, T, pT);
                    log_softmax(teacher, WORDS_V, T, qT);
                    for (int v = 0; v < WORDS_V; v++)
                        whole += T * T * exp(qT[v]) * (qT[v] - pT[v]) / WORDS_ROWS;
                }
                run_words(low ? CAB_BF16 : CAB_F32, s, ids, top, k, T, &got, &agreement, ds);
                assert_true(fabs(got - kl) < (low ? 2e-2 : 1e-4) * kl);
                assert_true(distance(ds, wanted, WORDS_ROWS * WORDS_V) < (low ? 2e-2 : 1e-3));
                if (k == WORDS_V)
                    assert_true(fabs(got - whole) < (low ? 2e-2 : 1e-4) * whole);
                else if (!warm && k + 1 < WORDS_V) /* of one word that is left the sum is the word */
                    assert_true(got < whole);
                if (k > 1 && !low)
                    assert_true(fabs(agreement - same) < 1e-6);
            }
}

/* A word that is none is an error at run time. */
static void test_bad_words(void **state)
{
    (void)state;
    cab_backend *backend;
    cab_graph *g;
    if (strcmp(check_device(), "cpu") != 0)
        skip();
    check_ok(cab_backend_open("cpu", &backend));
    check_ok(cab_graph_new(backend, &g));
    cab_tensor *h = cab_graph_input(g, "h", CAB_F32, 3, (int64_t[]){1, 1, 4});
    cab_tensor *w = cab_graph_input(g, "w", CAB_F32, 2, (int64_t[]){5, 4});
    cab_tensor *labels = cab_graph_input(g, "labels", CAB_I32, 2, (int64_t[]){1, 1});
    const cab_head_words words = {cab_graph_input(g, "ids", CAB_I32, 3, (int64_t[]){1, 1, 2}),
                                  cab_graph_input(g, "top", CAB_F32, 3, (int64_t[]){1, 1, 2})};
    check_ok(cab_tensor_write(g, words.ids, (int32_t[]){1, 5}));
    const cab_head_losses losses = cab_head_loss_words(g, &(cab_head_side){h, w, NULL, 0}, &words, labels, NULL, 1.0f);
    cab_graph_keep(g, losses.kl);
    check_ok(cab_graph_plan(g, NULL));
    assert_int_equal(cab_graph_run(g), CAB_EARG);
    assert_string_equal(cab_error_text(), "head_loss: the teacher's word 1 has id 5, expected 0 to 4");
    cab_graph_free(g);
    cab_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_small),
                                       cmocka_unit_test(test_chunks),
                                       cmocka_unit_test(test_gpu),
                                       cmocka_unit_test(test_edges),
                                       cmocka_unit_test(test_errors),
                                       cmocka_unit_test(test_words),
                                       cmocka_unit_test(test_bad_words),
                                       cmocka_unit_test(test_golden),
                                       cmocka_unit_test(test_repeat),
                                       cmocka_unit_test(test_large_vocabulary_is_flat),
                                       cmocka_unit_test(test_large_vocabulary),
                                       cmocka_unit_test(test_words),
                                       cmocka_unit_test(test_bad_words)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
