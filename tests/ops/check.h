/* check.h - one case table drives every test of an op: values, gradients, dtypes, instruction sets, views, eager mode.
 *
 * A case names the op's inputs (shapes, ranges), a function that records it and a naive fp64 implementation.
 * check_run() draws inputs and a random R per output, and compares, in every variant below,
 *
 *   the outputs                with the reference's, and
 *   the gradients of <R, y>    with central differences of the reference, in fp64,
 *
 * each as ||difference|| / ||reference|| < tolerance over a whole tensor. All values are bf16 numbers, so that the same
 * reference serves the fp32 and the bf16 run. Variants: F32 and BF16 activations; each instruction set the processor
 * has, or the GPU where CAB_TEST_DEVICE=cuda is in the environment; dense inputs and inputs that are columns of a wider tensor; the op recorded once and twice on the same inputs
 * (gradients accumulate); as a list and in eager mode (same bits). NaN in an input must come out as NaN. */
#ifndef CHECK_H
#define CHECK_H

#include "base/memory.h"
#include "base/random.h"
#include "ops/backends.h"
#include "ops/ops.h"

/* cmocka wants the four before it. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHECK_MAX_IN = 16, CHECK_MAX_OUT = 6 };

typedef enum check_kind {
    CHECK_ACTIVATION, /* in the variant's dtype, gradient checked, also tried as a view */
    CHECK_DENSE,      /* the same, never a view */
    CHECK_CONSTANT,   /* in the variant's dtype, no gradient asked, dense */
    CHECK_PARAMETER,  /* trainable F32 parameter, gradient checked */
    CHECK_TIED,       /* the same, each row made its mean, with tensor.tied */
    CHECK_FROZEN,     /* F32 parameter, not trainable */
    CHECK_F32,        /* F32 input whatever the variant, no gradient: inv_freq, lr */
    CHECK_IDS,        /* I32 input, uniform integers low <= id < high */
    CHECK_STARTS, /* I32 input (B, L), first tokens of random documents of at most `high` tokens; check_documents() */
    CHECK_STATE   /* F32 state, filled like an input before the run; no gradient */
} check_kind;

typedef struct check_input {
    check_kind kind;
    int n_dim;
    int64_t shape[CAB_MAX_DIMS];
    double low, high; /* values are uniform in between; both 0: -1 .. 1 */
} check_input;

typedef struct check_case {
    const char *name;
    int n_in;
    check_input in[CHECK_MAX_IN];
    int n_out;    /* outputs compared */
    int n_seeded; /* the first of them, which R multiplies and gradients flow from; 0: no backward is checked */
    /* Records the op on `in` and fills out[0 .. n_out). */
    void (*record)(cab_graph *g, cab_tensor **in, cab_tensor **out, const void *argument);
    /* The same in fp64 on dense arrays. */
    void (*reference)(const struct check_case *c, double *const *in, double **out);
    const void *argument;             /* for both */
    double forward, gradient;         /* tolerances of F32; 0: 1e-5 and 1e-4 */
    double low_forward, low_gradient; /* of BF16; 0: 1e-2 and 1.5e-2 */
    bool f32_only;
    bool bf16_only; /* on a GPU: what BF16 alone has kernels for */
    bool no_nan;    /* the op does not pass NaN on (integer outputs, masks): skip that variant */
    bool apart;     /* values that come with gradients are computed otherwise: eager mode may give other bits */
} check_case;

typedef struct check_variant {
    cab_dtype dtype;
    const char *isa; /* "": the processor's best */
    bool view, twice, eager;
    int beside;         /* columns on either side of a view; 0: CHECK_LEFT and CHECK_RIGHT, which align nothing */
    int threads;        /* 0: the backend's own choice */
    const char *device; /* NULL: check_device() */
} check_variant;

static inline int64_t check_count(int n_dim, const int64_t *shape)
{
    int64_t n = 1;
    for (int i = 0; i < n_dim; i++)
        n *= shape[i];
    return n;
}

/* Whether every instruction is watched, or emulated (CAB_TEST_SLOW=1 in the environment): what is only repeated is left out. */
static inline bool check_slow(void)
{
    const char *slow = getenv("CAB_TEST_SLOW");
    return slow != NULL && strcmp(slow, "1") == 0;
}

static inline void check_ok(cab_status status)
{
    if (status != CAB_OK)
        fail_msg("%s: %s", cab_status_name(status), cab_error_text());
}

