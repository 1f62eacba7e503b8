/* compare.c - sample by sample: both models run once, then layer by layer both matrices and the cosine between them. */
#include "train/compare.h"

#include "base/memory.h"
#include "base/progress.h"
#include "distill/layer_map.h"
#include "distill/recipe.h"
#include "ops/backends.h"
#include "train/compare_internal.h"
#include "train/domain.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

/* ---- the pair -------------------------------------------------------------------------------------------------------- */

static cab_status open_pair(cab_compare_pair *p)
{
    const cab_compare_options *o = p->options;
    CAB_TRY(cab_backend_open(o->device != NULL ? o->device : "cpu", &p->backend));
    CAB_TRY(cab_model_open(o->student, p->backend, o->precision, false, &p->student));
    CAB_TRY(
        cab_model_open_sized(o->teacher, p->student->config.image_size, p->backend, o->precision, false, &p->teacher));
    if (!cab_model_attends(p->teacher))
        return cab_fail(CAB_EUNSUPPORTED, "%s: architecture \"%s\" has no attention to compare with", o->teacher,
                        p->teacher->arch->name);
    const cab_domain *student = cab_domain_of(p->student), *teacher = cab_domain_of(p->teacher);
    if (teacher != student)
        return cab_fail(CAB_EARG, "%s: a model of %s, %s is one of %s", o->student, student->recipes->name, o->teacher,
                        teacher->recipes->name);
    p->kind = student->compare;
    const int S = p->student->config.n_layer, T = p->teacher->config.n_layer;
    CAB_TRY(CAB_NEW(&p->teacher_layer, (size_t)S, "a map of layers"));
    CAB_TRY(cab_layer_map(CAB_LAYERS_PROPORTIONAL, NULL, 0, S, T, p->teacher_layer));
    return p->kind->check(p);
}

static void close_pair(cab_compare_pair *p)
{
    cab_image_free(&p->image); /* before the set, which may have lent it */
    cab_image_set_free(p->set);
    cab_classes_free(&p->classes);
    cab_image_scratch_free(&p->scratch);
    cab_free(p->pixels);
    cab_dataset_free(p->dataset);
    cab_tokenizer_free(p->tokenizer);
    cab_free(p->ids);
    cab_free(p->labels);
    cab_free(p->teacher_layer);
    cab_model_free(p->teacher);
    cab_model_free(p->student);
    cab_backend_close(p->backend);
}

/* ---- similarity ------------------------------------------------------------------------------------------------------ */

/* NAN where one of the matrices is zero or not finite. */
static double cosine(const float *a, const float *b, int64_t n)
{
    double ab = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : NAN;
}

typedef struct matrices {
    cab_probe *teacher, *student;
    float *A, *M;
} matrices;

/* All layers of one sample. The map of layers never decreases, so a teacher's matrix is made once. */
static cab_status measure_sample(const cab_compare_pair *p, const matrices *m, int64_t sample, cab_comparison *out)
{
    const int64_t T = cab_probe_tokens(m->student);
    int made = -1;
    for (int l = 0; l < out->n_layer; l++) {
        if (p->teacher_layer[l] != made)
            CAB_TRY(cab_probe_matrix(m->teacher, p->teacher_layer[l], m->A));
        made = p->teacher_layer[l];
        CAB_TRY(cab_probe_matrix(m->student, l, m->M));
        const double value = cosine(m->A, m->M, T * T);
        if (!isfinite(value))
            return cab_fail(CAB_ENUMERIC, "%s: layer %d: what it makes of sample %" PRId64 " is zero or not finite",
                            p->options->student, l, sample);
        out->layers[l].values[sample] = value;
    }
    return CAB_OK;
}

static cab_status measure(cab_compare_pair *p, const matrices *m, cab_comparison *out)
{
    cab_progress progress;
    cab_status status = CAB_OK;
    cab_progress_begin(&progress, "comparing", p->kind->unit, 0, (uint64_t)out->samples);
    for (int64_t i = 0; i < out->samples; i++) {
        const void *input = NULL;
        uint64_t index;
        CAB_GOTO(p->kind->load(p, i, out->samples, &input, &index));
        CAB_GOTO(cab_probe_run(m->teacher, input));
        CAB_GOTO(cab_probe_run(m->student, input));
        CAB_GOTO(measure_sample(p, m, i, out));
        cab_progress_update(&progress, (uint64_t)i + 1, "");
    }
done:
    cab_progress_end(&progress);
    return status;
}

