/* eval_tasks.h - cab eval --task: a table of tasks, a teacher's beside it. */
#ifndef CAB_CLI_EVAL_TASKS_H
#define CAB_CLI_EVAL_TASKS_H

#include "base/options.h"
#include "cli/results.h"

typedef struct cli_task_options {
    const char *tasks; /* names or files with commas between them */
    const cab_list *folders;
    uint64_t items;        /* 0: all */
    const char *log_items; /* "": none */
    const char *model, *teacher;
    cab_precision precision;
    const char *device;
    bool json;
} cli_task_options;

cab_status cli_eval_tasks(const cli_task_options *options, const cli_results *results);

#endif
