/* run.h - one distillation run: everything it opens, and where it stands. Internal to this folder.
 *
 * A run directory holds
 *   recipe.yaml               the resolved recipe
 *   log.jsonl                 a line per step and per evaluation (log.h)
 *   checkpoint.safetensors    all state, replaced atomically (snapshot.h); gone once the run has ended
 *   student/                  the exported student; of images with preprocessor_config.json and classes.tsv
 *   predictions.json          of images: what the student makes of a few (predictions.h)
 *   result.json               what it reached; its presence means the run has ended */
#ifndef CAB_TRAIN_RUN_H
#define CAB_TRAIN_RUN_H

#include "train/domain.h"
#include "train/log.h"
#include "train/optimizer.h"

/* What an optimizer step found. */
typedef struct cab_run_found {
    uint64_t step;          /* optimizer steps done with it */
    cab_term_values values; /* means over its micro-batches */
    cab_term_weights weights;
    double lr, norm;
} cab_run_found;

typedef struct cab_run {
    const cab_recipe *recipe;
    cab_communicator *communicator; /* the ranks that carry it out; NULL: this process alone */
    bool anew;                      /* what the directory holds of an earlier run does not count */
    char *inputs;                   /* what it was given, by content (inputs.h) */
    cab_backend *backend;
    cab_precision precision;
    cab_model *teacher, *student;
    cab_term_set terms; /* what the loss terms keep of this pair: the bridge, its parameters */
    int *layer_map;
    float **averages; /* EMA by student parameter; NULL without */
    const cab_domain *domain;
    void *data;                          /* the domain's */
    cab_domain_sizes sizes;              /* of it */
    int64_t seq_len, batch, micro_batch; /* images: seq_len 1 */
    int64_t rank_batch;                  /* rows of a micro-batch that are on this rank */

    uint64_t *stage_steps;
    uint64_t total_steps;
    uint64_t step;  /* optimizer steps done, those on their way included */
    double seconds; /* of training and evaluation, earlier sittings included */
    double train_seconds;
    cab_run_spent spent;            /* of this sitting */
    double eval_seconds, eval_last; /* of this sitting's evaluations before the end: of all, and of the last one */

    cab_objective *objective; /* of the current stage */
    double peak;              /* bytes that its plan needs, with parameters and optimizer */
    cab_optimizer *optimizer;
    cab_run_found flight[2];     /* steps on their way, the older one first */
    int flying, landed;          /* how many; micro-batches of theirs whose values are in */
    bool ahead;                  /* the next micro-batch is with the objective already */
    cab_portion portion;         /* of it */
    cab_evaluator *evaluator;    /* of the student beside the teacher; made on first use */
    struct cab_run_tasks *tasks; /* of eval.tasks; NULL: none */
    struct cab_saver *saver;     /* a checkpoint that is being written beside training; NULL: none */
    uint64_t saved_step;         /* of the last good checkpoint; 0: there is none */
    cab_run_log log;
} cab_run;

/* Opens teacher and data; makes and initialises the student and the bridge. run->communicator and run->anew are set before. */
cab_status cab_run_open(const cab_recipe *recipe, cab_run *run);
void cab_run_close(cab_run *run);

/* The stage that optimizer step `step` belongs to, and its first step. */
unsigned cab_run_stage(const cab_run *run, uint64_t step, uint64_t *first);
/* Freezes what the stage freezes, records its graph and optimizer; refuses, with the plan, what memory cannot hold. */
cab_status cab_run_enter_stage(cab_run *run, unsigned stage);
/* Prints the plan of memory: parameters, optimizer, activations, peak. */
void cab_run_print_plan(const cab_run *run, const cab_stage *stage, const cab_plan *plan);

/* The stage's objective, planned, with as few layers recomputed as train.memory asks for (fit.c). */
cab_status cab_run_fit(cab_run *run, cab_objective_options *options, cab_plan *plan);

/* Asks for one optimizer step of the current stage; two at most may be on their way. */
cab_status cab_run_begin_step(cab_run *run);
/* Waits for the oldest step that is on its way, and says what it found. CAB_ENUMERIC: a term or the gradient's norm was not finite.
 * run->step is then that of the last good step. Its update has not been made; that of a step behind it may have been, so the state is of no
 * use for a checkpoint. */
cab_status cab_run_end_step(cab_run *run, cab_run_found *found);
/* Steps on their way that a loop leaves there before it asks for another: on a device one, so that it never waits for the host. */
int cab_run_behind(const cab_run *run);
/* One step, begun and ended: `values` are means over its micro-batches. */
cab_status cab_run_advance(cab_run *run, cab_term_values *values, cab_term_weights *weights, double *lr, double *norm);

/* Validation with the weights as they are exported (the EMA if there is one). max_tokens 0: all. */
cab_status cab_run_evaluate(cab_run *run, uint64_t max_tokens, cab_run_evaluation *out);
/* The recipe's tasks, opened with the run so that what is wrong with them shows at once. */
cab_status cab_run_tasks_open(cab_run *run);
void cab_run_tasks_close(cab_run *run);
/* Asks the student, with the weights as they are exported; the teacher has been asked the same questions once. *found is what
 * cab_task_results_json() makes of both, for the caller to put; NULL without tasks. all: every question, not eval.items of each. */
cab_status cab_run_ask(cab_run *run, bool all, json_object **found);

/* Exchanges the student's weights with their averages (a second call takes it back). No effect without EMA. */
cab_status cab_run_swap_averages(cab_run *run);

#endif
