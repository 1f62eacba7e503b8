/* run.h - one distillation run: everything it opens, and where it stands. Internal to this folder.
 *
 * A run directory holds
 *   recipe.yaml               the resolved recipe
 *   log.jsonl                 a line per step and per evaluation (log.h)
 *   checkpoint.safetensors    all state, replaced atomically (snapshot.h); gone once the run has ended
 *   student/                  the exported student
 *   result.json               what it reached; its presence means the run has ended */
#ifndef CAB_TRAIN_RUN_H
#define CAB_TRAIN_RUN_H

#include "data/dataset.h"
#include "distill/objective.h"
#include "train/log.h"
#include "train/optimizer.h"

typedef struct cab_run {
    const struct cab_recipe *recipe;
    cab_backend *backend;
    cab_precision precision;
    cab_model *teacher, *student;
    cab_params *bridge_params;
    cab_bridge *bridge; /* NULL when no stage aligns */
    int *layer_map;
    float **averages; /* EMA by student parameter; NULL without */
    cab_tokenizer *tokenizer;
    cab_dataset *train, *eval; /* eval may be NULL */
    int64_t seq_len, batch, micro_batch;

    uint64_t *stage_steps;
    uint64_t total_steps;
    uint64_t step;  /* optimizer steps done */
    double seconds; /* of training and evaluation, earlier sittings included */
    double train_seconds;

    cab_objective *objective; /* of the current stage */
    cab_optimizer *optimizer;
    cab_objective *evaluation;
    int32_t *ids, *labels, *valid; /* one micro-batch */
    cab_run_log log;
} cab_run;

/* Opens teacher, tokenizer, data; makes and initialises the student and the bridge. */
cab_status cab_run_open(const struct cab_recipe *recipe, cab_run *run);
void cab_run_close(cab_run *run);

/* The stage that optimizer step `step` belongs to, and its first step. */
unsigned cab_run_stage(const cab_run *run, uint64_t step, uint64_t *first);
/* Freezes what the stage freezes, records its graph and optimizer; refuses, with the plan, what memory cannot hold. */
cab_status cab_run_enter_stage(cab_run *run, unsigned stage);
/* Prints the plan of memory: parameters, optimizer, activations, peak. */
void cab_run_print_plan(const cab_run *run, const cab_stage *stage, const cab_plan *plan);

/* One optimizer step of the current stage: `values` are means over its micro-batches. */
cab_status cab_run_advance(cab_run *run, cab_term_values *values, cab_term_weights *weights, double *lr, double *norm);

/* Validation with the weights as they are exported (the EMA if there is one). max_tokens 0: all. */
typedef struct cab_run_evaluation {
    double loss, kl, agreement; /* per token; kl and agreement NaN without a teacher */
    uint64_t tokens;
} cab_run_evaluation;
cab_status cab_run_evaluate(cab_run *run, uint64_t max_tokens, cab_run_evaluation *out);
/* Exchanges the student's weights with their averages (a second call takes it back). No effect without EMA. */
cab_status cab_run_swap_averages(cab_run *run);

#endif
