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

#include "data/dataset.h"
#include "data/image_loader.h"
#include "distill/objective.h"
#include "train/evaluate_images.h"
#include "train/log.h"
#include "train/optimizer.h"

/* What a run on images has instead of tokenizer and datasets (run_images.h). */
typedef struct cab_run_images {
    cab_image_set *train, *eval, *part; /* part: the share of eval that periodic evaluations look at; NULL: all */
    cab_image_transform transform;
    int32_t *map;       /* by label: the teacher's class; NULL: the label itself */
    bool compared;      /* the teacher's classes are those of the data: KL and agreement mean something */
    cab_params *head;   /* the teacher's rows of the data's classes; NULL: the teacher's own head serves */
    cab_head_side side; /* of these */
    cab_image_loader *loader;
    cab_image_evaluator *evaluator, *part_evaluator; /* made on first use */
    bool mixed;                                      /* labels are distributions: mixing or smoothing is on */
    float *pixels, *targets;                         /* of one optimizer step; targets where they are mixed */
    int32_t *labels;
    uint64_t loaded; /* 1 + the step whose batch these hold; 0: none */
    bool ahead;      /* the next micro-batch is with the objective already */
} cab_run_images;

typedef struct cab_run {
    const struct cab_recipe *recipe;
    char *inputs; /* what it was given, by content (inputs.h) */
    cab_backend *backend;
    cab_precision precision;
    cab_model *teacher, *student;
    cab_term_set terms; /* what the loss terms keep of this pair: the bridge, its parameters */
    int *layer_map;
    float **averages; /* EMA by student parameter; NULL without */
    cab_tokenizer *tokenizer;
    cab_dataset *train, *eval; /* eval may be NULL */
    bool reads_images;
    cab_run_images images;
    int64_t seq_len, batch, micro_batch; /* images: seq_len 1 */

    uint64_t *stage_steps;
    uint64_t total_steps;
    uint64_t step;  /* optimizer steps done */
    double seconds; /* of training and evaluation, earlier sittings included */
    double train_seconds;
    double eval_seconds, eval_last; /* of this sitting's evaluations before the end: of all, and of the last one */

    cab_objective *objective; /* of the current stage */
    double peak;              /* bytes that its plan needs, with parameters and optimizer */
    cab_optimizer *optimizer;
    cab_objective *evaluation;
    int32_t *ids, *labels, *valid; /* one micro-batch */
    cab_run_log log;
} cab_run;

/* Opens teacher, tokenizer, data; makes and initialises the student and the bridge. */
cab_status cab_run_open(const struct cab_recipe *recipe, cab_run *run);
void cab_run_close(cab_run *run);
/* Where the run's caches lie: as the recipe says, else $XDG_CACHE_HOME/cab, else <out>/../cache. */
cab_status cab_run_cache_directory(const struct cab_recipe *recipe, char out[CAB_PATH_MAX]);

/* The stage that optimizer step `step` belongs to, and its first step. */
unsigned cab_run_stage(const cab_run *run, uint64_t step, uint64_t *first);
/* Freezes what the stage freezes, records its graph and optimizer; refuses, with the plan, what memory cannot hold. */
cab_status cab_run_enter_stage(cab_run *run, unsigned stage);
/* Prints the plan of memory: parameters, optimizer, activations, peak. */
void cab_run_print_plan(const cab_run *run, const cab_stage *stage, const cab_plan *plan);

/* The stage's objective, planned, with as few layers recomputed as train.memory asks for (fit.c). */
cab_status cab_run_fit(cab_run *run, cab_objective_options *options, cab_plan *plan);

/* One optimizer step of the current stage: `values` are means over its micro-batches. */
cab_status cab_run_advance(cab_run *run, cab_term_values *values, cab_term_weights *weights, double *lr, double *norm);

/* Validation with the weights as they are exported (the EMA if there is one). max_tokens 0: all. */
typedef struct cab_run_evaluation {
    double loss, kl, agreement;                    /* per token or image; kl and agreement NaN without a teacher */
    double top1, top5, teacher_top1, teacher_top5; /* of images; else NaN */
    uint64_t tokens;                               /* or images */
} cab_run_evaluation;
cab_status cab_run_evaluate(cab_run *run, uint64_t max_tokens, cab_run_evaluation *out);
/* Tokens, or images, of an evaluation that is not the last one. */
uint64_t cab_run_eval_size(const cab_run *run);
/* Exchanges the student's weights with their averages (a second call takes it back). No effect without EMA. */
cab_status cab_run_swap_averages(cab_run *run);

#endif
