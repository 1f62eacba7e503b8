/* A bridge with its loss: against the formula in fp64 at small sizes, and at those of the GPU's kernel against the processor. */
#include "ops/gpu.h"

typedef struct shape {
    int64_t B, L, in, hidden, out;
    cab_feature_map map;
    cab_activation_kind activation;
    const cab_row_map *rows; /* NULL: the target's rows as they are */
    bool relative;
} shape;

static void record(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument)
{
    const shape *s = argument;
    const cab_bridge_layers layers = {.w1 = in[1], .b1 = in[2], .w2 = in[3], .b2 = in[4], .activation = s->activation};
    out[0] = cab_bridge_loss(g, in[0], &layers, in[5], &(cab_alignment){s->map, s->rows, s->relative});
}

static check_case make_case(const shape *s)
{
    return (check_case){.name = "bridge_loss",
                        .n_in = 6,
                        .in = {{CHECK_ACTIVATION, 3, {s->B, s->L, s->in}, 0, 0},
                               {CHECK_PARAMETER, 2, {s->hidden, s->in}, -0.5, 0.5},
                               {CHECK_PARAMETER, 1, {s->hidden}, 0, 0},
                               {CHECK_PARAMETER, 2, {s->out, s->hidden}, -0.3, 0.3},
                               {CHECK_PARAMETER, 1, {s->out}, 0, 0},
                               {CHECK_CONSTANT, 3, {s->B, s->L + (s->rows ? s->rows->skip : 0), s->out}, -2, 2}},
                        .n_out = 1,
                        .n_seeded = 1,
                        .record = record,
                        .argument = s};
}

/* w x + b of one row, through tanh where asked. */
static void layer(double *y, const double *x, const double *w, const double *b, int64_t in, int64_t out, bool activate)
{
    for (int64_t o = 0; o < out; o++) {
        double sum = b[o];
        for (int64_t i = 0; i < in; i++)
            sum += w[o * in + i] * x[i];
        y[o] = activate ? tanh(sum) : sum;
    }
}

static void reference(const check_case *c, double *const *in, double **out)
{
    const shape *s = c->argument;
    double *hidden = check_doubles(s->hidden), *pred = check_doubles(s->out), sum = 0;
    for (int64_t row = 0; row < s->B * s->L; row++) {
        layer(hidden, in[0] + row * s->in, in[1], in[2], s->in, s->hidden, true);
        layer(pred, hidden, in[3], in[4], s->hidden, s->out, false);
        for (int64_t o = 0; o < s->out; o++)
            sum += (pred[o] - in[5][row * s->out + o]) * (pred[o] - in[5][row * s->out + o]);
    }
    out[0][0] = sum / (double)(s->B * s->L * s->out);
    free(hidden);
    free(pred);
}

static void test_formula(void **state)
{
    (void)state;
    const shape shapes[] = {{2, 3, 4, 5, 6, CAB_MAP_NONE, CAB_TANH, NULL, false},
                            {1, 1, 1, 2, 1, CAB_MAP_NONE, CAB_TANH, NULL, false}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_case c = make_case(&shapes[i]);
        c.reference = reference;
        check_run(&c);
    }
}

/* The kernel's sizes; tiles that end within a sequence and past the last token; a size that is left to other kernels. */
static void test_gpu(void **state)
{
    (void)state;
    const cab_row_map rows = {.class_at = 98, .skip = 1};
    /* Sequences with more tiles than an emulated GPU has blocks, or an H200. */
    const int64_t many = check_slow() ? 45 : 132;
    const shape shapes[] = {
        {2, 197, 16, 128, 192, CAB_MAP_NONE, CAB_SILU, &(cab_row_map){.class_at = 98}, false},
        {3, 100, 16, 128, 128, CAB_MAP_SOFTMAX_FEATURES, CAB_GELU_TANH, &rows, false},
        {3, 197, 16, 128, 192, CAB_MAP_SOFTMAX_TOKENS, CAB_RELU, &rows, false},
        {1, 61, 16, 128, 64, CAB_MAP_RELU, CAB_GELU_ERF, NULL, false},
        {5, 13, 16, 128, 192, CAB_MAP_EXP, CAB_TANH, NULL, false},
        {1, 1, 16, 128, 64, CAB_MAP_NONE, CAB_SILU, NULL, false},
        {many, 197, 16, 128, 192, CAB_MAP_SOFTMAX_TOKENS, CAB_SILU, &rows, false}, /* tiles after tiles */
        {2, 70, 16, 128, 384, CAB_MAP_SOFTMAX_TOKENS, CAB_SILU, NULL, false},      /* launch after launch */
        {1, 33, 16, 128, 256, CAB_MAP_SOFTMAX_FEATURES, CAB_SILU, NULL, false},
        {2, 70, 16, 64, 192, CAB_MAP_NONE, CAB_SILU, NULL, false}};
    for (size_t i = 0; i < 2 * sizeof shapes / sizeof *shapes; i++) {
        shape s = shapes[i / 2];
        s.relative = i % 2 > 0;
        if (check_slow() && s.relative != (i / 2 % 2 > 0)) /* an emulated GPU takes one of both */
            continue;
        const check_case c = make_case(&s);
        gpu_compare(&c, 2e-5, 1.5e-2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_formula), cmocka_unit_test(test_gpu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