static inline double check_round(double value)
{
    return (double)cab_bf16_to_f32(cab_bf16_from_f32((float)value));
}

static inline double *check_doubles(int64_t n)
{
    double *values = calloc((size_t)(n > 0 ? n : 1), sizeof *values);
    assert_non_null(values);
    return values;
}

/* Deterministic bf16 numbers for input `which` of the case (or output which - 100, for R). */
static inline double *check_draw(const char *name, int which, int64_t n, double low, double high, bool integers)
{
    cab_random random = {.seed = 7, .stream = CAB_STREAM_TEST, .sub = (uint32_t)which};
    for (const char *c = name; *c; c++)
        random.seed = random.seed * 31 + (unsigned char)*c;
    double *values = check_doubles(n);
    for (int64_t i = 0; i < n; i++) {
        double u = (double)cab_random_uniform(&random);
        values[i] = integers ? floor(low + u * (high - low)) : check_round(low + u * (high - low));
    }
    return values;
}

/* The first token of the document of every token. A quarter of the documents have one token, a quarter end where a chunk of
 * 64 tokens ends, the others have a random length of at most `longest`. */
static inline double *check_documents(const char *name, int which, int64_t B, int64_t L, double longest)
{
    double *kinds = check_draw(name, which, B * L, 0, 4, true),
           *lengths = check_draw(name, which, B * L, 1, longest + 1, true);
    double *starts = check_doubles(B * L);
    for (int64_t b = 0; b < B; b++)
        for (int64_t first = 0, end; first < L; first = end) {
            const double kind = kinds[b * L + first];
            end = kind < 1 ? first + 1 : kind < 2 ? (first / 64 + 1) * 64 : first + (int64_t)lengths[b * L + first];
            for (int64_t t = first; t < end && t < L; t++)
                starts[b * L + t] = (double)first;
        }
    free(kinds);
    free(lengths);
    return starts;
}

/* ||a - b|| / ||b||, with an absolute floor so that an all-zero reference demands all zeros. */
static inline double check_distance(const double *a, const double *b, int64_t n)
{
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    return sqrt(difference) / (sqrt(norm) + 1e-6 * sqrt((double)n));
}

/* Values of input i. */
static inline double *check_values(const check_case *c, int i)
{
    const check_input *in = &c->in[i];
    const bool unit = in->low == 0 && in->high == 0;
    if (in->kind == CHECK_STARTS)
        return check_documents(c->name, i, in->shape[0], in->shape[1], in->high);
    return check_draw(c->name, i, check_count(in->n_dim, in->shape), unit ? -1 : in->low, unit ? 1 : in->high,
                      in->kind == CHECK_IDS);
}

/* ---- one prepared case: inputs, R, reference values and reference gradients ------------------------------------ */

typedef struct check_reference {
    double *in[CHECK_MAX_IN], *gradient[CHECK_MAX_IN];
    double *out[CHECK_MAX_OUT], *seed[CHECK_MAX_OUT];
    double *listed[CHECK_MAX_OUT]; /* what the list gave last: eager mode must give the same bits */
    int64_t out_count[CHECK_MAX_OUT];
} check_reference;

static inline bool check_differentiable(const check_case *c, int i)
{
    check_kind kind = c->in[i].kind;
    return c->n_seeded > 0 &&
           (kind == CHECK_ACTIVATION || kind == CHECK_DENSE || kind == CHECK_PARAMETER || kind == CHECK_TIED);
}

static inline double check_objective(const check_case *c, const check_reference *r, double **out)
{
    c->reference(c, r->in, out);
    double sum = 0;
    for (int k = 0; k < c->n_seeded; k++)
        for (int64_t i = 0; i < r->out_count[k]; i++)
            sum += r->seed[k][i] * out[k][i];
    return sum;
}

static inline void check_differences(const check_case *c, check_reference *r, double **out)
{
    const double step = 1e-5;
    for (int i = 0; i < c->n_in; i++) {
        if (!check_differentiable(c, i))
            continue;
        int64_t n = check_count(c->in[i].n_dim, c->in[i].shape);
        r->gradient[i] = check_doubles(n);
        for (int64_t j = 0; j < n; j++) {
            double value = r->in[i][j];
            r->in[i][j] = value + step;
            double above = check_objective(c, r, out);
            r->in[i][j] = value - step;
            double below = check_objective(c, r, out);
            r->in[i][j] = value;
            r->gradient[i][j] = (above - below) / (2 * step);
        }
    }
}

