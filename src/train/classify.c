/* classify.c - files are decoded side by side into a batch, the batch goes through the model, its rows to the sink. */
#include "train/classify.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/thread.h"
#include "train/image_scorer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BATCH = 16, ERROR_MAX = 1024 };
static const size_t FILE_MAX = (size_t)1 << 30;

/* What became of one picture of the batch. */
typedef struct outcome {
    cab_status status;
    char text[ERROR_MAX];
} outcome;

typedef struct classifier {
    const cab_model *model;
    cab_image_transform transform;
    cab_image_scorer *scorer;
    int batch;
    size_t image_bytes, top;
    uint8_t *pixels;
    outcome *outcomes;
    cab_class_share *shares;
} classifier;

static cab_status decode(const classifier *c, const char *path, cab_image_scratch *scratch, cab_image *image,
                         uint8_t *pixels)
{
    const cab_decode_options options = {0};
    char *data = NULL;
    size_t size = 0;
    CAB_TRY(cab_file_read(path, FILE_MAX, &data, &size));
    cab_status status = cab_image_decode(data, size, path, &options, image);
    cab_free(data);
    CAB_TRY(status);
    status = cab_image_transform_crop(&c->transform, scratch, image, &scratch->image);
    if (status != CAB_OK)
        return cab_fail(status, "%s: %s", path, cab_error_text());
    memcpy(pixels, scratch->image.pixels, c->image_bytes);
    return CAB_OK;
}

/* Fills the first `count` places of the batch; what could not be read is left black. */
static void decode_batch(classifier *c, const char *const *paths, int count)
{
#pragma omp parallel num_threads(cab_thread_count())
    {
        cab_image_scratch scratch = {0};
        cab_image image = {0};
#pragma omp for schedule(dynamic)
        for (int i = 0; i < count; i++) {
            uint8_t *pixels = c->pixels + (size_t)i * c->image_bytes;
            outcome *o = &c->outcomes[i];
            o->status = decode(c, paths[i], &scratch, &image, pixels);
            if (o->status != CAB_OK) {
                snprintf(o->text, sizeof o->text, "%s", cab_error_text());
                memset(pixels, 0, c->image_bytes);
            }
        }
        cab_image_scratch_free(&scratch);
        cab_image_free(&image);
    }
}

/* The likeliest classes, by as many passes over the logits. */
static cab_status pick(classifier *c, const char *path, const float *logits)
{
    const int classes = c->model->config.n_classes;
    double sum = 0.0;
    float largest = logits[0];
    for (int i = 1; i < classes; i++)
        largest = fmaxf(largest, logits[i]);
    for (int i = 0; i < classes; i++)
        sum += exp((double)logits[i] - largest);
    if (!isfinite(sum))
        return cab_fail(CAB_ENUMERIC, "%s: the logits of this image are not finite", path);
    for (size_t k = 0; k < c->top; k++) {
        int best = -1;
        for (int i = 0; i < classes; i++) {
            bool taken = k > 0 && (logits[i] > logits[c->shares[k - 1].class] ||
                                   (logits[i] == logits[c->shares[k - 1].class] && i <= c->shares[k - 1].class));
            if (!taken && (best < 0 || logits[i] > logits[best]))
                best = i;
        }
        c->shares[k] = (cab_class_share){best, (float)(exp((double)logits[best] - largest) / sum)};
    }
    return CAB_OK;
}

static cab_status run_batch(classifier *c, const char *const *paths, int count, cab_classify_sink sink, void *user)
{
    const float *logits = NULL;
    decode_batch(c, paths, count);
    CAB_TRY(cab_image_scorer_run(c->scorer, c->pixels, &logits));
    for (int i = 0; i < count; i++) {
        const outcome *o = &c->outcomes[i];
        if (o->status != CAB_OK) {
            cab_error_set_text(o->text);
            CAB_TRY(sink(user, paths[i], o->status, NULL, 0));
        } else {
            CAB_TRY(pick(c, paths[i], logits + (size_t)i * (size_t)c->model->config.n_classes));
            CAB_TRY(sink(user, paths[i], CAB_OK, c->shares, c->top));
        }
    }
    return CAB_OK;
}

static cab_status open_classifier(classifier *c)
{
    CAB_TRY(cab_image_transform_of(c->model, &c->transform));
    c->image_bytes = (size_t)3 * (size_t)c->transform.size * (size_t)c->transform.size;
    CAB_TRY(cab_host_allocate(c->model->backend, (size_t)c->batch * c->image_bytes, "a batch of images",
                              (void **)&c->pixels));
    CAB_TRY(CAB_NEW(&c->outcomes, (size_t)c->batch, "a batch of images"));
    CAB_TRY(CAB_NEW(&c->shares, c->top, "the likeliest classes"));
    return cab_image_scorer_new(c->model, &c->transform, c->batch, &c->scorer);
}

cab_status cab_classify(const cab_model *model, const char *const *paths, size_t count, size_t top, int batch,
                        cab_classify_sink sink, void *user)
{
    classifier c = {.model = model, .top = top, .batch = batch};
    cab_status status;
    if (top < 1 || top > (size_t)model->config.n_classes)
        return cab_fail(CAB_EARG, "%zu classes of each image wanted; the model has %d", top, model->config.n_classes);
    if (count == 0)
        return CAB_OK;
    if (batch == 0)
        c.batch = count < BATCH ? (int)count : BATCH;
    CAB_GOTO(open_classifier(&c));
    for (size_t first = 0; first < count; first += (size_t)c.batch) {
        size_t left = count - first;
        CAB_GOTO(run_batch(&c, paths + first, left < (size_t)c.batch ? (int)left : c.batch, sink, user));
    }
done:
    cab_image_scorer_free(c.scorer);
    cab_host_release(model->backend, c.pixels);
    cab_free(c.outcomes);
    cab_free(c.shares);
    return status;
}