static cab_status measure_all(cab_compare_pair *p, cab_comparison *out)
{
    matrices m = {0};
    cab_status status;
    CAB_GOTO(cab_probe_new(p->teacher, p->seq_len, &m.teacher));
    CAB_GOTO(cab_probe_new(p->student, p->seq_len, &m.student));
    const size_t T = (size_t)cab_probe_tokens(m.student);
    out->tokens = (int64_t)T;
    CAB_GOTO(CAB_NEW(&m.A, T * T, "a matrix of tokens by tokens"));
    CAB_GOTO(CAB_NEW(&m.M, T * T, "a matrix of tokens by tokens"));
    status = measure(p, &m, out);
done:
    cab_probe_free(m.teacher);
    cab_probe_free(m.student);
    cab_free(m.A);
    cab_free(m.M);
    return status;
}

/* ---- statistics ------------------------------------------------------------------------------------------------------ */

static int compare_values(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Between the two values that stand around share q of the sorted ones. */
static double quantile(const double *sorted, size_t n, double q)
{
    const double at = q * (double)(n - 1);
    const size_t below = (size_t)at;
    const size_t above = below + 1 < n ? below + 1 : below;
    return sorted[below] + (at - (double)below) * (sorted[above] - sorted[below]);
}

/* Sorts `values`, n > 0 of them. */
static void similarity_summarise(cab_similarity *s, double *values, size_t n)
{
    double sum = 0;
    qsort(values, n, sizeof *values, compare_values);
    for (size_t i = 0; i < n; i++)
        sum += values[i];
    s->min = values[0];
    s->q1 = quantile(values, n, 0.25);
    s->median = quantile(values, n, 0.5);
    s->q3 = quantile(values, n, 0.75);
    s->max = values[n - 1];
    s->mean = sum / (double)n;
}

static cab_status summarise_all(cab_comparison *c)
{
    const size_t n = (size_t)c->samples;
    double *values = NULL;
    CAB_TRY(CAB_NEW(&values, n * ((size_t)c->n_layer + 1), "similarities"));
    for (int l = 0; l < c->n_layer; l++) {
        double *part = values + (size_t)l * n, *sorted = values + (size_t)c->n_layer * n;
        for (size_t i = 0; i < n; i++)
            part[i] = sorted[i] = c->layers[l].values[i];
        similarity_summarise(&c->layers[l], sorted, n);
    }
    c->all.layer = c->all.teacher_layer = -1;
    similarity_summarise(&c->all, values, n * (size_t)c->n_layer);
    cab_free(values);
    return CAB_OK;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------- */

static cab_status begin(const cab_compare_pair *p, cab_comparison *out)
{
    const int64_t available = p->available > INT64_MAX ? INT64_MAX : (int64_t)p->available;
    out->images = p->kind->images;
    out->n_layer = p->student->config.n_layer;
    out->samples = p->options->samples < available ? p->options->samples : available;
    CAB_TRY(cab_strdup(&out->teacher, p->options->teacher));
    CAB_TRY(cab_strdup(&out->student, p->options->student));
    CAB_TRY(CAB_NEW(&out->layers, (size_t)out->n_layer, "layers"));
    for (int l = 0; l < out->n_layer; l++) {
        out->layers[l].layer = l;
        out->layers[l].teacher_layer = p->teacher_layer[l];
        CAB_TRY(CAB_NEW(&out->layers[l].values, (size_t)out->samples, "similarities"));
    }
    return CAB_OK;
}

cab_status cab_compare(const cab_compare_options *options, cab_comparison *out)
{
    cab_compare_pair pair = {.options = options};
    cab_status status;
    CAB_GOTO(open_pair(&pair));
    CAB_GOTO(pair.kind->open(&pair));
    CAB_GOTO(begin(&pair, out));
    CAB_GOTO(cab_compare_draw(&pair, out->samples, out)); /* first: what cannot be drawn is told at once */
    CAB_GOTO(measure_all(&pair, out));
    status = summarise_all(out);
done:
    close_pair(&pair);
    return status;
}

static void free_map(cab_heat_map *map)
{
    cab_free(map->name);
    cab_free(map->thumbnail);
    for (int64_t i = 0; map->tokens != NULL && i < map->rows; i++)
        cab_free(map->tokens[i]);
    cab_free(map->tokens);
    for (int l = 0; l < map->n_layer; l++) {
        cab_free(map->layers[l].teacher);
        cab_free(map->layers[l].student);
    }
    cab_free(map->layers);
}

void cab_comparison_free(cab_comparison *c)
{
    for (int64_t i = 0; i < c->n_map; i++)
        free_map(&c->maps[i]);
    for (int l = 0; c->layers != NULL && l < c->n_layer; l++)
        cab_free(c->layers[l].values);
    cab_free(c->maps);
    cab_free(c->layers);
    cab_free(c->teacher);
    cab_free(c->student);
    *c = (cab_comparison){0};
}
