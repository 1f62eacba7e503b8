/* tasks_internal.h - what a set of tasks holds, for the files that fill it. Internal to tasks.c and recall.c. */
#ifndef CAB_TRAIN_TASKS_INTERNAL_H
#define CAB_TRAIN_TASKS_INTERNAL_H

#include "data/buffer.h"
#include "train/tasks.h"

/* Tokens begin .. begin + count of the set's pool; those from `context` on, counted from begin, are scored. */
typedef struct cab_task_request {
    size_t begin, count, context;
    size_t characters; /* of the choice, without space in front */
} cab_task_request;

/* Requests first .. first + n. */
typedef struct cab_task_question {
    size_t first;
    unsigned n, label;
} cab_task_question;

enum { CAB_MEASURE_CHOICE = 1, CAB_MEASURE_LENGTHS = 2, CAB_MEASURE_WORD = 4, CAB_MEASURE_TOKENS = 8 };

/* One line of the results. */
typedef struct cab_task_part {
    char name[64];
    unsigned measures; /* CAB_MEASURE_...; TOKENS: as WORD, of single tokens */
    size_t first, n;   /* questions */
} cab_task_part;

struct cab_task_set {
    cab_ids pool;
    cab_task_request *requests;
    size_t n_requests, requests_capacity;
    cab_task_question *questions;
    size_t n_questions, questions_capacity;
    cab_task_part *parts;
    size_t n_parts, parts_capacity;
};

/* A new part without questions, which get into it until the next one begins. */
cab_status cab_task_part_begin(cab_task_set *set, const char *name, unsigned measures);
cab_status cab_task_question_begin(cab_task_set *set, unsigned label);
/* A request of the last question: `context` tokens, then the scored ones. */
cab_status cab_task_request_add(cab_task_set *set, const int32_t *ids, size_t count, size_t context, size_t characters);

/* The parts of recall. */
cab_status cab_recall_add(const cab_task_options *options, cab_task_set *set);

#endif
