/* test_head_score.c - log-probabilities of labels and the likeliest words of rows against plain softmaxes in fp64. */
#include "ops/gpu.h"

typedef struct shape {
    int64_t B, L, D, V, k;
    bool bias;
    double cap;
} shape;

enum { HIDDEN, W, BIAS, LABELS, INPUTS };
enum { LABEL, IDS, TOP, OUTPUTS };

static void record(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const shape *s = argument;
    const cab_head_side side = {in[HIDDEN], in[W], s->bias ? in[BIAS] : NULL, (float)s->cap};
    const cab_head_scores scores = cab_head_score(g, &side, in[LABELS], s->k);
    out[LABEL] = scores.label;
    out[IDS] = scores.ids;
    out[TOP] = scores.top;
}

/* The likeliest word but for those that are taken, of equals the first; takes it. */
static int64_t take(const double *logits, bool *taken, int64_t V)
{
    int64_t best = -1;
    for (int64_t v = 0; v < V; v++)
        if (!taken[v] && (best < 0 || logits[v] > logits[best]))
            best = v;
    taken[best] = true;
    return best;
}

static void reference(const check_case *c, double *const *in, double **out)
{
    const shape *s = c->argument;
    double *logits = check_doubles(s->V);
    bool *taken = calloc((size_t)s->V, sizeof *taken);
    assert_non_null(taken);
    for (int64_t r = 0; r < s->B * s->L; r++) {
        const int64_t label = (int64_t)in[LABELS][r];
        double sum = 0;
        for (int64_t v = 0; v < s->V; v++) {
            logits[v] = s->bias ? in[BIAS][v] : 0;
            for (int64_t d = 0; d < s->D; d++)
                logits[v] += in[HIDDEN][r * s->D + d] * in[W][v * s->D + d];
            logits[v] = s->cap > 0 ? s->cap * tanh(logits[v] / s->cap) : logits[v];
            sum += exp(logits[v]);
            taken[v] = false;
        }
        out[LABEL][r] = label >= 0 ? logits[label] - log(sum) : 0;
        for (int64_t i = 0; i < s->k; i++) {
            const int64_t v = take(logits, taken, s->V);
            out[IDS][r * s->k + i] = (double)v;
            out[TOP][r * s->k + i] = logits[v] - log(sum);
        }
    }
    free(logits);
    free(taken);
}

static check_case make_case(const char *name, const shape *s)
{
    return (check_case){.name = name,
                        .n_in = INPUTS,
                        .in = {{CHECK_ACTIVATION, 3, {s->B, s->L, s->D}, -2, 2},
                               {CHECK_FROZEN, 2, {s->V, s->D}, -2, 2},
                               {CHECK_FROZEN, 1, {s->V}, 0, 0},
                               {CHECK_IDS, 2, {s->B, s->L}, -1, (double)s->V}},
                        .n_out = OUTPUTS,
                        .record = record,
                        .reference = reference,
                        .argument = s,
                        .no_nan = true};
}

/* One word and all of them; rows of one chunk and of several; more words than a histogram has bins. */
static void test_values(void **state)
{
    (void)state;
    const shape shapes[] = {{2, 3, 4, 11, 1, true, 0},       {1, 1, 3, 7, 7, false, 0},
                            {1, 5, 4, 33, 32, true, 3},      {3, 181, 6, 21, 4, false, 0},
                            {1, 4, 5, 1101, 64, true, 0},    {1, 3, 4, 1030, 1024, false, 0},
                            {1, 2, 3, 5000, 100, false, 2.5}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const check_case c = make_case("head_score", &shapes[i]);
        check_run(&c);
    }
}