/* out_shape gives each output's number of elements, learnt from the recorded graph. */
static inline void check_prepare(const check_case *c, const int64_t *out_count, check_reference *r)
{
    double *work[CHECK_MAX_OUT] = {0};
    for (int k = 0; k < c->n_out; k++) {
        r->out_count[k] = out_count[k];
        r->out[k] = check_doubles(out_count[k]);
        work[k] = check_doubles(out_count[k]);
        r->seed[k] = check_draw(c->name, 100 + k, out_count[k], -1, 1, false);
    }
    c->reference(c, r->in, r->out);
    check_differences(c, r, work);
    for (int k = 0; k < c->n_out; k++)
        free(work[k]);
}

static inline void check_release(check_reference *r)
{
    for (int i = 0; i < CHECK_MAX_IN; i++) {
        free(r->in[i]);
        free(r->gradient[i]);
    }
    for (int k = 0; k < CHECK_MAX_OUT; k++) {
        free(r->out[k]);
        free(r->seed[k]);
        free(r->listed[k]);
    }
}

/* ---- one run of the op ----------------------------------------------------------------------------------------- */

typedef struct check_graph {
    cab_backend *backend;
    cab_params *params;
    cab_graph *graph;
    cab_tensor *whole[CHECK_MAX_IN]; /* what was made: the wider tensor of a view */
    cab_tensor *in[CHECK_MAX_IN];    /* what the op reads */
    cab_tensor *out[2][CHECK_MAX_OUT];
    cab_tensor *seed[CHECK_MAX_OUT];
} check_graph;

enum { CHECK_LEFT = 3, CHECK_RIGHT = 2 }; /* columns beside a view */

static inline int64_t check_left(const check_variant *v)
{
    return v->beside ? v->beside : CHECK_LEFT;
}

static inline int64_t check_right(const check_variant *v)
{
    return v->beside ? v->beside : CHECK_RIGHT;
}

/* Writes n doubles into a tensor, at `left` of its columns when it is wider than the data's rows of `columns`. */
static inline void check_write(cab_graph *g, cab_tensor *t, const double *values, int64_t columns, int64_t left)
{
    int64_t rows = cab_rows(t);
    size_t size = cab_dtype_size(t->dtype);
    char *data = calloc(cab_tensor_bytes(t), 1);
    assert_non_null(data);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < columns; i++) {
            float value = (float)values[r * columns + i];
            int32_t integer = (int32_t)value;
            cab_bf16 low = cab_bf16_from_f32(value);
            const void *from = t->dtype == CAB_F32   ? (const void *)&value
                               : t->dtype == CAB_I32 ? (const void *)&integer
                                                     : &low;
            memcpy(data + (size_t)(r * t->ld + left + i) * size, from, size);
        }
    check_ok(cab_tensor_write(g, t, data));
    free(data);
}

/* Columns left .. left + columns of a tensor as doubles. */
static inline double *check_read(cab_graph *g, const cab_tensor *t, int64_t columns, int64_t left)
{
    int64_t rows = cab_rows(t);
    size_t size = cab_dtype_size(t->dtype);
    char *data = calloc(cab_tensor_bytes(t), 1);
    assert_non_null(data);
    check_ok(cab_tensor_read(g, t, data));
    double *values = check_doubles(rows * columns);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < columns; i++) {
            float value;
            cab_convert(&value, CAB_F32, data + (size_t)(r * t->ld + left + i) * size, t->dtype, 1);
            values[r * columns + i] = (double)value;
        }
    free(data);
    return values;
}

static inline double check_mean(const double *values, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += values[i];
    return sum / (double)n;
}

static inline void check_make_parameter(const check_case *c, check_graph *k, int i, const double *values)
{
    const check_input *in = &c->in[i];
    char name[32];
    snprintf(name, sizeof name, "in%d", i);
    check_ok(cab_params_add(k->params, name, CAB_F32, in->n_dim, in->shape, CAB_DECAY, &k->in[i]));
    if (in->kind != CHECK_FROZEN)
        check_ok(cab_params_set_trainable(k->params, name, true, NULL));
    int64_t n = check_count(in->n_dim, in->shape);
    float *f = calloc((size_t)n, sizeof *f);
    assert_non_null(f);
    const int64_t columns = in->shape[in->n_dim - 1];
    k->in[i]->tied = in->kind == CHECK_TIED;
    for (int64_t j = 0; j < n; j++)
        f[j] = (float)(k->in[i]->tied ? check_mean(values + j / columns * columns, columns) : values[j]);
    check_ok(cab_params_write(k->params, k->in[i], f));
    free(f);
}

