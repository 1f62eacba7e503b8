/* command.h - a subcommand is one description: its options, its words and what it runs. From it come the parser, --help,
 * the manual page and the shell completion. */
#ifndef CAB_CLI_COMMAND_H
#define CAB_CLI_COMMAND_H

#include "base/error.h"
#include "base/options.h"
#include "distill/recipe.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct cli_example {
    const char *command, *text;
} cli_example;

typedef struct cli_command {
    const char *name;
    const char *summary;         /* one line, no full stop */
    const char *synopsis;        /* what follows the options: "[RECIPE]", "MODEL" */
    const char *description;     /* paragraphs, separated by an empty line */
    const cli_example *examples; /* ends with a NULL command */
    cab_option_table (*options)(void);
    size_t options_size; /* of the struct that the table describes */
    unsigned operands_min, operands_max;
    /* Whether a word behind an item of `list` ("--train a.txt b") is an operand, where it may be either; NULL: it is. */
    bool (*is_operand)(const cab_option *list, const char *word);
    bool hidden; /* neither in help nor in completion */
    cab_status (*run)(const void *options, const cab_list *operands);
    /* Further sections of the manual page, in roff; NULL: none. */
    void (*more_manual)(FILE *out);
} cli_command;

extern const cli_command cli_bench, cli_classify, cli_compare, cli_completion, cli_distill, cli_eval, cli_export,
    cli_generate, cli_help, cli_inspect, cli_man, cli_recipe, cli_report, cli_sample, cli_subset, cli_teach,
    cli_version;

/* Every subcommand in the order of the help text, NULL-terminated. */
const cli_command *const *cli_commands(void);
/* CAB_EARG with the nearest name when there is no such subcommand. */
cab_status cli_command_find(const char *name, const cli_command **command);

/* Reads argv[0..argc) as GNU programs do: options anywhere, "--name=value", "--name value", "-n value", "-nvalue",
 * bundled letters, "--" ends options. *help is set by --help or -h and then nothing else is checked. */
cab_status cli_arguments(const cli_command *command, int argc, char **argv, void *options, cab_list *operands,
                         bool *help);
void cli_operands_free(cab_list *operands);

/* "max-tokens" for the row max_tokens; `out` holds at least 64 bytes. */
const char *cli_flag_name(const cab_option *option, char *out);
/* "--max-tokens=N" or "--json"; `out` holds at least 96 bytes. */
const char *cli_flag_form(const cab_option *option, char *out);

/* --help of the tool (command NULL) or of one subcommand. */
void cli_print_help(const cli_command *command, FILE *out);

/* Prints the words of `text` and a line end, in lines of at most 80 columns, and of a narrower terminal's. The cursor stands at `column`,
 * later lines start at `indent`. */
void cli_print_wrapped(FILE *out, const char *text, int column, int indent);

/* A row of a table, the second column wrapped; what does not fit into the first has a line of its own. */
void cli_print_row(FILE *out, const char *first, const char *second, int column);

/* Where the second column of a table starts whose first has `wide` columns: further left on a terminal that is too narrow. */
int cli_second_column(FILE *out, int wide);

/* Text for a manual page, with what roff would take for something else escaped. */
void cli_put_roff(FILE *out, const char *text);

/* The same failure as cab_fail(), for results that could not be written: checks and flushes stdout. */
cab_status cli_flush_results(void);

/* Where the token cache is: `given` unless it is "", or in the user's cache directory; out[CAB_PATH_MAX]. */
cab_status cli_cache_directory(const char *given, char *out);

/* Applies "key=value", the form of --set. */
cab_status cli_recipe_set(cab_recipe *recipe, const char *assignment);

#endif
