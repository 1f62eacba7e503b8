/* forward_timer.h - the time of a forward pass. Of models of images for sizes of pictures: where does one overtake the other? Of models of
 * text beside the products of their linear layers alone: how near does a pass come to the rate that its shapes allow? */
#ifndef CAB_TRAIN_FORWARD_TIMER_H
#define CAB_TRAIN_FORWARD_TIMER_H

#include "base/error.h"

#include <stdint.h>
#include <stdio.h>

typedef struct cab_forward_timer_options {
    const char *model, *config; /* a model directory, or a config.json: random weights; one of them NULL */
    const char *device;
    cab_precision precision;
    int64_t batch;
    int64_t seq_len;      /* of text: tokens of a sequence; 0: the context, at most 1024 of it */
    const int64_t *sizes; /* pixels of a side */
    unsigned n_size;
    int steps; /* timed, after three to warm up */
} cab_forward_timer_options;

/* Images: prints a row per size: tokens, ms per batch, images per second, memory of activations. Text: a row per shape of a product, with its
 * time alone, then the sum of these and the time of the pass, logits included. precision may have CAB_PRECISION_AS_IS. */
cab_status cab_forward_time(const cab_forward_timer_options *options, FILE *out);

#endif
