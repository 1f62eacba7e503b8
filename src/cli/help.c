/* help.c - the help text of the tool and of each subcommand, wrapped to 80 columns. */
#include "cli/command.h"

#include <stdio.h>
#include <string.h>

enum { WIDTH = 80, HELP_COLUMN = 28, LINE_BYTES = 128 };

/* Prints words of `text`, breaking lines before WIDTH; the cursor stands at `column`, later lines start at `indent`. */
static void print_wrapped(FILE *out, const char *text, int column, int indent)
{
    while (*text) {
        size_t length = strcspn(text, " \n");
        if (column > indent && column + 1 + (int)length > WIDTH) {
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

static void print_option(FILE *out, char letter, const char *form, const char *text)
{
    char head[LINE_BYTES];
    if (letter)
        snprintf(head, sizeof head, "  -%c, %s", letter, form);
    else
        snprintf(head, sizeof head, "      %s", form);
    int column = fprintf(out, "%s", head);
    if (column + 2 > HELP_COLUMN)
        fprintf(out, "\n%*s", HELP_COLUMN, "");
    else
        fprintf(out, "%*s", HELP_COLUMN - column, "");
    print_wrapped(out, text, HELP_COLUMN, HELP_COLUMN);
}

static void print_command_help(const cli_command *command, FILE *out)
{
    char form[LINE_BYTES], text[4 * LINE_BYTES];
    cab_option_table table = command->options();
    fprintf(out, "Usage: cab %s [OPTION]...%s%s\n\n", command->name, command->synopsis[0] ? " " : "",
            command->synopsis);
    print_wrapped(out, command->description, 0, 0);
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
    fprintf(out, "Usage: cab COMMAND [OPTION]... [ARGUMENT]...\n\n"
                 "Distils a pretrained Transformer into a Mamba model that behaves like it.\n\n"
                 "Commands:\n");
    for (const cli_command *const *c = cli_commands(); *c; c++) {
        if (!(*c)->hidden)
            fprintf(out, "  %-10s  %s\n", (*c)->name, (*c)->summary);
    }
    fprintf(out, "\nOptions:\n"
                 "  -h, --help     print this text and exit\n"
                 "  -V, --version  print the version and exit\n\n"
                 "Examples:\n"
                 "  cab distill recipes/tales-gpt2.yaml --out runs/tales\n"
                 "  cab generate runs/tales/student --prompt \"Once upon a time\"\n"
                 "  cab report runs/*\n\n"
                 "Run 'cab help COMMAND' or 'cab COMMAND --help' for one command.\n");
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
