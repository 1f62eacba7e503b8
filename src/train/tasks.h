/* tasks.h - how often a model answers right: tasks of files (data/task.h) and recall, whose sequences are drawn.
 *
 *   tasks.c     what is asked becomes requests, scores become numbers     recall.c    key-value retrieval and induction
 *
 * A set is encoded once, and then asked of any model with that tokenizer: a student at any moment, its teacher beside it. */
#ifndef CAB_TRAIN_TASKS_H
#define CAB_TRAIN_TASKS_H

#include "base/json.h"
#include "data/tokenizer.h"
#include "models/model.h"

#include <stdio.h>

#define CAB_TASK_RECALL "recall"

typedef struct cab_task_options {
    const char *const *tasks; /* YAML files, or CAB_TASK_RECALL */
    size_t count;
    const char *const *folders; /* that hold the tasks' data */
    size_t folders_count;
    uint64_t items;                 /* of each; 0: all, of recall 100 */
    const cab_tokenizer *tokenizer; /* not kept */
    const char *directory;          /* the model's that it is of */
    int64_t vocab_size;
    int64_t longest; /* tokens that every model to be asked takes; of recall what is longer is left out */
} cab_task_options;

/* A share between 0 and 1 with its standard error, sqrt(s^2 / n) over the items; NaN: not measured. */
typedef struct cab_share {
    double value, error;
} cab_share;

typedef struct cab_task_result {
    const char *name; /* of the set: "piqa", "recall, 16 pairs" */
    uint64_t items;
    cab_share accuracy;   /* the right choice is the likeliest */
    cab_share normalised; /* likewise, log-probabilities divided by the choices' lengths in characters */
    cab_share
        last_word; /* every token of the right one is the likeliest of all words; of induction the share of such tokens */
    double perplexity; /* of the right one, per item, exp(mean of -log p), where last_word is measured; else NaN */
} cab_task_result;

typedef struct cab_task_set cab_task_set;

/* CAB_EFORMAT, with file and line, for a task or an item that is not what it should be. */
cab_status cab_task_set_open(const cab_task_options *options, cab_task_set **set);
void cab_task_set_free(cab_task_set *set);
/* Results that a run gives. */
size_t cab_task_set_count(const cab_task_set *set);
/* Asks the model the first `most` questions of each (0: all): results[cab_task_set_count()]. items, if not NULL, gets a JSON object a line for every item, in order:
 * "model", "task", "item", "label", "chosen", "logp" of every choice, and "hits" of "tokens". */
cab_status cab_task_set_run(const cab_task_set *set, const cab_model *model, uint64_t most, FILE *items,
                            cab_task_result *results);
/* An array of an object per task: "task", "items", "accuracy", "accuracy_error" ... as far as they were measured, and with a teacher's
 * results (NULL: none) these under "teacher". NULL without memory. */
json_object *cab_task_results_json(const cab_task_result *results, const cab_task_result *teacher, size_t count);
/* The longest that all of these models (NULL: left out) take; INT64_MAX where none has a limit. */
int64_t cab_tasks_longest(const cab_model *model, const cab_model *teacher);

#endif
