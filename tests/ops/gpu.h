/* gpu.h - an op on the GPU against the same op on the CPU, at sizes that reach the kernels' tiles and fast paths.
 *
 * check.h holds every kernel against an fp64 reference and finite differences, which only small cases can afford. Here the
 * same case table entry (its `reference` may be NULL) is recorded on the CPU in fp32, and on the GPU in F32 and BF16, dense
 * once, and as columns of wider tensors of several alignments, twice in the list; outputs and gradients are compared as
 *
 *   ||gpu - cpu|| / ||cpu|| < tolerance     over each whole tensor.
 *
 * Inputs are bf16 numbers, so one CPU run in fp32 is the reference of both dtypes. Every GPU run is made three times, as a
 * list, captured and replayed: all three must give the same bits. check_slow(): once, recorded once, of the alignments the
 * first two. Skips unless CAB_TEST_DEVICE names a GPU. */
#ifndef GPU_H
#define GPU_H

#include "ops/check.h"

enum { GPU_RESULTS = CHECK_MAX_OUT + CHECK_MAX_IN };

/* Outputs, then the gradients of inputs; NULL where there is none. */
typedef struct gpu_results {
    double *values[GPU_RESULTS];
    int64_t count[GPU_RESULTS];
} gpu_results;

static inline void gpu_release(gpu_results *r)
{
    for (int i = 0; i < GPU_RESULTS; i++)
        free(r->values[i]);
}

/* Puts back what a run changes: states, and the gradients of parameters, which accumulate. */
static inline void gpu_rewind(const check_case *c, check_graph *k, const check_reference *r)
{
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i].kind == CHECK_STATE)
            check_write(k->graph, k->whole[i], r->in[i], c->in[i].shape[c->in[i].n_dim - 1], 0);
    check_ok(cab_params_zero_grad(k->params));
}

static inline void gpu_collect(const check_case *c, const check_variant *v, check_graph *k, gpu_results *got)
{
    for (int o = 0; o < c->n_out; o++) {
        got->count[o] = cab_elements(k->out[0][o]);
        got->values[o] = check_read(k->graph, k->out[0][o], cab_columns(k->out[0][o]), 0);
    }
    for (int i = 0; i < c->n_in; i++) {
        if (!check_differentiable(c, i))
            continue;
        got->count[CHECK_MAX_OUT + i] = check_count(c->in[i].n_dim, c->in[i].shape);
        got->values[CHECK_MAX_OUT + i] = check_gradient(c, v, k, i);
    }
}

static inline void gpu_same_bits(const check_case *c, const gpu_results *a, const gpu_results *b, int run)
{
    for (int i = 0; i < GPU_RESULTS; i++)
        if (a->values[i] && memcmp(a->values[i], b->values[i], (size_t)a->count[i] * sizeof *a->values[i]) != 0)
            fail_msg("%s: %s %d has other bits in run %d", c->name, i < CHECK_MAX_OUT ? "output" : "gradient of input",
                     i < CHECK_MAX_OUT ? i : i - CHECK_MAX_OUT, run);
}

/* One variant, run `runs` times. r->in holds the inputs; seeds are drawn when first seen. */
static inline void gpu_run(const check_case *c, const check_variant *v, check_reference *r, int runs,
                           gpu_results *first)
{
    check_graph k;
    check_open(c, v, r->in, &k);
    for (int o = 0; o < c->n_seeded; o++)
        if (!r->seed[o] && k.out[0][o]) {
            r->out_count[o] = cab_elements(k.out[0][o]);
            r->seed[o] = check_draw(c->name, 100 + o, r->out_count[o], -1, 1, false);
        }
    if (c->n_seeded > 0 && k.out[0][0])
        check_backward(c, v, r, &k);
    check_ok(cab_graph_plan(k.graph, NULL));
    for (int run = 1; run <= runs; run++) {
        gpu_results got = {0};
        gpu_rewind(c, &k, r);
        check_ok(cab_graph_run(k.graph));
        gpu_collect(c, v, &k, run == 1 ? first : &got);
        if (run > 1)
            gpu_same_bits(c, first, &got, run);
        gpu_release(&got);
    }
    check_close(&k);
}

/* Prints the largest distance, so that tolerances can be seen to be tight. */
static inline void gpu_against(const check_case *c, const check_variant *v, const gpu_results *got,
                               const gpu_results *expected, double tolerance)
{
    double worst = 0;
    for (int i = 0; i < GPU_RESULTS; i++) {
        if (!expected->values[i])
            continue;
        const bool output = i < CHECK_MAX_OUT;
        double distance = check_distance(got->values[i], expected->values[i], expected->count[i]);
        worst = distance > worst ? distance : worst;
        check_compare(c, v, output ? "output" : "gradient of input", output ? i : i - CHECK_MAX_OUT, got->values[i],
                      expected->values[i], expected->count[i], tolerance);
    }
    print_message("%s (%s%s%s, %d beside): %.1e of %.0e\n", c->name, cab_dtype_name(v->dtype), v->view ? " view" : "",
                  v->twice ? " twice" : "", v->beside, worst, tolerance);
}

/* Compares the case on the device of CAB_TEST_DEVICE with the CPU in fp32. `reference`, `forward`, `gradient` ... of the
 * case are not read. */
static inline void gpu_compare(const check_case *c, double tolerance_f32, double tolerance_bf16)
{
    static const int beside[] = {0, 0, 8, 4}; /* dense; views that align nothing, 16 bytes of bf16, 8 bytes */
    check_reference r = {0};
    gpu_results expected = {0};
    if (strcmp(check_device(), "cpu") == 0) {
        print_message("%s: CAB_TEST_DEVICE names no GPU\n", c->name);
        skip();
    }
    for (int i = 0; i < c->n_in; i++)
        r.in[i] = check_values(c, i);
    gpu_run(c, &(check_variant){.dtype = CAB_F32, .isa = "", .device = "cpu"}, &r, 1, &expected);
    for (int low = c->bf16_only ? 1 : 0; low < (c->f32_only ? 1 : 2); low++)
        for (size_t i = 0; i < (check_slow() ? 2 : sizeof beside / sizeof *beside); i++) {
            const bool hard = i > 0;
            const check_variant v = {.dtype = low ? CAB_BF16 : CAB_F32,
                                     .isa = "",
                                     .view = hard,
                                     .twice = hard && !check_slow(),
                                     .beside = beside[i]};
            gpu_results got = {0};
            gpu_run(c, &v, &r, check_slow() ? 1 : 3, &got);
            gpu_against(c, &v, &got, &expected, low ? tolerance_bf16 : tolerance_f32);
            gpu_release(&got);
        }
    gpu_release(&expected);
    check_release(&r);
}

#endif