static inline void check_make_input(const check_case *c, const check_variant *v, check_graph *k, int i,
                                    const double *values)
{
    const check_input *in = &c->in[i];
    if (in->kind == CHECK_PARAMETER || in->kind == CHECK_TIED || in->kind == CHECK_FROZEN) {
        check_make_parameter(c, k, i, values);
        return;
    }
    bool view = v->view && in->kind == CHECK_ACTIVATION;
    cab_dtype dtype = in->kind == CHECK_IDS || in->kind == CHECK_STARTS  ? CAB_I32
                      : in->kind == CHECK_F32 || in->kind == CHECK_STATE ? CAB_F32
                                                                         : v->dtype;
    int64_t shape[CAB_MAX_DIMS];
    memcpy(shape, in->shape, sizeof shape);
    int64_t columns = shape[in->n_dim - 1];
    if (view)
        shape[in->n_dim - 1] += check_left(v) + check_right(v);
    char name[32];
    snprintf(name, sizeof name, "in%d", i);
    k->whole[i] = in->kind == CHECK_STATE ? cab_graph_state(k->graph, name, dtype, in->n_dim, shape)
                                          : cab_graph_input(k->graph, name, dtype, in->n_dim, shape);
    assert_non_null(k->whole[i]);
    check_write(k->graph, k->whole[i], values, columns, view ? check_left(v) : 0);
    if (check_differentiable(c, i))
        cab_graph_want_gradient(k->graph, k->whole[i]);
    k->in[i] = k->whole[i];
    if (view) {
        cab_tensor *parts[3] = {0};
        cab_split(k->graph, k->whole[i], 3, (int64_t[]){check_left(v), columns, check_right(v)}, parts);
        k->in[i] = parts[1];
    }
}

/* Where the cases run: CAB_TEST_DEVICE, else the CPU. */
static inline const char *check_device(void)
{
    const char *device = getenv("CAB_TEST_DEVICE");
    return device && *device ? device : "cpu";
}

/* Opens everything, makes the inputs and records the forward pass, once or twice. */
static inline void check_open(const check_case *c, const check_variant *v, double *const *values, check_graph *k)
{
    *k = (check_graph){0};
    if (*v->isa)
        setenv("CAB_CPU_ISA", v->isa, 1);
    setenv("CAB_EAGER", v->eager ? "1" : "0", 1);
    check_ok(cab_backend_open(v->device ? v->device : check_device(), &k->backend));
    if (v->threads && k->backend->host)
        k->backend->threads = v->threads;
    check_ok(cab_params_new(k->backend, &k->params));
    check_ok(cab_graph_new(k->backend, &k->graph));
    for (int i = 0; i < c->n_in; i++)
        check_make_input(c, v, k, i, values[i]);
    for (int t = 0; t < (v->twice ? 2 : 1); t++) {
        c->record(k->graph, k->in, k->out[t], c->argument);
        for (int o = 0; o < c->n_out; o++)
            cab_graph_keep(k->graph, k->out[t][o]);
    }
}

static inline void check_close(check_graph *k)
{
    cab_graph_free(k->graph);
    cab_params_free(k->params);
    cab_backend_close(k->backend);
    unsetenv("CAB_CPU_ISA");
    unsetenv("CAB_EAGER");
}

/* Seeds: R, halved when the op stands twice in the list, so that the gradients come out the same. */
static inline void check_backward(const check_case *c, const check_variant *v, const check_reference *r, check_graph *k)
{
    cab_tensor *outputs[2 * CHECK_MAX_OUT], *seeds[2 * CHECK_MAX_OUT];
    int n = 0;
    for (int o = 0; o < c->n_seeded; o++) {
        cab_tensor *y = k->out[0][o];
        assert_non_null(y);
        k->seed[o] = cab_graph_input(k->graph, "seed", y->dtype, y->n_dim, y->shape);
        assert_non_null(k->seed[o]);
        double *half = check_doubles(r->out_count[o]);
        for (int64_t i = 0; i < r->out_count[o]; i++)
            half[i] = r->seed[o][i] * (v->twice ? 0.5 : 1.0);
        check_write(k->graph, k->seed[o], half, cab_columns(y), 0);
        free(half);
        for (int t = 0; t < (v->twice ? 2 : 1); t++) {
            outputs[n] = k->out[t][o];
            seeds[n++] = k->seed[o];
        }
    }
    cab_graph_backward(k->graph, n, outputs, seeds);
}

