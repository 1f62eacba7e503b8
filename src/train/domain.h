/* domain.h - what a run is on: text, or images. Internal to this folder.
 *
 * A domain is a constant cab_domain in files of its own (domain_text.c, domain_images.c), found by cab_domain_of().
 * Stages, steps, snapshots, logs and the loop use this interface and know no domain. open() makes `data`, which the
 * other functions get and close() frees. `data` holds what the setup names; the models must outlive it.
 *
 * A unit is what a run counts: a token of text, or an image. Losses are in nats per unit. */
#ifndef CAB_TRAIN_DOMAIN_H
#define CAB_TRAIN_DOMAIN_H

#include "base/file.h"
#include "distill/objective.h"
#include "distill/recipe_domain.h"

typedef struct cab_domain_setup {
    const cab_recipe *recipe;
    cab_backend *backend;
    cab_communicator *communicator; /* ranks that share the work; NULL: none */
    cab_precision precision;
    const cab_model *teacher;
    bool anew; /* what the run's directory holds does not count */
} cab_domain_setup;

struct cab_input_list;
struct cab_task_set;

/* A sample is what one row of a batch holds: a sequence of `length` tokens, or one image. */
typedef struct cab_domain_sizes {
    int64_t length; /* units of a sample */
    uint64_t pass;  /* units of the training data */
    uint64_t eval;  /* units of the validation data */
    uint64_t part;  /* units that a periodic evaluation looks at */
} cab_domain_sizes;

/* How good a model is on the validation data. What was not measured is NaN. */
typedef struct cab_run_evaluation {
    double loss, kl, agreement;                    /* per unit; kl and agreement NaN without a teacher */
    double perplexity;                             /* of text */
    double top1, top5, teacher_top1, teacher_top5; /* of images, 0 to 1 */
    uint64_t tokens;                               /* units that were looked at */
} cab_run_evaluation;

enum { CAB_FOUND_MAX = 96 }; /* bytes of what an evaluation found, in words */

/* A graph that evaluates a model, beside a teacher if there is one. */
typedef struct cab_evaluator cab_evaluator;

typedef struct cab_domain {
    const cab_recipe_domain *recipes; /* the domain's name, its unit, and what recipes on it have of their own */
    const char *smaller;              /* the recipe key that makes a sample smaller, for errors about memory */
    bool teacher_alone;               /* evaluating a student does not score the teacher: evaluate that by itself */

    /* Opens training and validation data, and sets the sizes. Data that do not fit the teacher are refused. */
    cab_status (*open)(const cab_domain_setup *setup, void **data, cab_domain_sizes *sizes);
    void (*close)(void *data);
    /* Adds every file that was opened to the list, with a fingerprint of its content. */
    cab_status (*inputs)(const void *data, struct cab_input_list *list);
    /* A new student of the recipe's sizes, or the one that student.path names, checked against teacher and data. The
     * caller frees it. */
    cab_status (*student)(void *data, cab_model **student);
    /* Writes what of the student was found out, and a run that goes on is to read, into the recipe's `out`. NULL: nothing is. */
    cab_status (*record)(const void *data, const char *out);
    /* Fills the parameters of a new student. */
    cab_status (*initialise)(void *data, cab_model *student, const int *layer_map);
    /* Called before the first batch: makes buffers and starts threads that load. A step has `batch` samples, of which
     * `micro_batch` are computed at once, over all ranks; their number divides micro_batch. */
    cab_status (*start)(void *data, const cab_model *student, int64_t batch, int64_t micro_batch);

    /* Makes ready what the teacher says of the first so many training sequences, where the recipe wants that kept. NULL: nothing is. */
    cab_status (*teach)(void *data, uint64_t sequences);

    /* Sets those options of a stage's objective that depend on the data. The terms are set before. */
    void (*objective)(const void *data, cab_objective_options *options);
    /* Gives this rank's rows of micro-batch `index` of a step; its contents depend on step and index alone. `data` owns the arrays, which
     * hold until the next call. */
    cab_status (*batch)(void *data, uint64_t step, int index, cab_batch *batch);

    /* Makes an evaluator of `model`, beside `teacher` or, if that is NULL, by itself. The values of both models'
     * parameters may change between evaluations. evaluator_free() frees it. */
    cab_status (*evaluator)(void *data, const cab_model *model, const cab_model *teacher, cab_evaluator **evaluator);
    /* Evaluates on about `most` units of the validation data; 0: on all. Ranks share the work, and all get the result. */
    cab_status (*evaluate)(cab_evaluator *evaluator, uint64_t most, cab_run_evaluation *evaluation);
    void (*evaluator_free)(cab_evaluator *evaluator);

    /* Makes the set of the recipe's eval.tasks for the run's models. NULL: the domain has no tasks. */
    cab_status (*tasks)(const void *data, const cab_model *student, struct cab_task_set **set);

    /* Logs a line about the student and lines about the data. The whole run has `steps` steps. */
    void (*describe)(const void *data, const cab_model *student, uint64_t steps);
    /* Writes what an evaluation found to out: "perplexity 8.12". */
    void (*found)(const cab_run_evaluation *evaluation, char *out, size_t size);
    /* Whether a model that knows nothing would do better; writes the numbers of both to out. */
    bool (*by_chance)(const void *data, const cab_run_evaluation *evaluation, char *out, size_t size);
    /* Writes the end of the progress line to out: `done` units, `per_second` of them a second. */
    void (*progress)(double done, double per_second, char *out, size_t size);
    /* Writes the student into a directory, with everything that its use needs (tokenizer, class map, preprocessing). */
    cab_status (*export_student)(const void *data, const cab_model *student, const char *directory);
    /* Shows what an exported student makes of a few inputs. Text: sets *sample to a text that the student wrote, owned by
     * the caller. Images: writes predictions.json into the recipe's `out`, and sets *sample to NULL. */
    cab_status (*show)(const void *data, cab_model *student, char **sample);

    const struct cab_compare_kind *compare; /* how two of its models are compared */

    /* What follows is for timing a step without data. The names of the terms of distillation without alignment,
     * NULL-terminated. */
    const char *const *distillation;
    /* Sets *length to the units of a sample if `wanted` are asked for; 0: as many as the teacher takes. */
    cab_status (*length)(const cab_model *teacher, int64_t wanted, int64_t *length);
    /* Makes a random micro-batch of `batch` samples of `length` units: inputs and labels, both arrays owned by the
     * caller. */
    cab_status (*draw)(const cab_model *student, int64_t batch, int64_t length, void **input, int32_t **labels);
    /* Writes the size of a sample to out: "64 tokens", "224 px". */
    void (*sample_size)(const cab_model *student, int64_t length, char *out, size_t size);
} cab_domain;

extern const cab_domain cab_domain_text, cab_domain_images;

/* The domain that a model reads; and the one that a recipe's student reads. */
const cab_domain *cab_domain_of(const cab_model *model);
const cab_domain *cab_domain_of_recipe(const cab_recipe *recipe);

/* Sets out to the directory of caches: what the recipe says, else $XDG_CACHE_HOME/cab, else <out>/../cache. */
cab_status cab_domain_cache(const cab_recipe *recipe, char out[CAB_PATH_MAX]);

#endif
