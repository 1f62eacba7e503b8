/* golden.h - reading reference tensors, and comparing ours with them.
 *
 * The distance of two tensors is ||got - expected|| / ||expected||, over the whole tensor. A gradient that is small beside
 * its group's largest is a sum that cancels, and keeps the rounding of its terms: the denominator is at least the
 * precision's `floor` of that largest norm. */
#ifndef GOLDEN_H
#define GOLDEN_H

#include "base/memory.h"
#include "io/safetensors.h"
#include "models/model.h"
#include "ops/backends.h"
#include "temp.h"

#include <math.h>

/* How far a run may be from the reference. bf16 keeps eight bits: one rounding is 2e-3 of a value, a layer makes a dozen of
 * them, and those of n layers add up like a random walk. */
typedef struct golden_precision {
    const char *name;
    cab_precision precision;
    double forward, gradient; /* of one layer */
    double floor;
} golden_precision;

static const golden_precision golden_precisions[] = {{"fp32", CAB_PRECISION_FP32, 1e-4, 1e-4, 1e-5},
                                                     {"bf16", CAB_PRECISION_BF16, 2e-2, 6e-2, 5e-2}};

static inline double golden_growth(const golden_precision *p, int n_layer)
{
    return p->precision == CAB_PRECISION_BF16 ? sqrt((double)n_layer) : 1;
}

static inline const cab_safetensors_entry *golden_find(const cab_safetensors *st, const char *format, ...)
{
    char name[256];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return cab_safetensors_find(st, name);
}

/* The same, but it must be there, with n_dim dimensions. */
static inline const cab_safetensors_entry *golden_need(const cab_safetensors *st, int n_dim, const char *name)
{
    const cab_safetensors_entry *entry = cab_safetensors_find(st, name);
    if (entry == NULL)
        fail_msg("the golden file has no tensor \"%s\"", name);
    if (entry->n_dim != n_dim)
        fail_msg("%s: \"%s\" has %d dimensions, expected %d", entry->file, name, entry->n_dim, n_dim);
    return entry;
}

static inline int64_t golden_elements(const cab_safetensors_entry *entry)
{
    int64_t n = 1;
    for (int i = 0; i < entry->n_dim; i++)
        n *= entry->shape[i];
    return n;
}

/* All of it as fp32, in a buffer the caller frees (free). */
static inline float *golden_values(const cab_safetensors_entry *entry)
{
    float *values = calloc((size_t)golden_elements(entry) + 1, sizeof *values);
    assert_non_null(values);
    assert_ok(cab_safetensors_entry_read_f32(entry, entry->n_dim, entry->shape, values));
    return values;
}

/* Token ids, stored as I32 or I64, each below vocab_size. */
static inline int32_t *golden_ids(const cab_safetensors_entry *entry, int64_t vocab_size)
{
    int64_t n = golden_elements(entry);
    int32_t *ids = calloc((size_t)n + 1, sizeof *ids);
    assert_non_null(ids);
    if (entry->dtype != CAB_I32 && entry->dtype != CAB_I64)
        fail_msg("%s: \"%s\" is %s, expected I32 or I64", entry->file, entry->name, entry->dtype_name);
    for (int64_t i = 0; i < n; i++) {
        int64_t id = 0;
        int32_t narrow = 0;
        memcpy(entry->dtype == CAB_I32 ? (void *)&narrow : (void *)&id,
               (const char *)entry->data + (size_t)i * cab_dtype_size(entry->dtype), cab_dtype_size(entry->dtype));
        id = entry->dtype == CAB_I32 ? narrow : id;
        if (id < 0 || id >= vocab_size)
            fail_msg("%s: \"%s\"[%d] is %lld, outside the vocabulary of %lld", entry->file, entry->name, (int)i,
                     (long long)id, (long long)vocab_size);
        ids[i] = (int32_t)id;
    }
    return ids;
}