static inline void check_compare(const check_case *c, const check_variant *v, const char *what, int index,
                                 const double *got, const double *expected, int64_t n, double tolerance)
{
    double distance = check_distance(got, expected, n);
    if (distance < tolerance)
        return;
    int64_t worst = 0;
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(got[i] - expected[i]) <= fabs(got[worst] - expected[worst])))
            worst = i;
    fail_msg("%s (%s %s%s%s%s): %s %d differs by %g of its norm, more than %g; at %lld found %g, expected %g", c->name,
             cab_dtype_name(v->dtype), v->isa, v->view ? " view" : "", v->twice ? " twice" : "",
             v->eager ? " eager" : "", what, index, distance, tolerance, (long long)worst, got[worst], expected[worst]);
}

/* The gradient that reached input i. */
static inline double *check_gradient(const check_case *c, const check_variant *v, check_graph *k, int i)
{
    const check_input *in = &c->in[i];
    int64_t columns = in->shape[in->n_dim - 1], n = check_count(in->n_dim, in->shape);
    if (in->kind != CHECK_PARAMETER && in->kind != CHECK_TIED) {
        cab_tensor *gradient = cab_graph_gradient(k->graph, k->whole[i]);
        if (!gradient)
            fail_msg("%s: input %d got no gradient", c->name, i);
        return check_read(k->graph, gradient, columns, v->view && in->kind == CHECK_ACTIVATION ? check_left(v) : 0);
    }
    float *f = calloc((size_t)n, sizeof *f);
    assert_non_null(f);
    check_ok(cab_params_read_grad(k->params, k->in[i], f));
    double *values = check_doubles(n);
    for (int64_t j = 0; j < n; j++)
        values[j] = (double)f[j];
    free(f);
    return values;
}

static inline double check_or(double value, double fallback)
{
    return value > 0 ? value : fallback;
}

static inline void check_bits(const check_case *c, const check_variant *v, check_reference *r, int o, double *got)
{
    if (v->eager && !c->apart && memcmp(got, r->listed[o], (size_t)r->out_count[o] * sizeof *got) != 0)
        fail_msg("%s (%s %s): eager mode gives other bits", c->name, cab_dtype_name(v->dtype), v->isa);
    free(r->listed[o]);
    r->listed[o] = got;
}

static inline void check_one(const check_case *c, const check_variant *v, check_reference *r)
{
    check_graph k;
    bool low = v->dtype == CAB_BF16;
    check_open(c, v, r->in, &k);
    if (c->n_seeded > 0 && !v->eager)
        check_backward(c, v, r, &k);
    check_ok(cab_graph_plan(k.graph, NULL));
    check_ok(cab_graph_run(k.graph));
    for (int o = 0; o < c->n_out; o++) {
        double *got = check_read(k.graph, k.out[0][o], cab_columns(k.out[0][o]), 0);
        check_compare(c, v, "output", o, got, r->out[o], r->out_count[o],
                      low ? check_or(c->low_forward, 1e-2) : check_or(c->forward, 1e-5));
        check_bits(c, v, r, o, got);
    }
    for (int i = 0; i < c->n_in && !v->eager; i++) {
        if (!check_differentiable(c, i))
            continue;
        double *got = check_gradient(c, v, &k, i);
        check_compare(c, v, "gradient of input", i, got, r->gradient[i], check_count(c->in[i].n_dim, c->in[i].shape),
                      low ? check_or(c->low_gradient, 1.5e-2) : check_or(c->gradient, 1e-4));
        free(got);
    }
    check_close(&k);
}

/* A NaN in each activation input must reach some output. */
static inline void check_nan(const check_case *c, const check_variant *v, const check_reference *r)
{
    for (int i = 0; i < c->n_in; i++) {
        if (c->in[i].kind != CHECK_ACTIVATION && c->in[i].kind != CHECK_DENSE)
            continue;
        double saved = r->in[i][0];
        r->in[i][0] = (double)NAN;
        check_graph k;
        check_open(c, v, r->in, &k);
        check_ok(cab_graph_plan(k.graph, NULL));
        check_ok(cab_graph_run(k.graph));
        bool found = false;
        for (int o = 0; o < c->n_out; o++) {
            double *got = check_read(k.graph, k.out[0][o], cab_columns(k.out[0][o]), 0);
            for (int64_t j = 0; j < r->out_count[o]; j++)
                found = found || isnan(got[j]);
            free(got);
        }
        check_close(&k);
        r->in[i][0] = saved;
        if (!found)
            fail_msg("%s (%s %s): NaN in input %d does not show in any output", c->name, cab_dtype_name(v->dtype),
                     v->isa, i);
    }
}

