/* inspect.c - cab inspect: what a model directory holds and whether it can be a teacher or a student. */
#include "models/inspect.h"

#include "cli/command.h"
#include "cli/find.h"

#define INSPECT_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                       \
    BOOL(tensors, 't', "list every tensor: name, type, shape")                                                         \
    BOOL(json, 'j', "print one JSON object")

struct inspect_options {
    CAB_FIELDS(INSPECT_OPTIONS)
};
CAB_FLAG_TABLE(inspect_table, struct inspect_options, INSPECT_OPTIONS)

static cab_status run_inspect(const void *given, const cab_list *operands)
{
    const struct inspect_options *options = given;
    char directory[CAB_PATH_MAX];
    CAB_TRY(cli_find_model(operands->items[0], directory));
    return cab_inspect(directory, stdout, options->json, options->tensors);
}

static const cli_example examples[] = {{"cab inspect examples/tales/teacher", "architecture, sizes, parameters"},
                                       {"cab inspect runs/tales/student --tensors", "with every tensor"},
                                       {"cab inspect gpt2 --json", "for a script"},
                                       {0}};

const cli_command cli_inspect = {
    .name = "inspect",
    .summary = "show a model's architecture, sizes and tensors",
    .synopsis = "MODEL",
    .description = "Prints the architecture, the sizes and the number of parameters of the model in directory MODEL, "
                   "or the student of the run there, and "
                   "whether it can be a teacher or a student; where it cannot, the reason.",
    .examples = examples,
    .options = inspect_table,
    .options_size = sizeof(struct inspect_options),
    .operands_min = 1,
    .operands_max = 1,
    .run = run_inspect,
};
