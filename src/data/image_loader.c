/* image_loader.c - a ring of batches, filled by threads in the order in which they will be asked for.
 *
 *   slot:  free -> filling (samples are taken one by one, oldest batch first) -> ready -> lent -> free
 *
 * The caller's thread schedules: it draws the order of an epoch and writes into the slot which image each sample is. Workers
 * take samples under the lock and work outside of it; whoever finishes the last sample of a batch mixes its labels. */
#include "data/image_loader.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/thread.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { PREFETCH = 2, PREFETCH_MAX = 64, THREADS_MAX = 256, BATCH_MAX = 1 << 16, ERROR_MAX = 1024, CHANNELS = 3 };

static const uint64_t ABSENT = UINT64_MAX;

typedef enum slot_state { SLOT_FREE, SLOT_FILLING, SLOT_READY, SLOT_LENT } slot_state;

typedef struct slot {
    slot_state state;
    uint64_t batch;
    uint8_t *pixels; /* of the backend's host memory */
    cab_erasure *erasures;
    float *targets;
    int32_t *labels;
    uint64_t *images; /* by sample; or ABSENT */
    int samples;      /* to fill: B, or fewer when the batch is no longer wanted */
    int taken, done;
    cab_status status; /* of the failed sample that comes first in the batch */
    int failed;
    char text[ERROR_MAX];
} slot;

struct cab_image_loader {
    cab_image_set *set;
    cab_image_transform transform;
    cab_augment augment;
    bool training;
    int batch, whole;
    int32_t *rows;      /* of a batch, in the whole; NULL: all */
    size_t image_bytes; /* S S 3 */
    size_t erasures;    /* of an image */
    cab_backend *backend;
    uint64_t seed, images, batches;
    int32_t *target_map, classes;
    uint64_t *order; /* of `epoch` */
    uint64_t epoch;
    slot *slots;
    int slots_count;
    uint64_t next; /* batch to schedule */
    pthread_t threads[THREADS_MAX];
    int threads_count;
    pthread_mutex_t lock;
    pthread_cond_t work, progress;
    bool stop;
};

/* ---- workers ---------------------------------------------------------------------------------------------------------- */

/* Random numbers of one sample, batch or epoch. */
static cab_random random_of(const cab_image_loader *l, cab_stream stream, uint64_t counter)
{
    return (cab_random){l->seed, (uint32_t)stream, (uint32_t)counter, counter >> 32 << 32};
}

/* The number of sample j of a batch among all. */
static uint64_t sample_of(const cab_image_loader *l, uint64_t batch, int j)
{
    return batch * (uint64_t)l->whole + (uint64_t)(l->rows != NULL ? l->rows[j] : j);
}

/* The failure of a step after decoding, which knows no name. */
static cab_status named(const cab_image_loader *l, uint64_t i, cab_status status)
{
    char name[CAB_PATH_MAX];
    if (status == CAB_OK)
        return CAB_OK;
    cab_image_set_name(l->set, i, name);
    return cab_fail(status, "%s: %s", name, cab_error_text());
}

/* Fills sample j; an absent image keeps the label -1 and is black. */
static cab_status make_sample(cab_image_loader *l, slot *s, int j, cab_image_scratch *scratch, cab_image *image)
{
    uint8_t *pixels = s->pixels + (size_t)j * l->image_bytes;
    const uint64_t i = s->images[j];
    s->labels[j] = -1;
    if (i == ABSENT) {
        memset(pixels, 0, l->image_bytes);
        return CAB_OK;
    }
    if (l->training) {
        cab_random random = random_of(l, CAB_STREAM_AUGMENT, sample_of(l, s->batch, j));
        CAB_TRY(cab_image_set_load_training(l->set, i, image));
        cab_erasure *erasures = s->erasures + (size_t)j * l->erasures;
        CAB_TRY(named(l, i, cab_augment_apply(&l->augment, &l->transform, &random, scratch, image, pixels, erasures)));
    } else {
        cab_status status = cab_image_set_load(l->set, i, image);
        if (status != CAB_OK && cab_image_set_is_bad(l->set, i)) {
            memset(pixels, 0, l->image_bytes);
            return CAB_OK;
        }
        CAB_TRY(status);
        CAB_TRY(named(l, i, cab_image_transform_crop(&l->transform, scratch, image, &scratch->image)));
        memcpy(pixels, scratch->image.pixels, l->image_bytes);
    }
    int32_t label = cab_image_set_label(l->set, i);
    s->labels[j] = l->target_map == NULL ? label : l->target_map[label];
    return CAB_OK;
}

