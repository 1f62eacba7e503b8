/* objective.h - one micro-batch of one stage as a graph: teacher, student, loss terms, backward.
 *
 * What a stage does not use is not there: where no term needs the teacher none runs; where none needs the head neither
 * it nor the student's layers behind the last tap run. */
#ifndef CAB_DISTILL_OBJECTIVE_H
#define CAB_DISTILL_OBJECTIVE_H

#include "data/image_feed.h"
#include "distill/term.h"

typedef struct cab_objective_options {
    int64_t batch, seq_len;     /* of the micro-batch; images: seq_len 1 */
    bool terms[CAB_TERM_COUNT]; /* which the stage has */
    float temperature;
    int recompute; /* of the student's first so many layers activations are computed again, not kept */
    bool train;    /* false: evaluation: the head's terms without backward, whatever `terms` says */

    cab_head_side
        teacher_head; /* stands for the teacher's own where its w is not NULL: the rows of the data's classes */
    bool documents;   /* sequences hold several, which know nothing of each other */
    bool targets;     /* cross-entropy is against a distribution per row */
    int64_t
        words; /* the teacher is its so many likeliest words, given with the batch, unless a term looks into it; 0: it runs */
    const cab_image_feed_options *pictures; /* images come as bytes; NULL: as models read them */
    bool scatter;                           /* with ranks: each gets the sums of its own part of the gradients alone */
} cab_objective_options;

/* One micro-batch, on the host. */
typedef struct cab_batch {
    const void *input; /* what the student reads: ids (batch, seq_len) I32, or pixels (batch, 3, S, S) F32 */
    const cab_image_rows *pictures; /* in place of input, where the options say pictures */
    const int32_t *labels;          /* (batch, seq_len); -1: none */
    const float *targets;           /* (batch, seq_len, classes), where the options say targets */
    const int32_t *starts;   /* (batch, seq_len), where the options say documents: the first token of each token's */
    const int32_t *word_ids; /* (batch, seq_len, words), where the options say words, and log p of these */
    const float *word_top;
    const int32_t *valid; /* (batch, seq_len); 0: the row takes no part in KL; NULL: all do */
} cab_batch;

/* Of ranks that have a micro-batch each its rows: which part of what the terms are means over is on this one. */
typedef struct cab_portion {
    double labels, valid, rows; /* of all rows with a label, of all valid ones, of all */
} cab_portion;

typedef struct cab_objective cab_objective;

/* teacher may be NULL where no term needs it, and terms where none has a state. */
cab_status cab_objective_new(cab_backend *backend, const cab_model *student, const cab_model *teacher,
                             const cab_term_set *terms, const cab_objective_options *options,
                             cab_objective **objective);
void cab_objective_free(cab_objective *objective);

cab_status cab_objective_plan(cab_objective *objective, cab_plan *plan);
/* Planned graph, for printing and timing. */
cab_graph *cab_objective_graph(cab_objective *objective);

/* Of the micro-batch that is started next; 1, 1, 1 at the start. Gradients and values are then this rank's summands. */
void cab_objective_set_portion(cab_objective *objective, const cab_portion *portion);
/* One micro-batch, in two calls: the next batch can be loaded, and begin its way to the device, in between, while the
 * device computes. Adds the gradients of (weights . terms) / `share` to the parameters; share is the number of
 * micro-batches per step. Input and targets of a batch that cab_objective_next() was called with need not be given
 * again (batch->input and batch->pictures NULL). More can be started before the first is finished, until cab_objective_full():
 * finish gives the values of the oldest, and waits for that one alone. */
cab_status cab_objective_start(cab_objective *objective, const cab_batch *batch, const cab_term_weights *weights,
                               int share);
cab_status cab_objective_next(cab_objective *objective, const cab_batch *batch);
bool cab_objective_full(const cab_objective *objective);
cab_status cab_objective_finish(cab_objective *objective, cab_term_values *values);
/* The scalars that a term's value is the mean of, of the run that was finished last: the first `most` of `count`. */
cab_status cab_objective_term_scalars(const cab_objective *objective, cab_term_id term, float *values, int most,
                                      int *count);
/* start and finish, with nothing in between. */
cab_status cab_objective_run(cab_objective *objective, const cab_batch *batch, const cab_term_weights *weights,
                             int share, cab_term_values *values);

#endif
