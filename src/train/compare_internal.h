/* compare_internal.h - a comparison under way: both models recorded, and where its samples come from. */
#ifndef CAB_TRAIN_COMPARE_INTERNAL_H
#define CAB_TRAIN_COMPARE_INTERNAL_H

#include "data/dataset.h"
#include "data/image_transform.h"
#include "train/compare.h"
#include "train/probe.h"

typedef struct cab_compare_pair {
    const cab_compare_options *options;
    cab_backend *backend;
    cab_model *teacher, *student;
    int *teacher_layer; /* by student layer */
    /* The data: images, or text. */
    cab_image_set *set;
    cab_classes classes;
    cab_image_transform transform;
    cab_image_scratch scratch;
    cab_image image;
    float *pixels;
    cab_tokenizer *tokenizer;
    cab_dataset *dataset;
    int32_t *ids, *labels;
    int64_t seq_len;
    uint64_t available; /* images, or whole windows of text */
} cab_compare_pair;

/* Opens the data after the models. Text windows have pair->seq_len tokens from here on. */
cab_status cab_compare_data_open(cab_compare_pair *pair);
void cab_compare_data_close(cab_compare_pair *pair);
/* Sample i of n, evenly spaced over the data, as the probes want it; *input is the pair's until the next one. An image that
 * cannot be decoded gives way to the one after it where the options say so; *index is the one taken. */
cab_status cab_compare_data_load(cab_compare_pair *pair, int64_t i, int64_t n, const void **input, uint64_t *index);

/* The drawings that the options ask for. `samples` is how many there are. */
cab_status cab_compare_draw(cab_compare_pair *pair, int64_t samples, cab_comparison *out);

#endif