static cab_mix mix_of(const cab_image_loader *l, uint64_t batch)
{
    cab_random random = random_of(l, CAB_STREAM_MIX, batch);
    return l->training ? cab_mix_draw(&l->augment, &random, l->transform.size) : (cab_mix){.share = 1.0f};
}

static void mix_targets(const cab_image_loader *l, slot *s)
{
    cab_mix mix = mix_of(l, s->batch);
    if (s->targets != NULL)
        cab_mix_targets(&mix, l->training ? l->augment.smoothing : 0.0f, s->labels, l->batch, l->classes, s->targets);
}

/* The oldest batch that still has samples to take; NULL: none. */
static slot *next_slot(cab_image_loader *l)
{
    slot *oldest = NULL;
    for (int k = 0; k < l->slots_count; k++) {
        slot *s = &l->slots[k];
        if (s->state == SLOT_FILLING && s->taken < s->samples && (oldest == NULL || s->batch < oldest->batch))
            oldest = s;
    }
    return oldest;
}

/* Takes one sample of the slot and makes it. The lock is held on entry and on return. */
static void work_on(cab_image_loader *l, slot *s, cab_image_scratch *scratch, cab_image *image)
{
    int j = s->taken++;
    pthread_mutex_unlock(&l->lock);
    cab_status status = make_sample(l, s, j, scratch, image);
    pthread_mutex_lock(&l->lock);
    if (status != CAB_OK && (s->status == CAB_OK || j < s->failed)) {
        s->status = status;
        s->failed = j;
        snprintf(s->text, sizeof s->text, "%s", cab_error_text());
    }
    if (s->done + 1 == s->samples && s->samples == l->batch) { /* nobody else looks at the slot until it is ready */
        pthread_mutex_unlock(&l->lock);
        mix_targets(l, s);
        pthread_mutex_lock(&l->lock);
    }
    if (++s->done >= s->samples && s->done == s->taken) {
        s->state = SLOT_READY;
        pthread_cond_broadcast(&l->progress);
    }
}

static void *run_worker(void *given)
{
    cab_image_loader *l = given;
    cab_image_scratch scratch = {0};
    cab_image image = {0};
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        slot *s = next_slot(l);
        if (s == NULL)
            pthread_cond_wait(&l->work, &l->lock);
        else
            work_on(l, s, &scratch, &image);
    }
    pthread_mutex_unlock(&l->lock);
    cab_image_scratch_free(&scratch);
    cab_image_free(&image);
    return NULL;
}

/* ---- scheduling ------------------------------------------------------------------------------------------------------- */

/* The image that a training sample shows. */
static uint64_t image_of(cab_image_loader *l, uint64_t sample)
{
    uint64_t epoch = sample / l->images, k = sample % l->images;
    if (l->epoch != epoch) {
        cab_random random = random_of(l, CAB_STREAM_SHUFFLE, epoch);
        cab_random_permutation(&random, l->order, l->images);
        l->epoch = epoch;
    }
    return l->order[k / (uint64_t)(l->augment.repeats > 1 ? l->augment.repeats : 1)];
}

/* Hands the free slots to the batches that come next. The lock is held. */
static void schedule(cab_image_loader *l)
{
    for (int k = 0; k < l->slots_count; k++) {
        slot *s = &l->slots[k];
        if (s->state != SLOT_FREE || (!l->training && l->next >= l->batches))
            continue;
        s->batch = l->next++;
        s->state = SLOT_FILLING;
        s->status = CAB_OK;
        s->taken = s->done = 0;
        s->samples = l->batch;
        for (int j = 0; j < l->batch; j++) {
            const uint64_t sample = sample_of(l, s->batch, j);
            s->images[j] = l->training ? image_of(l, sample) : sample < l->images ? sample : ABSENT;
        }
    }
    pthread_cond_broadcast(&l->work);
}