/* A kept tensor, or a kept view on columns, as dense fp32, in a buffer the caller frees. */
static inline float *golden_read(cab_graph *g, const cab_tensor *t)
{
    int64_t rows = cab_rows(t), columns = cab_columns(t), first = 0;
    const cab_tensor *whole = t;
    while (whole->base != NULL) {
        first += whole->offset;
        whole = whole->base;
    }
    size_t size = cab_dtype_size(whole->dtype), n = (size_t)cab_elements(whole);
    char *raw = calloc(n, size);
    float *values = calloc((size_t)(rows * columns), sizeof *values);
    assert_true(raw != NULL && values != NULL);
    assert_ok(cab_tensor_read(g, whole, raw));
    for (int64_t r = 0; r < rows; r++)
        cab_convert(values + r * columns, CAB_F32, raw + (size_t)(first + r * t->ld) * size, whole->dtype,
                    (size_t)columns);
    free(raw);
    return values;
}

static inline double golden_norm(const float *values, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)values[i] * (double)values[i];
    return sqrt(sum);
}

/* Fails, naming what and where, unless got is within `tolerance` of expected; `least` bounds the denominator from below. */
static inline void golden_expect(const char *what, const float *got, const float *expected, int64_t n, double tolerance,
                                 double least)
{
    double sum = 0, norm = golden_norm(expected, n);
    int64_t worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)expected[i];
        sum += d * d;
        if (!(fabs(d) <= fabs((double)got[worst] - (double)expected[worst])))
            worst = i;
    }
    double distance = sqrt(sum) / fmax(norm, fmax(least, 1e-30));
    if (getenv("CAB_GOLDEN_VERBOSE") != NULL)
        print_message("    %-60s %.2e\n", what, distance);
    if (!(distance <= tolerance))
        fail_msg("%s differs by %g of its norm, more than %g; at %lld found %g, expected %g", what, distance, tolerance,
                 (long long)worst, (double)got[worst], (double)expected[worst]);
}

/* Compares t (B, L, W) with the reference, of shape (B, n, W), (B, n, ..., ...) with W in all, or, for heads, (B, H, n, P)
 * with H P = W. Where n < L, the reference holds the last n positions. */
static inline void golden_expect_tokens(cab_graph *g, const char *what, const cab_tensor *t,
                                        const cab_safetensors_entry *entry, bool heads, int64_t first_column,
                                        double tolerance)
{
    if (t == NULL)
        fail_msg("%s: \"%s\" was not recorded", what, entry->name);
    const int64_t B = t->shape[0], L = t->shape[1], W = cab_columns(t);
    const int64_t n = entry->n_dim < 3 ? 0 : entry->shape[heads ? 2 : 1];
    const int64_t width = n <= 0 || entry->shape[0] <= 0 ? 0 : golden_elements(entry) / entry->shape[0] / n;
    if (t->n_dim != 3 || (heads && entry->n_dim != 4) || n < 1 || n > L || entry->shape[0] != B ||
        width < first_column + W)
        fail_msg("%s: \"%s\" does not have the shape of our (%d, %d, %d)", what, entry->name, (int)B, (int)L, (int)W);
    float *all = golden_values(entry), *ours = golden_read(g, t);
    float *got = calloc((size_t)(B * n * W), sizeof *got), *expected = calloc((size_t)(B * n * W), sizeof *expected);
    assert_true(got != NULL && expected != NULL);
    const int64_t P = heads ? entry->shape[3] : 1;
    for (int64_t b = 0; b < B; b++)
        for (int64_t l = 0; l < n; l++)
            for (int64_t w = 0; w < W; w++) {
                int64_t column = first_column + w;
                int64_t from =
                    heads ? ((b * (width / P) + column / P) * n + l) * P + column % P : (b * n + l) * width + column;
                expected[(b * n + l) * W + w] = all[from];
                got[(b * n + l) * W + w] = ours[(b * L + L - n + l) * W + w];
            }
    char name[320];
    snprintf(name, sizeof name, "%s: %s", what, entry->name);
    golden_expect(name, got, expected, B * n * W, tolerance, 0);
    free(all);
    free(ours);
    free(got);
    free(expected);
}

/* labels[b, l] = ids[b, l + 1]; the last position has none. */
static inline int32_t *golden_labels(const int32_t *ids, int64_t B, int64_t L)
{
    int32_t *labels = calloc((size_t)(B * L), sizeof *labels);
    assert_non_null(labels);
    for (int64_t b = 0; b < B; b++)
        for (int64_t l = 0; l < L; l++)
            labels[b * L + l] = l + 1 < L ? ids[b * L + l + 1] : -1;
    return labels;
}

#endif
