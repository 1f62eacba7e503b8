/* objective.h - one micro-batch of one stage as a graph: teacher, student, bridge, losses, backward.
 *
 * What a stage does not use is not there: without KL and alignment no teacher runs; without CE and KL neither head nor the
 * student's layers behind the last tap run. */
#ifndef CAB_DISTILL_OBJECTIVE_H
#define CAB_DISTILL_OBJECTIVE_H

#include "distill/recipe.h"
#include "models/model.h"
#include "nn/bridge.h"

typedef struct cab_objective_options {
    int64_t batch, seq_len; /* of the micro-batch; images: seq_len 1 */
    bool ce, kl, align;     /* which terms the stage has */
    float temperature;
    int recompute; /* of the student's first so many layers activations are computed again, not kept */
    bool train;    /* false: evaluation, no backward */

    /* Of images. teacher_head stands for the teacher's own where its w is not NULL: the rows of the data's classes. targets:
     * cross-entropy is against a distribution per image. */
    cab_head_side teacher_head;
    bool targets;
} cab_objective_options;

/* Weights of the terms at one step. */
typedef struct cab_term_weights {
    double ce, kl, align;
} cab_term_weights;

/* Values of the terms after a run, unweighted, means over the micro-batch. Absent terms are NaN. */
typedef struct cab_term_values {
    double ce, kl, align;
    double agreement;
    int64_t labels, valid; /* rows that counted */
} cab_term_values;

/* One micro-batch of images, on the host. */
typedef struct cab_image_batch {
    const float *pixels;   /* (batch, 3, S, S) */
    const int32_t *labels; /* (batch); -1: none */
    const float *targets;  /* (batch, classes), where the options say targets */
    const int32_t *valid;  /* (batch); 0: no part in KL; NULL: all */
} cab_image_batch;

typedef struct cab_objective cab_objective;

/* teacher may be NULL when neither kl nor align is set; bridge when align is not. A student of images makes it one of images:
 * batches go to cab_objective_run_images(), and a bridge must be bidirectional. */
cab_status cab_objective_new(cab_backend *backend, const cab_model *student, const cab_model *teacher,
                             const cab_bridge *bridge, const cab_objective_options *options, cab_objective **objective);
void cab_objective_free(cab_objective *objective);

cab_status cab_objective_plan(cab_objective *objective, cab_plan *plan);
/* Planned graph, for printing and timing. */
cab_graph *cab_objective_graph(cab_objective *objective);

/* ids, labels, valid: (batch, seq_len). labels -1: none. valid 0: the position takes no part in KL; NULL: all do. Adds the
 * gradients of (weights . terms) / `share` to the parameters; share is the number of micro-batches per step. */
cab_status cab_objective_run(cab_objective *objective, const int32_t *ids, const int32_t *labels, const int32_t *valid,
                             const cab_term_weights *weights, int share, cab_term_values *values);
/* The same on images, in two calls: the next batch can be loaded, and begin its way to the device, in between, while the
 * device computes. A batch that cab_objective_next_images() was called with need not be given again (batch->pixels NULL). */
cab_status cab_objective_start_images(cab_objective *objective, const cab_image_batch *batch,
                                      const cab_term_weights *weights, int share);
cab_status cab_objective_next_images(cab_objective *objective, const cab_image_batch *batch);
cab_status cab_objective_finish(cab_objective *objective, cab_term_values *values);
/* Both, with nothing in between. */
cab_status cab_objective_run_images(cab_objective *objective, const cab_image_batch *batch,
                                    const cab_term_weights *weights, int share, cab_term_values *values);

#endif
