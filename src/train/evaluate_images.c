/* evaluate_images.c - batches out of the loader, logits out of the models, counts out of the logits.
 *
 * z: a model's logits of one picture, those of the data's n classes. With lse(z) = log sum_i exp z_i,
 *
 *   loss = lse(z) - z[label]     KL = sum_i p_i (log p_i - log q_i),  p of the teacher, q of the model
 *   rank = classes with a larger logit than the label's, or as large a one and a smaller index; top-k: rank < k */
#include "train/evaluate_images.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "data/image_loader.h"
#include "ops/backends.h"
#include "train/domain.h"
#include "train/image_scorer.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 32, TOP = 5 };

/* One model's part. */
typedef struct side {
    cab_image_judge judge;
    cab_image_scorer *scorer; /* NULL: there is no such model */
    double *z;                /* (n) */
} side;

struct cab_image_evaluator {
    cab_image_set *set;
    cab_image_evaluator_options options;
    size_t classes; /* n */
    side model, teacher;
};

/* What one model makes of one picture. */
typedef struct verdict {
    double lse;
    int32_t best;
    size_t rank;
} verdict;

/* ---- opening ------------------------------------------------------------------------------------------------------ */

static cab_status open_side(const cab_image_evaluator *e, const cab_image_judge *judge, side *s)
{
    const cab_config *c = &judge->model->config;
    s->judge = *judge;
    if (judge->transform.size != c->image_size)
        return cab_fail(CAB_ESHAPE, "%s: reads images of %d pixels a side, the transform gives %d",
                        judge->model->arch->name, c->image_size, judge->transform.size);
    for (size_t i = 0; i < e->classes; i++) {
        int32_t class = judge->classes == NULL ? (int32_t)i : judge->classes[i];
        if (class < 0 || class >= c->n_classes)
            return cab_fail(CAB_ESHAPE, "class %zu of the data is class %" PRId32 " of the model; expected 0 to %d", i,
                            class, c->n_classes - 1);
    }
    CAB_TRY(CAB_NEW(&s->z, e->classes, "logits"));
    return cab_image_scorer_new(judge->model, &s->judge.transform, e->options.batch, &s->scorer);
}

cab_status cab_image_evaluator_new(const cab_image_judge *model, const cab_image_judge *teacher, cab_image_set *set,
                                   const cab_image_evaluator_options *options, cab_image_evaluator **out)
{
    cab_image_evaluator *e = NULL;
    cab_status status;
    *out = NULL;
    CAB_TRY(CAB_NEW(&e, 1, "an evaluator"));
    e->set = set;
    e->options = *options;
    e->options.batch = options->batch == 0 ? BATCH : options->batch;
    e->classes = cab_image_set_classes(set)->count;
    CAB_GOTO(open_side(e, model, &e->model));
    if (teacher != NULL)
        CAB_GOTO(open_side(e, teacher, &e->teacher));
    *out = e;
    e = NULL;
done:
    cab_image_evaluator_free(e);
    return status;
}

void cab_image_evaluator_free(cab_image_evaluator *e)
{
    if (e == NULL)
        return;
    cab_image_scorer_free(e->model.scorer);
    cab_image_scorer_free(e->teacher.scorer);
    cab_free(e->model.z);
    cab_free(e->teacher.z);
    cab_free(e);
}

/* ---- counting ----------------------------------------------------------------------------------------------------- */

/* Whether `a` ranks before `b`. */
static bool before(const double *z, size_t a, size_t b)
{
    return z[a] > z[b] || (z[a] == z[b] && a < b);
}

static verdict judge(side *s, size_t n, const float *logits, int32_t label)
{
    verdict v = {0};
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        s->z[i] = logits[s->judge.classes == NULL ? (int32_t)i : s->judge.classes[i]];
    for (size_t i = 0; i < n; i++) {
        v.rank += before(s->z, i, (size_t)label);
        if (before(s->z, i, (size_t)v.best))
            v.best = (int32_t)i;
    }
    for (size_t i = 0; i < n; i++)
        sum += exp(s->z[i] - s->z[v.best]);
    v.lse = s->z[v.best] + log(sum);
    return v;
}

