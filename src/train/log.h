/* log.h - what a run leaves behind for its reader: <run>/log.jsonl, <run>/result.json, <run>/recipe.yaml.
 *
 * log.jsonl: one JSON object per line, written and flushed as it happens.
 *   a training step   {"step":120,"tokens":61440,"stage":"distil","loss":3.1,"lr":0.001,
 *                      "grad_norm":0.7,"tokens_per_s":51200,"seconds":12.5}
 *   an evaluation     {"eval":true,"step":120,"tokens":61440,"loss":2.8,"perplexity":16.4,"kl":0.7,"agreement":0.61,
 *                      "seconds":13.0}
 * of a run on images  "images" stands beside "tokens", which are the same number then, "images_per_s" for "tokens_per_s", and
 *                     an evaluation has "top1" and "top5", between 0 and 1, for "perplexity"
 * A step has every loss term (distill/terms.h) under its name after "loss", unweighted.
 * "seconds" counts from the start of the run. A number that is not finite (a loss term the stage lacks) is left out.
 *
 * result.json, written once at the end: the fields of cab_result under their names, and those of cab_run_summary. */
#ifndef CAB_TRAIN_LOG_H
#define CAB_TRAIN_LOG_H

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "distill/terms.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define CAB_RUN_LOG "log.jsonl"
#define CAB_RUN_RESULT "result.json"
#define CAB_RUN_RECIPE "recipe.yaml"
#define CAB_RUN_CHECKPOINT "checkpoint.safetensors"

/* NAN: the stage has no such term. */
typedef struct cab_run_step {
    uint64_t step, tokens;
    const char *stage;
    double loss, lr, grad_norm, tokens_per_s, seconds;
    double terms[CAB_TERM_COUNT]; /* unweighted */
    const char *unit;             /* what tokens are: "tokens", or another word, under which they then stand too */
} cab_run_step;

typedef struct cab_run_eval {
    uint64_t step, tokens;
    double loss, perplexity, kl, agreement, top1, top5, seconds;
    const char *unit;   /* as of a step */
    json_object *tasks; /* as "tasks"; NULL: left out. The caller's */
} cab_run_eval;

typedef struct cab_run_log {
    FILE *stream;
    char path[CAB_PATH_MAX];
} cab_run_log;

/* Opens <directory>/log.jsonl for a run that goes on after `step`: lines of later steps, and a line cut short by a
 * crash, are dropped (the file is replaced atomically), so that a resumed run logs what an unbroken one does. 0: anew. last: no
 * step follows, only the evaluation at the end, which is dropped as well if it is there. */
cab_status cab_run_log_open(cab_run_log *log, const char *directory, uint64_t step, bool last);
cab_status cab_run_log_step(cab_run_log *log, const cab_run_step *step);
cab_status cab_run_log_eval(cab_run_log *log, const cab_run_eval *eval);
/* Accepts a log that was never opened, when zeroed. */
void cab_run_log_close(cab_run_log *log);

/* Where the time of a sitting's steps went, in seconds. The rest of `steps` is the host's own work. */
typedef struct cab_run_spent {
    double steps;  /* all of it */
    double loader; /* waiting for data */
    double device; /* waiting for the device; on the processor, computing */
} cab_run_spent;

/* Strings may be NULL: left out. */
typedef struct cab_run_summary {
    cab_result result;
    const char *method, *teacher, *student, *sample; /* paths as the recipe has them; sample: generated text */
    double fraction, teacher_perplexity;             /* teacher_perplexity: NAN when not measured */
    double teacher_top1, teacher_top5;               /* NAN: not measured */
    uint64_t seed, parameters;                       /* of the student */
    uint64_t teacher_parameters;                     /* 0: left out */
    cab_run_spent spent; /* of the last sitting; its shares stand in "time"; none: left out */
    const char *unit;    /* as of a step */
    json_object *tasks;  /* as of an evaluation */
} cab_run_summary;

/* Writes <directory>/result.json atomically. */
cab_status cab_run_summary_write(const char *directory, const cab_run_summary *summary);

#endif