static slot *find_slot(cab_image_loader *l, uint64_t index)
{
    for (int k = 0; k < l->slots_count; k++)
        if (l->slots[k].state != SLOT_FREE && l->slots[k].batch == index)
            return &l->slots[k];
    return NULL;
}

/* Gives up what is under way, waiting for the samples that are being made. The lock is held. */
static void drop_all(cab_image_loader *l)
{
    for (int k = 0; k < l->slots_count; k++) {
        slot *s = &l->slots[k];
        if (s->state == SLOT_FILLING)
            s->samples = s->taken;
        while (s->state == SLOT_FILLING && s->done < s->taken)
            pthread_cond_wait(&l->progress, &l->lock);
        s->state = SLOT_FREE;
    }
}

/* What was lent before may be filled anew. The lock is held, and the device has read it. */
static void take_back(cab_image_loader *l)
{
    for (int k = 0; k < l->slots_count; k++)
        if (l->slots[k].state == SLOT_LENT)
            l->slots[k].state = SLOT_FREE;
}

/* The slot of a batch, ready. The lock is held. */
static slot *await_slot(cab_image_loader *l, uint64_t index)
{
    slot *s = find_slot(l, index);
    if (s == NULL) {
        drop_all(l);
        l->next = index;
    }
    schedule(l);
    s = find_slot(l, index);
    while (s->state != SLOT_READY)
        pthread_cond_wait(&l->progress, &l->lock);
    return s;
}

cab_status cab_image_loader_batch(cab_image_loader *l, uint64_t index, cab_image_batch *batch)
{
    if (l->training ? index > UINT64_MAX / (uint64_t)l->whole - 1 : index >= l->batches)
        return cab_fail(CAB_EARG, "batch %" PRIu64 " of %" PRIu64, index, l->batches);
    if (l->backend != NULL && l->backend->sent != NULL)
        CAB_TRY(l->backend->sent(l->backend));
    pthread_mutex_lock(&l->lock);
    take_back(l);
    slot *s = await_slot(l, index);
    const cab_status status = s->status;
    s->state = status == CAB_OK ? SLOT_LENT : SLOT_FREE;
    if (status != CAB_OK)
        cab_error_set_text(s->text);
    pthread_mutex_unlock(&l->lock);
    *batch = (cab_image_batch){.pixels = s->pixels,
                               .erasures = l->erasures > 0 ? s->erasures : NULL,
                               .mix = mix_of(l, index),
                               .targets = s->targets,
                               .labels = s->labels};
    return status;
}

/* ---- opening and closing ---------------------------------------------------------------------------------------------- */

static cab_status check_options(const cab_image_set *set, const cab_image_loader_options *o)
{
    const cab_classes *classes = cab_image_set_classes(set);
    const int32_t width = o->classes == 0 ? (int32_t)classes->count : o->classes;
    if (o->batch < 1 || o->batch > BATCH_MAX)
        return cab_fail(CAB_EARG, "a batch of %d images; expected 1 to %d", o->batch, (int)BATCH_MAX);
    if (o->threads < 0 || o->threads > THREADS_MAX || o->prefetch < 0 || o->prefetch > PREFETCH_MAX)
        return cab_fail(CAB_EARG, "%d threads and %d batches ahead; expected up to %d and %d", o->threads, o->prefetch,
                        (int)THREADS_MAX, (int)PREFETCH_MAX);
    for (size_t c = 0; c < classes->count; c++) {
        int32_t target = o->target_map == NULL ? (int32_t)c : o->target_map[c];
        if (target < 0 || target >= width)
            return cab_fail(CAB_EFORMAT, "class \"%s\" is class %" PRId32 " of the model; expected 0 to %" PRId32,
                            classes->names[c], target, width - 1);
    }
    for (int j = 0; o->rows != NULL && j < o->batch; j++)
        if (o->rows[j] < 0 || o->rows[j] >= o->whole)
            return cab_fail(CAB_EARG, "sample %d is row %" PRId32 " of a batch of %d", j, o->rows[j], o->whole);
    return o->augment == NULL ? CAB_OK : cab_augment_check(o->augment);
}