static double divergence(const side *teacher, const verdict *p, const side *model, const verdict *q, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        double log_p = teacher->z[i] - p->lse, log_q = model->z[i] - q->lse;
        sum += exp(log_p) * (log_p - log_q);
    }
    return sum;
}

/* Adds picture i of the set; the figures are sums until the end of the pass. */
static cab_status count(cab_image_evaluator *e, uint64_t i, const float *logits, const float *teacher_logits,
                        cab_image_evaluation *r)
{
    const int32_t label = r->labels[i];
    const verdict v = judge(&e->model, e->classes, logits, label);
    double check = v.lse - e->model.z[label];
    if (teacher_logits != NULL) {
        const verdict t = judge(&e->teacher, e->classes, teacher_logits, label);
        r->kl += divergence(&e->teacher, &t, &e->model, &v, e->classes);
        r->agreement += v.best == t.best;
        r->teacher_loss += t.lse - e->teacher.z[label];
        r->teacher_top1 += t.rank < 1;
        r->teacher_top5 += t.rank < TOP;
        check += t.lse - e->teacher.z[label];
    }
    if (!isfinite(check)) {
        char name[CAB_PATH_MAX];
        cab_image_set_name(e->set, i, name);
        return cab_fail(CAB_ENUMERIC, "%s: the logits of this image are not finite", name);
    }
    r->images++;
    r->loss += v.lse - e->model.z[label];
    r->predicted[i] = v.best;
    r->class_images[label]++;
    r->class_top1[label] += v.rank < 1;
    r->class_top5[label] += v.rank < TOP;
    r->top1 += v.rank < 1;
    r->top5 += v.rank < TOP;
    return CAB_OK;
}

/* ---- the pass ----------------------------------------------------------------------------------------------------- */

typedef struct pass {
    cab_image_evaluator *e;
    cab_image_loader *loader, *teacher_loader; /* the latter only where the teacher wants other pixels */
    cab_image_evaluation *result;
    cab_image_batch own, other;           /* lent: what the models read next */
    int32_t *labels[2];                   /* of the last two batches */
    const float *logits, *teacher_logits; /* of the last batch that is computed */
} pass;

/* Where this rank's pictures begin in the set, of batch `batch` of all. */
static uint64_t first_of(const cab_image_evaluator *e, uint64_t batch)
{
    const uint64_t ranks = (uint64_t)cab_communicator_size(e->options.communicator);
    return (batch * ranks + (uint64_t)cab_communicator_rank(e->options.communicator)) * (uint64_t)e->options.batch;
}

static cab_status open_loader(const cab_image_evaluator *e, const side *s, cab_image_loader **loader)
{
    const int batch = e->options.batch;
    int32_t *rows = NULL;
    CAB_TRY(CAB_NEW(&rows, (size_t)batch, "the rows of a batch"));
    for (int j = 0; j < batch; j++)
        rows[j] = (int32_t)first_of(e, 0) + j;
    const cab_image_loader_options options = {.transform = s->judge.transform,
                                              .batch = batch,
                                              .whole = batch * cab_communicator_size(e->options.communicator),
                                              .rows = rows,
                                              .threads = e->options.threads,
                                              .backend = s->judge.model->backend};
    cab_status status = cab_image_loader_open(e->set, &options, loader);
    cab_free(rows);
    return status;
}

static cab_status evaluator_load(pass *p, cab_image_loader *loader, uint64_t batch, cab_image_batch *lent)
{
    double started = cab_seconds();
    cab_status status = cab_image_loader_batch(loader, batch, lent);
    p->result->waited += cab_seconds() - started;
    return status;
}

/* Has the loaders' next batch lent. */
static cab_status load_batch(pass *p, uint64_t batch)
{
    CAB_TRY(evaluator_load(p, p->loader, batch, &p->own));
    if (p->teacher_loader != NULL)
        return evaluator_load(p, p->teacher_loader, batch, &p->other);
    p->other = p->own;
    return CAB_OK;
}

