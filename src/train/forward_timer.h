/* forward_timer.h - the time of a forward pass of models of images, for sizes of pictures: where does one overtake the other? */
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
    const int64_t *sizes; /* pixels of a side */
    unsigned n_size;
    int steps; /* timed, after three to warm up */
} cab_forward_timer_options;

/* Prints a row per size: tokens, ms per batch, images per second, memory of activations. CAB_EARG of a model of text. */
cab_status cab_forward_time(const cab_forward_timer_options *options, FILE *out);

#endif
