/* finished.h - what a model reads of a batch of pictures: the bytes through the op of the processor. */
#ifndef FINISHED_H
#define FINISHED_H

#include "data/image_feed.h"
#include "data/scratch.h"
#include "ops/backends.h"

/* What the device computes for batches made with this augmentation, NULL for evaluation. */
static inline cab_image_feed_options feed_of(const cab_image_transform *transform, const cab_augment *augment,
                                             int64_t batch)
{
    cab_image_feed_options o = {.transform = transform, .batch = batch};
    if (augment != NULL) {
        o.erasures = cab_augment_erasures(augment);
        o.mixed = augment->mixup > 0.0f || augment->cutmix > 0.0f;
    }
    return o;
}

/* Images (batch_size, 3, S, S), o->batch at a time. */
static inline void finish(const cab_image_feed_options *o, const cab_image_batch *batch, int64_t batch_size,
                          float *images)
{
    cab_backend *backend = NULL;
    cab_graph *g = NULL;
    cab_image_feed feed;
    assert_ok(cab_backend_open("cpu", &backend));
    assert_ok(cab_graph_new(backend, &g));
    cab_image_feed_record(g, o, &feed);
    cab_graph_keep(g, feed.image);
    assert_ok(cab_graph_plan(g, NULL));
    for (int64_t first = 0; first < batch_size; first += o->batch) {
        const cab_image_rows rows = cab_image_feed_rows(o, batch, batch_size, first);
        assert_ok(cab_image_feed_write(g, &feed, &rows));
        assert_ok(cab_graph_run(g));
        assert_ok(cab_tensor_read(g, feed.image, images + first * 3 * o->transform->size * o->transform->size));
    }
    cab_graph_free(g);
    cab_backend_close(backend);
}

#endif
