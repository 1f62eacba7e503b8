/* man.c - manual pages in roff, written from the same descriptions as the help text. Hidden: the build calls it. */
#include "cli/command.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_BYTES = 1024 };

/* Characters that roff would take for something else: quotes end its arguments, or are printed as typographic ones. */
static const struct {
    char character;
    const char *roff;
} escapes[] = {{'\\', "\\e"},  {'-', "\\-"},   {'"', "\\(dq"}, {'\'', "\\(aq"},
               {'`', "\\(ga"}, {'^', "\\(ha"}, {'~', "\\(ti"}};

/* Text as roff wants it: no line starts with a control character either. */
void cli_put_roff(FILE *out, const char *text)
{
    for (const char *c = text; *c; c++) {
        const char *escaped = NULL;
        for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++)
            escaped = escapes[i].character == *c ? escapes[i].roff : escaped;
        if (*c == '.' && (c == text || c[-1] == '\n'))
            fputs("\\&", out);
        if (escaped != NULL)
            fputs(escaped, out);
        else if (*c == '\n' && c[1] == '\n')
            fputs("\n.PP", out);
        else
            fputc(*c, out);
    }
}

static void put_heading(FILE *out, const char *name)
{
    fputs(".TH CAB", out);
    for (const char *c = name; *c; c++) {
        if (c == name)
            fputs("\\-", out);
        fputc(toupper((unsigned char)*c), out);
    }
    fprintf(out, " 1 \"\" \"cab %s\" \"cab manual\"\n", CAB_VERSION);
}

static void put_exit_status(FILE *out)
{
    fputs(".SH EXIT STATUS\n", out);
#define ROW(name, value, text) fprintf(out, ".TP\n%d\n%s\n", value, text);
    CAB_STATUS_TABLE(ROW)
#undef ROW
}

static void put_option(FILE *out, const cab_option *option)
{
    char form[TEXT_BYTES], value[TEXT_BYTES];
    fputs(".TP\n.B ", out);
    if (option->letter)
        fprintf(out, "\\-%c\\fR, \\fB", option->letter);
    cli_put_roff(out, cli_flag_form(option, form));
    fputc('\n', out);
    cli_put_roff(out, option->help);
    if (option->kind == CAB_OPTION_LIST)
        fputs("; may be repeated", out);
    if (option->kind != CAB_OPTION_BOOL && option->kind != CAB_OPTION_TEXT && option->kind != CAB_OPTION_LIST) {
        cab_option_expected(option, value, sizeof value);
        fputs(".\nTakes ", out);
        cli_put_roff(out, value);
    }
    cab_option_default(option, value, sizeof value);
    if (option->kind != CAB_OPTION_BOOL && option->kind != CAB_OPTION_LIST && strcmp(value, "none") != 0) {
        fputs("; default ", out);
        cli_put_roff(out, value);
    }
    fputs(".\n", out);
}

static void command_page(const cli_command *command, FILE *out)
{
    cab_option_table table = command->options();
    put_heading(out, command->name);
    fprintf(out, ".SH NAME\ncab\\-%s \\- ", command->name);
    cli_put_roff(out, command->summary);
    fprintf(out, "\n.SH SYNOPSIS\n.B cab %s\n[\\fIOPTION\\fR]... ", command->name);
    cli_put_roff(out, command->synopsis);
    fputs("\n.SH DESCRIPTION\n", out);
    cli_put_roff(out, command->description);
    fputs("\n.SH OPTIONS\n", out);
    for (unsigned i = 0; i < table.count; i++)
        put_option(out, &table.rows[i]);
    fputs(".TP\n.B \\-h\\fR, \\fB\\-\\-help\nprint the help text and exit.\n", out);
    if (command->more_manual)
        command->more_manual(out);
    if (command->examples && command->examples->command)
        fputs(".SH EXAMPLES\n", out);
    for (const cli_example *e = command->examples; e && e->command; e++) {
        fputs(".TP\n.B ", out);
        cli_put_roff(out, e->command);
        fputc('\n', out);
        cli_put_roff(out, e->text);
        fputc('\n', out);
    }
    put_exit_status(out);
    fputs(".SH SEE ALSO\n.BR cab (1)\n", out);
}

static void tool_page(FILE *out)
{
    put_heading(out, "");
    fputs(".SH NAME\ncab \\- distil a pretrained Transformer into a Mamba model\n"
          ".SH SYNOPSIS\n.B cab\n.I COMMAND\n[\\fIOPTION\\fR]... [\\fIARGUMENT\\fR]...\n"
          ".SH DESCRIPTION\nTurns a pretrained Transformer into a Mamba model that behaves like it, with little data.\n"
          "Results go to standard output, progress and messages to standard error.\n.SH COMMANDS\n",
          out);
    for (const cli_command *const *c = cli_commands(); *c; c++) {
        if ((*c)->hidden)
            continue;
        fprintf(out, ".TP\n.BR cab\\-%s (1)\n", (*c)->name);
        cli_put_roff(out, (*c)->summary);
        fputs(".\n", out);
    }
    fputs(".SH ENVIRONMENT\n.TP\n.B OMP_NUM_THREADS\nprocessor threads, as for any OpenMP program.\n"
          ".TP\n.B CAB_RECIPES\ndirectories, with colons between them, in which recipes are found by name.\n"
          ".TP\n.B XDG_CACHE_HOME\nwhere tokenized data is kept: \\fI$XDG_CACHE_HOME/cab\\fR.\n",
          out);
    put_exit_status(out);
}

static cab_option_table man_table(void)
{
    return (cab_option_table){0};
}

static cab_status run_man(const void *options, const cab_list *operands)
{
    const cli_command *command = NULL;
    (void)options;
    if (operands->count)
        CAB_TRY(cli_command_find(operands->items[0], &command));
    if (command)
        command_page(command, stdout);
    else
        tool_page(stdout);
    return CAB_OK;
}

static const cli_example examples[] = {{"cab man distill | man -l -", "read the manual page of distill"}, {0}};

const cli_command cli_man = {
    .name = "man",
    .summary = "write a manual page in roff",
    .synopsis = "[COMMAND]",
    .description = "Writes the manual page of the tool, or of one command, to standard output.",
    .examples = examples,
    .options = man_table,
    .operands_max = 1,
    .hidden = true,
    .run = run_man,
};