/* Another device has no instruction sets: its variants run once. */
static inline bool check_have(const char *isa)
{
    if (strcmp(check_device(), "cpu") != 0)
        return strcmp(isa, "v1") == 0;
    cab_backend *backend;
    setenv("CAB_CPU_ISA", isa, 1);
    bool have = cab_backend_open("cpu", &backend) == CAB_OK;
    if (have)
        cab_backend_close(backend);
    unsetenv("CAB_CPU_ISA");
    return have;
}

/* The whole matrix of variants for one case. */
static inline void check_run(const check_case *c)
{
    static const char *const isas[] = {"v1", "v3", "v4"};
    check_reference r = {0};
    check_graph k;
    int64_t counts[CHECK_MAX_OUT] = {0};
    for (int i = 0; i < c->n_in; i++)
        r.in[i] = check_values(c, i);
    check_open(c, &(check_variant){.dtype = CAB_F32, .isa = "v1"}, r.in, &k);
    for (int o = 0; o < c->n_out; o++) {
        if (!k.out[0][o])
            check_ok(cab_graph_plan(k.graph, NULL));
        assert_non_null(k.out[0][o]);
        counts[o] = cab_elements(k.out[0][o]);
    }
    check_close(&k);
    check_prepare(c, counts, &r);
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        if (!check_have(isas[i])) {
            if (strcmp(check_device(), "cpu") == 0)
                print_message("%s: not run at %s, which this processor lacks\n", c->name, isas[i]);
            continue;
        }
        for (int low = 0; low < (c->f32_only ? 1 : 2); low++) {
            check_variant v = {.dtype = low ? CAB_BF16 : CAB_F32, .isa = isas[i]};
            check_one(c, &v, &r);
            if (!c->no_nan && !check_slow())
                check_nan(c, &v, &r);
            v.eager = true;
            if (!check_slow())
                check_one(c, &v, &r); /* after the same variant as a list */
            v = (check_variant){.dtype = v.dtype, .isa = isas[i], .view = true, .twice = true};
            check_one(c, &v, &r);
            v = (check_variant){.dtype = v.dtype, .isa = isas[i], .view = true, .threads = 1};
            if (!check_slow())
                check_one(c, &v, &r);
        }
    }
    check_release(&r);
}

/* Outputs and gradients of a case too large for differences must have the same bits with one thread and with three. */
static inline void check_threads(const check_case *c)
{
    check_reference r = {0};
    double *first[CHECK_MAX_OUT + CHECK_MAX_IN] = {0};
    for (int i = 0; i < c->n_in; i++)
        r.in[i] = check_values(c, i);
    for (int threads = 1; threads <= 3; threads += 2) {
        check_variant v = {.dtype = CAB_BF16, .isa = check_have("v4") ? "v4" : "v1", .threads = threads};
        check_graph k;
        check_open(c, &v, r.in, &k);
        for (int o = 0; o < c->n_seeded && threads == 1; o++) {
            r.out_count[o] = cab_elements(k.out[0][o]);
            r.seed[o] = check_draw(c->name, 100 + o, r.out_count[o], -1, 1, false);
        }
        check_backward(c, &v, &r, &k);
        check_ok(cab_graph_run(k.graph));
        for (int i = 0; i < c->n_out + c->n_in; i++) {
            bool output = i < c->n_out;
            if (!output && !check_differentiable(c, i - c->n_out))
                continue;
            int64_t n =
                output ? cab_elements(k.out[0][i]) : check_count(c->in[i - c->n_out].n_dim, c->in[i - c->n_out].shape);
            double *got = output ? check_read(k.graph, k.out[0][i], cab_columns(k.out[0][i]), 0)
                                 : check_gradient(c, &v, &k, i - c->n_out);
            if (first[i] && memcmp(first[i], got, (size_t)n * sizeof *got) != 0)
                fail_msg("%s: %s %d has other bits with three threads", c->name,
                         output ? "output" : "gradient of input", output ? i : i - c->n_out);
            free(first[i]);
            first[i] = got;
        }
        check_close(&k);
    }
    for (int i = 0; i < c->n_out + c->n_in; i++)
        free(first[i]);
    check_release(&r);
}

#endif
