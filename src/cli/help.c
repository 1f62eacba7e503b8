/* help.c - the help text of the tool and of each subcommand, wrapped to 80 columns or a narrower terminal. */
#include "base/progress.h"
#include "cli/command.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    WIDTH_MIN = 20,
    WIDTH_MAX = 80,
    HELP_COLUMN = 28,
    COMMAND_COLUMN = 14,
    FLAG_COLUMN = 17,
    NARROW_COLUMN = 6,
    LINE_BYTES = 128
};

static int width_of(FILE *out)
{
    const size_t columns = cab_terminal_columns(fileno(out));
    return columns > WIDTH_MAX ? WIDTH_MAX : columns < WIDTH_MIN ? WIDTH_MIN : (int)columns;
}

int cli_second_column(FILE *out, int wide)
{
    return 2 * wide > width_of(out) ? NARROW_COLUMN : wide;
}

void cli_print_wrapped(FILE *out, const char *text, int column, int indent)
{
    const int width = width_of(out);
    while (*text) {
        size_t length = strcspn(text, " \n");
        if (column > indent && column + 1 + (int)length > width) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', out);
            column++;
        }
        fwrite(text, 1, length, out);
        column += (int)length;
        text += length;
        if (*text == '\n') { /* an empty line ends a paragraph; a single newline breaks the line */
            fprintf(out, text[1] == '\n' ? "\n\n%*s" : "\n%*s", indent, "");
            column = indent;
        }
        text += strspn(text, " \n");
    }
    fputc('\n', out);
}

/* What stands after an option's help: its words and its default, where they say something. */
static void describe(const cab_option *option, char *out, size_t size)
{
    char words[LINE_BYTES] = "", value[LINE_BYTES];
    if (option->kind == CAB_OPTION_ENUM) {
        cab_option_expected(option, words, sizeof words);
        memmove(words, words + strlen("one of"), strlen(words) - strlen("one of") + 1);
    }
    cab_option_default(option, value, sizeof value);
    bool list = option->kind == CAB_OPTION_LIST || option->kind == CAB_OPTION_INTS;
    bool said = option->kind == CAB_OPTION_BOOL || (option->kind == CAB_OPTION_TEXT && !option->text[0]);
    snprintf(out, size, "%s%s%s%s%s%s%s", option->help, words[0] ? ":" : "", words,
             option->kind == CAB_OPTION_LIST ? "; may be repeated" : "", list || said ? "" : " (default ",
             list || said ? "" : value, list || said ? "" : ")");
}

void cli_print_row(FILE *out, const char *first, const char *second, int column)
{
    const int used = fprintf(out, "%s", first);
    if (used + 2 > column)
        fprintf(out, "\n%*s", column, "");
    else
        fprintf(out, "%*s", column - used, "");
    cli_print_wrapped(out, second, column, column);
}

static void print_option(FILE *out, char letter, const char *form, const char *text)
{
    char head[LINE_BYTES];
    if (letter)
        snprintf(head, sizeof head, "  -%c, %s", letter, form);
    else
        snprintf(head, sizeof head, "      %s", form);
    cli_print_row(out, head, text, cli_second_column(out, HELP_COLUMN));
}

static void print_command_help(const cli_command *command, FILE *out)
{
    char form[LINE_BYTES], text[4 * LINE_BYTES];
    cab_option_table table = command->options();
    fprintf(out, "Usage: cab %s [OPTION]...%s%s\n\n", command->name, command->synopsis[0] ? " " : "",
            command->synopsis);
    cli_print_wrapped(out, command->description, 0, 0);
    fprintf(out, "\nOptions:\n");
    for (unsigned i = 0; i < table.count; i++) {
        describe(&table.rows[i], text, sizeof text);
        print_option(out, table.rows[i].letter, cli_flag_form(&table.rows[i], form), text);
    }
    print_option(out, 'h', "--help", "print this text and exit");
    if (command->examples && command->examples->command)
        fprintf(out, "\nExamples:\n");
    for (const cli_example *e = command->examples; e && e->command; e++)
        fprintf(out, "  %s\n      %s\n", e->command, e->text);
}

void cli_print_help(const cli_command *command, FILE *out)
{
    if (command) {
        print_command_help(command, out);
        return;
    }
    fprintf(out, "Usage: cab COMMAND [OPTION]... [ARGUMENT]...\n\n");
    cli_print_wrapped(out, "Distils a pretrained Transformer into a Mamba model that behaves like it.\n\nCommands:", 0,
                      0);
    for (const cli_command *const *c = cli_commands(); *c; c++) {
        char name[LINE_BYTES];
        snprintf(name, sizeof name, "  %s", (*c)->name);
        if (!(*c)->hidden)
            cli_print_row(out, name, (*c)->summary, cli_second_column(out, COMMAND_COLUMN));
    }
    fprintf(out, "\nOptions:\n");
    cli_print_row(out, "  -h, --help", "print this text and exit", FLAG_COLUMN);
    cli_print_row(out, "  -V, --version", "print the version and exit", FLAG_COLUMN);
    fprintf(out, "\nExamples:\n"
                 "  cab distill recipes/tales-gpt2.yaml --out runs/tales\n"
                 "  cab generate runs/tales/student --prompt \"Once upon a time\"\n"
                 "  cab report runs/*\n\n");
    cli_print_wrapped(out, "Run 'cab help COMMAND' or 'cab COMMAND --help' for one command.", 0, 0);
}

/* ---- cab help --------------------------------------------------------------------------------------------------- */

static cab_option_table help_table(void)
{
    return (cab_option_table){0};
}

static cab_status run_help(const void *options, const cab_list *operands)
{
    const cli_command *command = NULL;
    (void)options;
    if (operands->count)
        CAB_TRY(cli_command_find(operands->items[0], &command));
    cli_print_help(command, stdout);
    return CAB_OK;
}

static const cli_example examples[] = {{"cab help distill", "what distill does, with all its options"}, {0}};

const cli_command cli_help = {
    .name = "help",
    .summary = "explain the tool or one command",
    .synopsis = "[COMMAND]",
    .description = "Prints the list of commands, or the help text of one.",
    .examples = examples,
    .options = help_table,
    .operands_max = 1,
    .run = run_help,
};
