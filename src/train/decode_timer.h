/* decode_timer.h - the speed of decoding, of a student and of its teacher with a cache, by batch and position. */
#ifndef CAB_TRAIN_DECODE_TIMER_H
#define CAB_TRAIN_DECODE_TIMER_H

#include "base/error.h"

#include <stdint.h>
#include <stdio.h>

typedef struct cab_decode_timer_options {
    const char *teacher, *teacher_config; /* a model directory, or a config.json: random weights; both NULL: none */
    const char *student,
        *student_config; /* likewise; both NULL: the first student of its domain, of the teacher's sizes */
    int n_layer;         /* of that student; 0: the teacher's */
    const char *device;
    cab_precision precision;
    const int64_t *batches, *positions; /* positions: tokens fed when a measurement ends, rising; 0: it begins there.
                                           None: 0, 1024, 4096, the teacher's context and twice that */
    unsigned n_batches, n_positions;
    int steps; /* of each measurement */
} cab_decode_timer_options;

/* Prints, for each model, batch and position: tokens per second, milliseconds per step, bytes of state or filled cache, and the
 * share of the device's measured copy rate at which the weights, and states or cache, are read. The most likely tokens are fed
 * back, and their ids are read after every step. A student decodes up to each position; a teacher's cache is taken to be
 * there, of zeros. Positions beyond a teacher's context, and what memory does not hold, are said to be so. */
cab_status cab_decode_time(const cab_decode_timer_options *options, FILE *out);

#endif
