/* domain.h - what a run is on: text, or images. Internal to this folder.
 *
 * A domain is a constant cab_domain in files of its own (domain_text.c, domain_images.c), found by cab_domain_of(). Stages, steps,
 * snapshots, logs and the loop are written against this interface and know no domain. The functions get `data`, which open()
 * made and close() frees; it holds the setup, and the models outlive it. */
#ifndef CAB_TRAIN_DOMAIN_H
#define CAB_TRAIN_DOMAIN_H

#include "base/file.h"
#include "distill/objective.h"
#include "distill/recipe_domain.h"

typedef struct cab_domain_setup {
    const cab_recipe *recipe;
    cab_backend *backend;
    cab_precision precision;
    const cab_model *teacher;
} cab_domain_setup;

/* A sample has `length` units: a sequence its tokens, an image one. */
typedef struct cab_domain_sizes {
    int64_t length;
    uint64_t pass; /* units of the training data */
} cab_domain_sizes;

/* How good a model is on the validation data. What was not measured is NaN. */
typedef struct cab_run_evaluation {
    double loss, kl, agreement;                    /* per unit; kl and agreement NaN without a teacher */
    double perplexity;                             /* of text */
    double top1, top5, teacher_top1, teacher_top5; /* of images */
    uint64_t tokens;                               /* units that were looked at */
} cab_run_evaluation;

/* A model, and what it is compared with, recorded. */
typedef struct cab_evaluator cab_evaluator;

typedef struct cab_domain {
    const cab_recipe_domain *recipes; /* its name, its unit, and what recipes on it have of their own */
    const char *smaller;              /* the key of a recipe that makes a sample smaller */
    uint64_t periodic;                /* units that a periodic evaluation looks at, where the recipe does not say */
    bool teacher_alone; /* an evaluation does not score the teacher beside the student; it is evaluated by itself */

    /* Training and validation data. What does not fit the teacher is refused. */
    cab_status (*open)(const cab_domain_setup *setup, void **data, cab_domain_sizes *sizes);
    void (*close)(void *data);
    /* A student of the recipe's sizes, or the one that it names, checked against teacher and data. */
    cab_status (*student)(void *data, cab_model **student);
    /* Fills the parameters of a new student. */
    cab_status (*initialise)(void *data, cab_model *student, const int *layer_map);
    /* Before the first batch: buffers, threads that load. batch: samples per step, micro_batch of these at once. */
    cab_status (*start)(void *data, const cab_model *student, int64_t batch, int64_t micro_batch);

    /* Sets the options of a stage's objective that depend on the data; its terms are set. */
    void (*objective)(const void *data, cab_objective_options *options);
    /* Micro-batch `index` of a step, a function of the two alone. The arrays are the data's, until the next call. */
    cab_status (*batch)(void *data, uint64_t step, int index, cab_batch *batch);

    /* Of `model`, beside `teacher` (NULL: by itself), which both may change their values between runs. */
    cab_status (*evaluator)(void *data, const cab_model *model, const cab_model *teacher, cab_evaluator **evaluator);
    /* most 0: all of the validation data; else about so many units of it. */
    cab_status (*evaluate)(cab_evaluator *evaluator, uint64_t most, cab_run_evaluation *evaluation);
    void (*evaluator_free)(cab_evaluator *evaluator);

    /* A line about the student and lines about the data; steps: of the whole run. */
    void (*describe)(const void *data, const cab_model *student, uint64_t steps);
    /* The end of the progress line: `done` units, so many per second. */
    void (*progress)(double done, double per_second, char *out, size_t size);
    /* The student with all that it needs to be used, into a directory. */
    cab_status (*export_student)(const void *data, const cab_model *student, const char *directory);
    /* What an exported student makes of a few inputs, beside the run. *sample: a text of its own, owned by the caller, or NULL. */
    cab_status (*show)(const void *data, cab_model *student, char **sample);

    const struct cab_compare_kind *compare; /* how two of its models are compared */

    /* For timing a step without data. The terms of distillation without alignment, NULL-terminated. */
    const char *const *distillation;
    /* Units of a sample where the teacher is asked for `wanted`; 0: its own length. */
    cab_status (*length)(const cab_model *teacher, int64_t wanted, int64_t *length);
    /* A random micro-batch of samples of `length`: input is *input, both arrays the caller's. */
    cab_status (*draw)(const cab_model *student, int64_t batch, int64_t length, void **input, int32_t **labels);
    /* "64 tokens", "224 px" */
    void (*sample_size)(const cab_model *student, int64_t length, char *out, size_t size);
} cab_domain;

extern const cab_domain cab_domain_text, cab_domain_images;

/* The domain that a model, or a recipe's student, reads. */
const cab_domain *cab_domain_of(const cab_model *model);
const cab_domain *cab_domain_of_recipe(const cab_recipe *recipe);

/* Where caches lie: as the recipe says, else $XDG_CACHE_HOME/cab, else <out>/../cache. */
cab_status cab_domain_cache(const cab_recipe *recipe, char out[CAB_PATH_MAX]);

#endif