static cab_status reserve(cab_image_loader *l, const cab_image_loader_options *o)
{
    const size_t classes = cab_image_set_classes(l->set)->count, batch = (size_t)l->batch;
    l->slots_count = 2 + (o->prefetch == 0 ? PREFETCH : o->prefetch); /* one lent, one awaited */
    CAB_TRY(CAB_NEW(&l->slots, (size_t)l->slots_count, "batches of images"));
    for (int k = 0; k < l->slots_count; k++) {
        slot *s = &l->slots[k];
        CAB_TRY(cab_host_allocate(l->backend, batch * l->image_bytes, "batches of images", (void **)&s->pixels));
        CAB_TRY(CAB_NEW(&s->erasures, batch * l->erasures, "erased rectangles"));
        if (o->targets)
            CAB_TRY(CAB_NEW(&s->targets, batch * (size_t)l->classes, "targets"));
        CAB_TRY(CAB_NEW(&s->labels, batch, "labels"));
        CAB_TRY(CAB_NEW(&s->images, batch, "labels"));
    }
    if (l->training)
        CAB_TRY(CAB_NEW(&l->order, l->images, "the order of images"));
    if (o->rows != NULL) {
        CAB_TRY(CAB_NEW(&l->rows, batch, "the rows of a batch"));
        memcpy(l->rows, o->rows, batch * sizeof *l->rows);
    }
    if (o->target_map == NULL)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&l->target_map, classes, "the map of classes"));
    memcpy(l->target_map, o->target_map, classes * sizeof *l->target_map);
    return CAB_OK;
}

/* Workers leave every signal to the threads that were there before. */
static cab_status start_threads(cab_image_loader *l, int wanted)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (l->threads_count < wanted && pthread_create(&l->threads[l->threads_count], NULL, run_worker, l) == 0)
        l->threads_count++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (l->threads_count == 0)
        return cab_fail(CAB_ENOMEM, "no thread for loading images could be started");
    return CAB_OK;
}

cab_status cab_image_loader_open(cab_image_set *set, const cab_image_loader_options *o, cab_image_loader **out)
{
    cab_status status = CAB_OK;
    cab_image_loader *l = NULL;
    int threads = o->threads > 0 ? o->threads : cab_thread_count();
    *out = NULL;
    CAB_TRY(check_options(set, o));
    CAB_TRY(CAB_NEW(&l, 1, "a loader of images"));
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->progress, NULL);
    l->set = set;
    l->transform = o->transform;
    l->training = o->augment != NULL;
    l->augment = l->training ? *o->augment : (cab_augment){0};
    l->batch = o->batch;
    l->whole = o->rows != NULL ? o->whole : o->batch;
    l->image_bytes = (size_t)CHANNELS * (size_t)o->transform.size * (size_t)o->transform.size;
    l->erasures = l->training ? (size_t)cab_augment_erasures(&l->augment) : 0;
    l->backend = o->backend;
    l->seed = o->seed;
    l->images = cab_image_set_count(set);
    l->classes = o->classes == 0 ? (int32_t)cab_image_set_classes(set)->count : o->classes;
    l->epoch = UINT64_MAX;
    const uint64_t batch = (uint64_t)l->whole, full = l->images / batch;
    l->batches = l->training ? (full == 0 ? 1 : full) : (l->images + batch - 1) / batch;
    CAB_GOTO(reserve(l, o));
    CAB_GOTO(start_threads(l, threads < THREADS_MAX ? threads : THREADS_MAX));
    *out = l;
    l = NULL;
done:
    cab_image_loader_free(l);
    return status;
}

void cab_image_loader_free(cab_image_loader *l)
{
    if (l == NULL)
        return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->threads_count; i++)
        pthread_join(l->threads[i], NULL);
    for (int k = 0; l->slots != NULL && k < l->slots_count; k++) {
        cab_host_release(l->backend, l->slots[k].pixels);
        cab_free(l->slots[k].erasures);
        cab_free(l->slots[k].targets);
        cab_free(l->slots[k].labels);
        cab_free(l->slots[k].images);
    }
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->work);
    pthread_cond_destroy(&l->progress);
    cab_free(l->slots);
    cab_free(l->order);
    cab_free(l->target_map);
    cab_free(l->rows);
    cab_free(l);
}

uint64_t cab_image_loader_batches(const cab_image_loader *l)
{
    return l->batches;
}

int32_t cab_image_loader_classes(const cab_image_loader *l)
{
    return l->classes;
}
