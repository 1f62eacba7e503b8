/* eval_writing.h - cab eval --task generation: what a model writes by itself, its teacher's own beside it. */
#ifndef CAB_CLI_EVAL_WRITING_H
#define CAB_CLI_EVAL_WRITING_H

#include "cli/results.h"
#include "train/writing.h"

#define CLI_TASK_GENERATION "generation"

typedef struct cli_writing_options {
    cab_writing_options writing; /* `start` is found */
    const char *model, *teacher;
    cab_precision precision;
    const char *device;
    bool json;
} cli_writing_options;

cab_status cli_eval_writing(const cli_writing_options *options, const cli_results *results);

#endif