/* Counts a batch whose logits are there. */
static cab_status count_batch(pass *p, uint64_t batch)
{
    cab_image_evaluator *e = p->e;
    const size_t width = (size_t)e->model.judge.model->config.n_classes;
    const size_t teacher_width = e->teacher.scorer == NULL ? 0 : (size_t)e->teacher.judge.model->config.n_classes;
    const uint64_t first = first_of(e, batch);
    const int32_t *labels = p->labels[batch % 2];
    for (int j = 0; j < e->options.batch; j++)
        if (labels[j] >= 0)
            CAB_TRY(count(e, first + (uint64_t)j, p->logits + (size_t)j * width,
                          p->teacher_logits == NULL ? NULL : p->teacher_logits + (size_t)j * teacher_width, p->result));
    return CAB_OK;
}

/* While the device computes this batch, the one before is counted and the one behind is loaded. */
static cab_status evaluator_run_batch(pass *p, uint64_t batch, uint64_t batches)
{
    cab_image_evaluator *e = p->e;
    CAB_TRY(cab_image_scorer_start(e->model.scorer, p->own.pixels));
    if (e->teacher.scorer != NULL)
        CAB_TRY(cab_image_scorer_start(e->teacher.scorer, p->other.pixels));
    memcpy(p->labels[batch % 2], p->own.labels, (size_t)e->options.batch * sizeof(int32_t));
    if (batch > 0)
        CAB_TRY(count_batch(p, batch - 1));
    if (batch + 1 < batches)
        CAB_TRY(load_batch(p, batch + 1));
    CAB_TRY(cab_image_scorer_finish(e->model.scorer, &p->logits));
    if (e->teacher.scorer != NULL)
        CAB_TRY(cab_image_scorer_finish(e->teacher.scorer, &p->teacher_logits));
    return batch + 1 < batches ? CAB_OK : count_batch(p, batch);
}

static cab_status run_batches(pass *p)
{
    const cab_image_evaluation *r = p->result;
    const uint64_t batches = cab_image_loader_batches(p->loader), size = first_of(p->e, 1) - first_of(p->e, 0);
    cab_status status = CAB_OK;
    cab_progress progress;
    char detail[32];
    CAB_TRY(load_batch(p, 0));
    cab_progress_begin(&progress, "evaluating", "images", 0, r->count);
    for (uint64_t b = 0; b < batches && status == CAB_OK; b++) {
        status = evaluator_run_batch(p, b, batches);
        uint64_t done = (b + 1) * size < r->count ? (b + 1) * size : r->count;
        snprintf(detail, sizeof detail, "top-1 %.2f %%", r->images > 0 ? 100.0 * r->top1 / (double)r->images : 0.0);
        cab_progress_update(&progress, done, detail);
    }
    cab_progress_end(&progress);
    return status;
}

static cab_status prepare(const cab_image_evaluator *e, cab_image_evaluation *r)
{
    cab_image_evaluation_free(r);
    r->count = cab_image_set_count(e->set);
    r->classes = e->classes;
    CAB_TRY(CAB_NEW(&r->labels, r->count, "labels"));
    CAB_TRY(CAB_NEW(&r->predicted, r->count, "predictions"));
    CAB_TRY(CAB_NEW(&r->class_images, e->classes, "counts of classes"));
    CAB_TRY(CAB_NEW(&r->class_top1, e->classes, "counts of classes"));
    CAB_TRY(CAB_NEW(&r->class_top5, e->classes, "counts of classes"));
    for (uint64_t i = 0; i < r->count; i++) {
        r->labels[i] = cab_image_set_label(e->set, i);
        r->predicted[i] = -1;
    }
    return CAB_OK;
}