/* Outputs of a graph over given hidden states of width 1 and a head of V words. */
static void score(const float *w, int64_t V, int64_t k, float *label, int32_t *ids, float *top)
{
    cab_backend *backend;
    cab_params *params;
    cab_graph *g;
    cab_tensor *weight;
    check_ok(cab_backend_open(check_device(), &backend));
    check_ok(cab_params_new(backend, &params));
    check_ok(cab_graph_new(backend, &g));
    check_ok(cab_params_add(params, "w", CAB_F32, 2, (int64_t[]){V, 1}, CAB_DECAY, &weight));
    check_ok(cab_params_write(params, weight, w));
    cab_tensor *hidden = cab_graph_input(g, "h", CAB_F32, 3, (int64_t[]){1, 1, 1});
    cab_tensor *labels = cab_graph_input(g, "labels", CAB_I32, 2, (int64_t[]){1, 1});
    check_ok(cab_tensor_write(g, hidden, (float[]){1}));
    check_ok(cab_tensor_write(g, labels, (int32_t[]){0}));
    const cab_head_scores scores = cab_head_score(g, &(cab_head_side){hidden, weight, NULL, 0}, labels, k);
    cab_graph_keep(g, scores.label);
    cab_graph_keep(g, scores.ids);
    cab_graph_keep(g, scores.top);
    check_ok(cab_graph_plan(g, NULL));
    check_ok(cab_graph_run(g));
    check_ok(cab_tensor_read(g, scores.label, label));
    check_ok(cab_tensor_read(g, scores.ids, ids));
    check_ok(cab_tensor_read(g, scores.top, top));
    cab_graph_free(g);
    cab_params_free(params);
    cab_backend_close(backend);
}

/* Of equal words the smaller ids, also where equals stand on both sides of the last place; logits of +-1000. */
static void test_edges(void **state)
{
    (void)state;
    float label, top[8], equal[6000];
    int32_t ids[8];
    score((float[]){0, 2, 1, 2, 1, 1, -1000}, 7, 4, &label, ids, top);
    assert_memory_equal(ids, ((int32_t[]){1, 3, 2, 4}), 4 * sizeof *ids);
    assert_true(top[0] == top[1] && top[2] == top[3] && fabsf(top[0] - top[2] - 1) < 1e-6f);
    score((float[]){1000, -1000, 0}, 3, 3, &label, ids, top);
    assert_memory_equal(ids, ((int32_t[]){0, 2, 1}), 3 * sizeof *ids);
    assert_true(label == 0 && top[0] == 0 && top[1] == -1000 && top[2] == -2000);
    for (int i = 0; i < 6000; i++)
        equal[i] = i == 5000 ? 1.0f : 0.5f;
    score(equal, 6000, 8, &label, ids, top);
    assert_memory_equal(ids, ((int32_t[]){5000, 0, 1, 2, 3, 4, 5, 6}), 8 * sizeof *ids);
}

/* A label outside the vocabulary is an error at run time, too many words one when recorded. */
static void test_errors(void **state)
{
    (void)state;
    cab_backend *backend;
    cab_graph *g;
    for (int i = 0; i < 2; i++) {
        check_ok(cab_backend_open(check_device(), &backend));
        check_ok(cab_graph_new(backend, &g));
        cab_tensor *h = cab_graph_input(g, "h", CAB_F32, 3, (int64_t[]){1, 2, 4});
        cab_tensor *w = cab_graph_input(g, "w", CAB_F32, 2, (int64_t[]){5, 4});
        cab_tensor *labels = cab_graph_input(g, "labels", CAB_I32, 2, (int64_t[]){1, 2});
        check_ok(cab_tensor_write(g, labels, (int32_t[]){0, 5}));
        const cab_head_scores scores = cab_head_score(g, &(cab_head_side){h, w, NULL, 0}, labels, i ? 6 : 1);
        cab_graph_keep(g, scores.label);
        if (i == 0) {
            float out[2];
            check_ok(cab_graph_plan(g, NULL));
            cab_status status = cab_graph_run(g);
            if (status == CAB_OK) /* a GPU tells when something is read */
                status = cab_tensor_read(g, scores.label, out);
            assert_int_equal(status, CAB_EARG);
        } else {
            assert_null(scores.label);
            assert_int_equal(cab_graph_plan(g, NULL), CAB_EARG);
            assert_string_equal(cab_error_text(), "head_score: the 6 likeliest of 5 words, expected 1 to 1024 of them");
        }
        cab_graph_free(g);
        cab_backend_close(backend);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_edges),
                                       cmocka_unit_test(test_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
