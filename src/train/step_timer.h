/* step_timer.h - the time of one training step: teacher, student, bridge, losses, backward, optimizer. */
#ifndef CAB_TRAIN_STEP_TIMER_H
#define CAB_TRAIN_STEP_TIMER_H

#include "base/communicator.h"

#include <stdint.h>
#include <stdio.h>

typedef enum cab_step_stage {
    CAB_STEP_ALIGN, /* alignment alone */
    CAB_STEP_SOFT,  /* cross-entropy and KL; images: KL */
    CAB_STEP_JOINT  /* both; images: KL and alignment */
} cab_step_stage;

typedef struct cab_step_options {
    const char *teacher, *teacher_config; /* a model directory, or a config.json: random weights */
    const char
        *student_config; /* config.json of a student; NULL: the first student of its domain, of the teacher's sizes */
    int n_layer;         /* of that student; 0: the teacher's */
    const char *device;
    cab_precision precision;
    bool teacher_fp8; /* cab_model_quantise() */
    cab_step_stage stage;
    int64_t batch, seq_len; /* seq_len of text; 0: the teacher's context */
    int image_size;         /* 0: the teacher's */
    int steps;
    int recompute;                  /* layers of the student that are computed again in the backward pass */
    bool nodes;                     /* a line for each node of the list */
    cab_communicator *communicator; /* ranks that share the batch; rank 0 prints. NULL: none */
    bool divided;                   /* the optimizer's moments among them */
} cab_step_options;

/* Prints ms, tokens or images per second, the matrix FLOPs of the step (teacher included), their rate and its share of the
 * device's measured matrix rate, memory, and a table of the time by op. With ranks also the bytes of gradients, and what of their sums
 * is not hidden behind the backward pass: the time of a step less that of one without sums. */
cab_status cab_step_time(const cab_step_options *options, FILE *out);

#endif
