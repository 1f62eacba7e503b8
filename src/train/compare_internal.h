/* compare_internal.h - a comparison under way: both models recorded, and where its samples come from. */
#ifndef CAB_TRAIN_COMPARE_INTERNAL_H
#define CAB_TRAIN_COMPARE_INTERNAL_H

#include "data/dataset.h"
#include "data/image_transform.h"
#include "train/compare.h"
#include "train/probe.h"

typedef struct cab_compare_pair cab_compare_pair;

/* Both models recorded for drawings; the maps go to out. */
typedef struct cab_compare_drawer {
    cab_compare_pair *pair;
    cab_probe *teacher, *student;
    float *matrix;
    cab_comparison *out;
} cab_compare_drawer;

/* How models of one domain are compared (domain.h). */
typedef struct cab_compare_kind {
    const char *unit; /* samples are "images" or "windows" */
    bool images;      /* as of cab_comparison */
    int first; /* element of a layer's matrix that a drawing begins at: of images 1, from where on the class token's row has patches */
    /* Refuses options and pairs that make no sense; chooses pair->seq_len. */
    cab_status (*check)(cab_compare_pair *pair);
    /* Opens the data, after the models. */
    cab_status (*open)(cab_compare_pair *pair);
    /* Sample i of n, evenly spaced over the data, as the probes want it; *input is the pair's until the next one. An image that
     * cannot be decoded gives way to the one after it where the options say so; *index is the one taken. */
    cab_status (*load)(cab_compare_pair *pair, int64_t i, int64_t n, const void **input, uint64_t *index);
    /* The drawings that the options ask for. `samples` is how many there are. */
    cab_status (*draw)(cab_compare_drawer *drawer, int64_t samples);
} cab_compare_kind;

extern const cab_compare_kind cab_compare_text, cab_compare_images;

struct cab_compare_pair {
    const cab_compare_options *options;
    const cab_compare_kind *kind;
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
};

/* Records both models for drawings of so many tokens (images: ignored). */
cab_status cab_compare_drawer_open(cab_compare_drawer *drawer, int64_t tokens);
/* Fills in the layers of a map whose size is known, for this input. */
cab_status cab_compare_draw_layers(cab_compare_drawer *drawer, const void *input, cab_heat_map *map);

/* The drawings that the options ask for. `samples` is how many there are. */
cab_status cab_compare_draw(cab_compare_pair *pair, int64_t samples, cab_comparison *out);

#endif