/* Adds up the sums of all ranks. */
static cab_status add_ranks(const cab_image_evaluator *e, cab_image_evaluation *r)
{
    double *const sums[] = {&r->loss,      &r->top1,         &r->top5,         &r->kl,
                            &r->agreement, &r->teacher_loss, &r->teacher_top1, &r->teacher_top5};
    enum { SUMS = sizeof sums / sizeof *sums };
    double all[SUMS + 1] = {[SUMS] = (double)r->images};
    for (int i = 0; i < SUMS; i++)
        all[i] = *sums[i];
    CAB_TRY(cab_communicator_sum(e->options.communicator, all, SUMS + 1));
    for (int i = 0; i < SUMS; i++)
        *sums[i] = all[i];
    r->images = (uint64_t)all[SUMS];
    return CAB_OK;
}

/* Sums to means. */
static void evaluator_finish(const cab_image_evaluator *e, double seconds, cab_image_evaluation *r)
{
    const double n = (double)r->images;
    double *const own[] = {&r->loss, &r->top1, &r->top5};
    double *const compared[] = {&r->kl, &r->agreement, &r->teacher_loss, &r->teacher_top1, &r->teacher_top5};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        *own[i] /= n;
    for (size_t i = 0; i < sizeof compared / sizeof *compared; i++)
        *compared[i] = e->teacher.scorer == NULL ? NAN : *compared[i] / n;
    r->skipped = cab_image_set_skipped(e->set);
    r->seconds = seconds;
    r->images_per_second = n / seconds;
}

cab_status cab_image_evaluator_run(cab_image_evaluator *e, cab_image_evaluation *evaluation)
{
    pass p = {.e = e, .result = evaluation};
    const double started = cab_seconds();
    cab_status status;
    CAB_GOTO(prepare(e, evaluation));
    for (int k = 0; k < 2; k++)
        CAB_GOTO(CAB_NEW(&p.labels[k], (size_t)e->options.batch, "a batch of labels"));
    CAB_GOTO(open_loader(e, &e->model, &p.loader));
    if (e->teacher.scorer != NULL && !cab_image_transform_equal(&e->model.judge.transform, &e->teacher.judge.transform))
        CAB_GOTO(open_loader(e, &e->teacher, &p.teacher_loader));
    CAB_GOTO(run_batches(&p));
    CAB_GOTO(add_ranks(e, evaluation));
    if (evaluation->images == 0)
        CAB_GOTO(cab_fail(CAB_EFORMAT, "none of the %" PRIu64 " images could be decoded", evaluation->count));
    evaluator_finish(e, cab_seconds() - started, evaluation);
done:
    cab_image_loader_free(p.loader);
    cab_image_loader_free(p.teacher_loader);
    cab_free(p.labels[0]);
    cab_free(p.labels[1]);
    return status;
}

void cab_image_evaluation_free(cab_image_evaluation *r)
{
    cab_free(r->labels);
    cab_free(r->predicted);
    cab_free(r->class_images);
    cab_free(r->class_top1);
    cab_free(r->class_top5);
    *r = (cab_image_evaluation){0};
}

/* ---- confusions --------------------------------------------------------------------------------------------------- */

static int compare_pairs(const void *left, const void *right)
{
    const cab_confusion *a = left, *b = right;
    if (a->label != b->label)
        return a->label < b->label ? -1 : 1;
    return (a->predicted > b->predicted) - (a->predicted < b->predicted);
}

static int compare_frequency(const void *left, const void *right)
{
    const cab_confusion *a = left, *b = right;
    if (a->images != b->images)
        return a->images > b->images ? -1 : 1;
    return compare_pairs(left, right);
}

cab_status cab_image_evaluation_confusions(const cab_image_evaluation *r, size_t max, cab_confusion *worst,
                                           size_t *count)
{
    cab_confusion *pairs = NULL;
    size_t wrong = 0, kinds = 0;
    *count = 0;
    CAB_TRY(CAB_NEW(&pairs, r->count, "confusions"));
    for (uint64_t i = 0; i < r->count; i++)
        if (r->predicted[i] >= 0 && r->predicted[i] != r->labels[i])
            pairs[wrong++] = (cab_confusion){r->labels[i], r->predicted[i], 1};
    qsort(pairs, wrong, sizeof *pairs, compare_pairs);
    for (size_t i = 0; i < wrong; i++) {
        if (kinds > 0 && compare_pairs(&pairs[kinds - 1], &pairs[i]) == 0)
            pairs[kinds - 1].images++;
        else
            pairs[kinds++] = pairs[i];
    }
    qsort(pairs, kinds, sizeof *pairs, compare_frequency);
    for (; *count < max && *count < kinds; ++*count)
        worst[*count] = pairs[*count];
    cab_free(pairs);
    return CAB_OK;
}

