/* image_loader.h - batches of images, decoded and augmented by threads ahead of their use.
 *
 * Training. The samples of epoch e are the images in an order drawn from (seed, e); sample s has its own random numbers,
 * drawn from (seed, s). Batch b holds the samples b B .. b B + B - 1, across the ends of epochs. So a batch is a pure function
 * of (set, options, b): to resume, a counter is enough, and the number of threads changes nothing.
 *
 * Evaluation. Every image once, in the order of the set; the last batch is filled up with the label -1.
 *
 * A batch is lent, not copied: the device reads it where the threads wrote it. */
#ifndef CAB_DATA_IMAGE_LOADER_H
#define CAB_DATA_IMAGE_LOADER_H

#include "data/augment.h"
#include "data/image_set.h"
#include "tensor/backend.h"

typedef struct cab_image_loader_options {
    cab_image_transform transform;
    const cab_augment *augment; /* copied; NULL: evaluation */
    int batch;                  /* B; timm mixes batches of even size */
    /* Of ranks that have a part of each batch: samples of the whole, and, for each of the B here, which of them it is;
     * copied. Of mixed batches sample j and its partner B - 1 - j are partners in the whole. 0 and NULL: all are here. */
    int whole;
    const int32_t *rows;
    uint64_t seed;
    int threads;               /* that decode; 0: as many as math uses */
    int prefetch;              /* batches kept ready beside the one in use; 0: two */
    const int32_t *target_map; /* copied; by label of the set: the class that targets and labels speak of, such as the
                                * teacher's (cab_classes.teacher); NULL: the label itself */
    int32_t classes;           /* width of targets; 0: the classes of the set */
    bool targets;              /* whether batches have targets */
    cab_backend *backend; /* the device that reads the batches, from memory that it can copy by itself; NULL: none */
} cab_image_loader_options;

typedef struct cab_image_loader cab_image_loader;

/* Starts the threads. The set must outlive the loader. */
cab_status cab_image_loader_open(cab_image_set *set, const cab_image_loader_options *options, cab_image_loader **out);
void cab_image_loader_free(cab_image_loader *loader);

/* Batches of an evaluation, the last one not full; whole batches in an epoch of training, at least 1. */
uint64_t cab_image_loader_batches(const cab_image_loader *loader);
/* The width of targets. */
int32_t cab_image_loader_classes(const cab_image_loader *loader);

typedef struct cab_image_batch {
    const uint8_t *pixels;       /* (B, S, S, 3); black where there is no image */
    const cab_erasure *erasures; /* (B, cab_augment_erasures()); NULL where nothing is erased */
    cab_mix mix;                 /* how the device is to mix them; targets are mixed already */
    const float *targets;        /* (B, classes), mixed and smoothed; zeros for absent images; NULL if not asked for */
    const int32_t *labels;       /* (B), before mixing */
} cab_image_batch;

/* Lends a batch until the next call, or until the loader is freed. Uploads of it that have begun are waited for before its memory is used again
 * (cab_backend.sent). Fast for rising indices; any other index starts anew there. A failure names the image; the
 * loader can be asked again. One thread at a time. */
cab_status cab_image_loader_batch(cab_image_loader *loader, uint64_t index, cab_image_batch *batch);

#endif
