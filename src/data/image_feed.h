/* image_feed.h - pictures in bytes as the input of a graph: its input tensors, the op that makes the image of them, and what the host
 * writes for each run. */
#ifndef CAB_DATA_IMAGE_FEED_H
#define CAB_DATA_IMAGE_FEED_H

#include "data/image_loader.h"
#include "ops/pixels.h"

typedef struct cab_image_feed_options {
    const cab_image_transform *transform;
    int64_t batch; /* pictures of a run, M */
    int erasures;  /* rectangles that a picture may lose */
    bool mixed;    /* pictures are mixed with each other */
    bool apart;    /* with those of another run, as micro-batches of one batch are */
} cab_image_feed_options;

typedef struct cab_image_feed {
    cab_pixels_inputs inputs;
    cab_tensor *image; /* (M, 3, S, S) F32, what models read */
} cab_image_feed;

/* Records the inputs and the op. */
void cab_image_feed_record(cab_graph *g, const cab_image_feed_options *options, cab_image_feed *feed);

/* The pictures of one run, on the host; what the options leave out is NULL. */
typedef struct cab_image_rows {
    const uint8_t *bytes, *partners;                /* (M, S, S, 3), lent (cab_tensor_lend()) */
    const cab_erasure *erasures, *partner_erasures; /* (M, n) */
    cab_blend blend;
} cab_image_rows;

/* Rows first .. first + M of a batch, and their partners. */
cab_image_rows cab_image_feed_rows(const cab_image_feed_options *options, const cab_image_batch *batch,
                                   int64_t batch_size, int64_t first);
/* Gives the next run its pictures; the last one may still be under way. */
cab_status cab_image_feed_write(cab_graph *g, const cab_image_feed *feed, const cab_image_rows *rows);

#endif