/* ---- from files --------------------------------------------------------------------------------------------------- */

typedef struct opened {
    cab_model *model;
    cab_image_judge judge;
    int32_t *classes; /* of the judge */
} opened;

static cab_status open_model(const cab_evaluate_images_options *o, const char *directory, cab_backend *backend,
                             opened *m)
{
    CAB_TRY(cab_model_open_sized(directory, o->image_size, backend, o->precision, false, &m->model));
    if (cab_domain_of(m->model) != &cab_domain_images)
        return cab_fail(CAB_EARG, "%s: reads %s, the data are images", directory,
                        cab_domain_of(m->model)->recipes->name);
    m->judge.model = m->model;
    return cab_image_transform_of(m->model, &m->judge.transform);
}

static cab_status match_classes(const cab_classes *classes, opened *m)
{
    cab_status status = cab_image_classes_match(classes, m->model, &m->classes);
    m->judge.classes = m->classes;
    return status;
}

/* The classes of the data: those given, else the model's own, else those found. Of its own only the names count here: which
 * classes of another model they are, they do not say. */
static cab_status choose_classes(const cab_evaluate_images_options *o, const cab_model *model, cab_classes *classes)
{
    if (o->classes != NULL)
        return cab_classes_load(o->classes, classes);
    CAB_TRY(cab_model_classes(model, classes));
    for (size_t i = 0; i < classes->count; i++)
        classes->teacher[i] = -1;
    return CAB_OK;
}

static cab_status evaluator_open_set(const cab_evaluate_images_options *o, const cab_model *model, cab_image_set **set)
{
    cab_classes given = {0};
    CAB_TRY(choose_classes(o, model, &given));
    const cab_image_set_options options = {
        .classes = given.count > 0 ? &given : NULL, .on_error = o->on_error, .limits = o->limits};
    cab_status status = cab_image_set_open(o->data, o->data_count, &options, set);
    cab_classes_free(&given);
    return status;
}

cab_status cab_evaluate_images(const cab_evaluate_images_options *o, cab_image_evaluation *evaluation,
                               cab_classes *classes)
{
    const cab_image_evaluator_options options = {.batch = o->batch};
    cab_backend *backend = NULL;
    opened model = {0}, teacher = {0};
    cab_image_set *set = NULL;
    cab_image_evaluator *evaluator = NULL;
    cab_status status;
    CAB_GOTO(cab_backend_open(o->device != NULL ? o->device : "cpu", &backend));
    CAB_GOTO(open_model(o, o->model, backend, &model));
    if (o->teacher != NULL)
        CAB_GOTO(open_model(o, o->teacher, backend, &teacher));
    CAB_GOTO(evaluator_open_set(o, model.model, &set));
    CAB_GOTO(match_classes(cab_image_set_classes(set), &model));
    if (o->teacher != NULL)
        CAB_GOTO(match_classes(cab_image_set_classes(set), &teacher));
    CAB_GOTO(
        cab_image_evaluator_new(&model.judge, o->teacher != NULL ? &teacher.judge : NULL, set, &options, &evaluator));
    CAB_GOTO(cab_image_evaluator_run(evaluator, evaluation));
    status = cab_classes_copy(cab_image_set_classes(set), classes);
done:
    cab_image_evaluator_free(evaluator);
    cab_image_set_free(set);
    cab_model_free(model.model);
    cab_model_free(teacher.model);
    cab_free(model.classes);
    cab_free(teacher.classes);
    cab_backend_close(backend);
    return status;
}
